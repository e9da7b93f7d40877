"""The words of provisioning as values: wanted, existing, change and plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plexus_detect.errors import ContractError
from plexus_detect.monitors.documents import DEFAULTS, Targets, filled, target_ids
from plexus_detect.monitors.marks import Mark, unmarked
from plexus_detect.monitors.ownership import Key, Ownership

Action = Literal["create", "change", "replace", "delete"]
Fields = tuple[tuple[str, Any, Any], ...]


@dataclass(frozen=True)
class Wanted:
    """One monitor that should exist, with every field filled in."""

    origin: str
    key: Key
    settings: Mapping[str, Any]
    targets: Targets


@dataclass(frozen=True)
class Existing:
    """One monitor that the platform has; ``id`` is the platform's own, needed to address an offline one.

    A threshold's message is without the ``mark``.
    """

    key: Key
    settings: Mapping[str, Any]
    targets: tuple[str, ...] | None
    id: str
    mark: Mark | None = None

    @property
    def mark_owner(self) -> str | None:
        """Who marked it as theirs, None where there is no mark."""
        return None if self.mark is None else self.mark.owner


@dataclass(frozen=True)
class Problem:
    """What only a person can solve; the other monitors go on without it."""

    kind: Literal["conflict", "unknown source", "drift", "not ours"]
    sentence: str


@dataclass(frozen=True)
class Expansion:
    """All documents spread over the sources of one moment."""

    wanted: tuple[Wanted, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One thing to do; ``fields`` holds (name, old, new) and is empty for a new monitor and for a delete.

    ``body`` is what a POST or PATCH sends, or the parameters of a DELETE. An offline monitor is replaced by a
    POST of the new one and then a delete of ``found``. ``wanted`` is None for a delete, ``found`` for a new
    one. ``another`` new offline monitor is meant to stand beside those that its source has.
    """

    action: Action
    key: Key
    wanted: Wanted | None
    found: Existing | None
    fields: Fields
    method: Literal["POST", "PATCH", "DELETE"]
    body: Mapping[str, Any]
    why: str = ""
    another: bool = False

    @property
    def label(self) -> str:
        """The monitor in words: what it is, on which source and metric."""
        return label(self.key)


def label(key: Key) -> str:
    """A monitor in words: what it is, on which source and metric."""
    source, metric, part = key
    return f"{part} {source} {metric}".rstrip()


@dataclass(frozen=True)
class Plan:
    """Everything that has to be done, and everything that has not. ``foreign`` counts monitors of others.

    ``stale`` are ours that no document wants any more: they are deleted only where ``prune`` says so.
    ``seen`` is what the platform had of all that the plan is about. ``source`` is one of our own that has to
    be made first, empty when there is none.
    """

    expansion: Expansion
    changes: tuple[Change, ...]
    stale: tuple[Change, ...]
    conflicts: tuple[Problem, ...]
    notes: tuple[str, ...]
    keep: int
    foreign: int
    seen: tuple[Existing, ...]
    ownership: Ownership
    prune: bool = False
    source: str = ""

    @property
    def work(self) -> tuple[Change, ...]:
        """All that carrying out the plan does: deletes first, since one takes threshold and event alike."""
        return (self.stale if self.prune else ()) + self.changes

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Unknown sources, conflicts, drift and monitors of others together."""
        return self.expansion.problems + self.conflicts

    @property
    def empty(self) -> bool:
        """True when there is nothing to do and nothing to say."""
        return not self.work and not self.problems


def existing_from(rows: Sequence[Mapping[str, Any]]) -> tuple[Existing, ...]:
    """The rows of ``GET /api/monitors`` as monitors, one per threshold, event and offline part.

    ``source_id`` of a row is an id or a slug depending on the part, so ``source_slug`` is what counts.
    Raises ContractError for a row of another shape.
    """
    found: list[Existing] = []
    for i, row in enumerate(rows):
        source, metric = row.get("source_slug") or row.get("source_id"), row.get("metric") or ""
        for part in DEFAULTS:
            fields = row.get(part)
            if fields is None:
                continue
            if not (isinstance(source, str) and isinstance(metric, str) and isinstance(fields, dict)):
                raise ContractError(f"GET /api/monitors: monitors[{i}] is not of a shape we know")
            found.append(_existing((source, "" if part == "offline" else metric, part), fields))
    return tuple(found)


def _existing(key: Key, fields: Mapping[str, Any]) -> Existing:
    targets = fields.get("notification_target_ids")
    try:
        mark = unmarked(fields.get("message"))[1] if key[2] == "threshold" else None
        settings = filled(key[2], fields)
        ids = None if targets is None else target_ids(targets)
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractError(f"GET /api/monitors: the {key[2]} of {key[0]} {key[1]}: {error}") from error
    return Existing(key, settings, ids, str(fields.get("id", "")), mark)


def merged(first: Sequence[Existing], second: Sequence[Existing]) -> tuple[Existing, ...]:
    """Two readings as one, the second winning: the platform's list can be partial and does not say so."""
    return tuple({(m.key, m.id): m for m in (*first, *second)}.values())
