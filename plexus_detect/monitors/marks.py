"""The mark of a monitor that we applied, where the platform can hold one: in a threshold's message.

That message never reaches anybody (the platform's Slack text is made without it), so ours end with
``[owner:digest]``: the digest of the settings as they were applied tells a person's edit even where the
manifest is lost. An event's message is sent to people, and an offline monitor has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

OWNER = "plexus-detect"
_MARK = re.compile(r"(?:(.+) )?\[([a-z0-9][a-z0-9._-]{0,255}):([0-9a-f]{8})\]", re.DOTALL)


class Mark(NamedTuple):
    """What stands at the end of a threshold's message: who applied it, and a digest of what."""

    owner: str
    digest: str


def unmarked(message: str | None) -> tuple[str | None, Mark | None]:
    """A message without its mark, and the mark; a message of nothing else is None."""
    # The platform's answers are not checked for the type of a message, which nobody needs to understand.
    found = _MARK.fullmatch(message) if isinstance(message, str) else None
    if found is None:
        return message, None
    return found[1], Mark(found[2], found[3])


def marked(settings: Mapping[str, Any], owner: str) -> str:
    """The message of a threshold with its mark."""
    return signed(settings["message"], Mark(owner, digest(settings)))


def signed(message: str | None, mark: Mark) -> str:
    """A message with a mark at its end: the inverse of ``unmarked``."""
    said = f"[{mark.owner}:{mark.digest}]"
    return f"{message} {said}" if message else said


def digest(settings: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that a change of any field changes."""
    text = json.dumps(dict(settings), sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:8]
