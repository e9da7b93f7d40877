"""What must not be read in a text is taken out of it: keys, passwords, and what a terminal would obey. Pure.

A server may echo the key that it was sent, and not as it was sent: percent-encoded in an address, escaped in
JSON or HTML, in hexadecimal or base64. The platform's keys begin with ``plx_``, and by that they are found in
all of these forms, without knowing the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

SENTENCE_CHARS_MAX = 800
_TAIL_CHARS = 250

_HIDDEN = "plx_***"


def _forms(char: str) -> str:
    """A pattern of one character as it stands, and percent-encoded or escaped as JSON, Python or HTML do."""
    code = ord(char)
    escaped = (
        rf"%(?:25){{0,4}}{code:02x}|\\{{1,4}}(?:u00|x){code:02x}|&\#(?:0{{0,4}}{code}|x0{{0,4}}{code:x});"
    )
    return f"(?:{char}|(?i:{escaped}))"


# The forms differ in their first character and every repetition but the last has a bound: time is linear.
_OF_A_KEY = (
    r"(?:[A-Za-z0-9+/=_-]|%(?:25){0,4}[0-9A-Fa-f]{2}|\\{1,4}(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|/)"
    r"|&\#x?[0-9A-Fa-f]{1,6};)"
)
_KEY = re.compile("".join(map(_forms, "plx_")) + _OF_A_KEY + "{8,}")
# "plx_" in base64 looks in three ways, by where in a group of three bytes it begins.
_IN_BASE64 = re.compile(r"(?:cGx4X|[HXn3]BseF[89]|wbHhf)[A-Za-z0-9+/_-]{8,}={0,2}")
_IN_HEX = re.compile(r"(?i:706c785f)(?:[0-9A-Fa-f]{2}){8,}")
_USER = re.compile(r"(?<=://)[^/\s@]+@")


def redact(text: str) -> str:
    """The text with every API key, and every name and password of an address, blotted out."""
    for pattern in (_KEY, _IN_BASE64, _IN_HEX):
        text = pattern.sub(_HIDDEN, text)
    return _USER.sub("***@", text)


def visible(text: str, keep: Collection[str] = ()) -> str:
    """The text with everything escaped that is not seen, or that a terminal would obey, but for ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in text)


def sentence(text: str) -> str:
    """A message as a person reads it: on one line, without keys, and short, however long what it repeats."""
    shown = visible(redact(text))
    if len(shown) <= SENTENCE_CHARS_MAX:
        return shown
    # What to do stands at the end.
    return f"{shown[: SENTENCE_CHARS_MAX - _TAIL_CHARS]} ... {shown[-_TAIL_CHARS:]}"
