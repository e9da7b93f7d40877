"""What a run was about to change or delete, as it was before: what ``undo`` sets back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plexus_detect.monitors.asjson import body_of, check, document, opened
from plexus_detect.monitors.model import Action, Change, Existing, Wanted
from plexus_detect.monitors.ownership import Key

KIND = "plexus_detect_backup"
VERSION = 1


@dataclass(frozen=True)
class Touched:
    """One monitor that a run set out to make, change, replace or delete.

    ``before`` is how it was, None where there was none; ``wanted`` what was to come of it, None for a delete.
    """

    action: Action
    key: Key
    before: Existing | None
    wanted: Wanted | None


@dataclass(frozen=True)
class Backup:
    """All that one run set out to do, on one platform (its app's address) for one owner.

    ``made`` is the time (UTC), ``command`` what wrote it (``apply``, ``prune``), ``program`` its version.
    """

    endpoint: str
    owner: str
    made: str
    command: str
    program: str
    monitors: tuple[Touched, ...]

    def to_json(self) -> str:
        """The text of the backup's file."""
        return document({KIND: VERSION}, self)


def offline_ids(backup: Backup) -> frozenset[str]:
    """The ids of the offline monitors that a run was about to delete or to replace."""
    found = (entry.before for entry in backup.monitors if entry.action in ("delete", "replace"))
    return frozenset(before.id for before in found if before is not None and before.key[2] == "offline")


def touched(work: Sequence[Change]) -> tuple[Touched, ...]:
    """What the changes of a plan touch, as it is now."""
    return tuple(Touched(change.action, change.key, change.found, change.wanted) for change in work)


def backup_from(text: str, name: str) -> Backup:
    """The backup in a file's text. Raises ConfigError with one sentence for one that cannot be used."""
    backup = body_of(opened(text, KIND, VERSION, name), Backup, name)
    check([m for entry in backup.monitors for m in (entry.before, entry.wanted) if m is not None], name)
    return backup
