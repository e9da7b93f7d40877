"""What the platform has, what is wanted, and the requests that make the two agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plexus_detect.errors import ContractError
from plexus_detect.monitors.documents import DEFAULTS, LEAVE, Targets, filled, shown, target_ids

Key = tuple[str, str, str]
"""Source slug, metric ("" for an offline monitor) and part (``threshold``, ``event`` or ``offline``)."""


@dataclass(frozen=True)
class Wanted:
    """One monitor that should exist, with every field filled in."""

    origin: str
    key: Key
    settings: Mapping[str, Any]
    targets: Targets


@dataclass(frozen=True)
class Existing:
    """One monitor that the platform has; ``id`` is the platform's own, needed to address an offline one."""

    key: Key
    settings: Mapping[str, Any]
    targets: tuple[str, ...] | None
    id: str


@dataclass(frozen=True)
class Problem:
    """What only a person can solve; the other monitors go on without it."""

    kind: Literal["conflict", "unknown source"]
    sentence: str


@dataclass(frozen=True)
class Expansion:
    """All documents spread over the sources of one moment."""

    wanted: tuple[Wanted, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One request to make; ``fields`` holds (name, old, new) and is empty for a new monitor."""

    action: Literal["create", "change"]
    wanted: Wanted
    fields: tuple[tuple[str, Any, Any], ...]
    method: Literal["POST", "PATCH"]
    body: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The monitor in words: what it is, on which source and metric."""
        source, metric, part = self.wanted.key
        return f"{part} {source} {metric}".rstrip()


@dataclass(frozen=True)
class Plan:
    """Everything that has to be done, and everything that has not. ``foreign`` counts monitors of others.

    ``source`` is one of our own that has to be made first, empty when there is none.
    """

    expansion: Expansion
    changes: tuple[Change, ...]
    conflicts: tuple[Problem, ...]
    notes: tuple[str, ...]
    keep: int
    foreign: int
    source: str = ""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Unknown sources and conflicts together."""
        return self.expansion.problems + self.conflicts

    @property
    def empty(self) -> bool:
        """True when there is nothing to do and nothing to say."""
        return not self.changes and not self.problems


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
        settings = filled(key[2], fields)
        ids = None if targets is None else target_ids(targets)
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractError(f"GET /api/monitors: the {key[2]} of {key[0]} {key[1]}: {error}") from error
    return Existing(key, settings, ids, str(fields.get("id", "")))


def merged(first: Sequence[Existing], second: Sequence[Existing]) -> tuple[Existing, ...]:
    """Two readings as one, the second winning: the platform's list can be partial and does not say so."""
    return tuple({(m.key, m.id): m for m in (*first, *second)}.values())


def plan(expansion: Expansion, existing: Sequence[Existing]) -> Plan:
    """Compare what is wanted with what exists; never touches a monitor that no document wants."""
    by_key: defaultdict[Key, list[Existing]] = defaultdict(list)
    for monitor in existing:
        by_key[monitor.key].append(monitor)
    changes: list[Change] = []
    conflicts: list[Problem] = []
    notes = list(expansion.notes)
    for wanted in expansion.wanted:
        found = by_key.pop(wanted.key, [])
        outcome = _compared(wanted, found)
        if isinstance(outcome, Change):
            changes.append(outcome)
        elif isinstance(outcome, Problem):
            conflicts.append(outcome)
        if len(found) > 1:
            notes.append(f"{wanted.key[0]} has {len(found)} offline monitors, and each of them notifies")
    return Plan(
        expansion,
        tuple(changes),
        tuple(conflicts),
        tuple(notes),
        keep=len(expansion.wanted) - len(changes) - len(conflicts),
        foreign=sum(map(len, by_key.values())),
    )


def _compared(wanted: Wanted, found: Sequence[Existing]) -> Change | Problem | None:
    if not found:
        return Change("create", wanted, (), "POST", _post_body(wanted))
    # A post of an offline monitor always adds one, so of several the one nearest to the wish is compared.
    nearest = min(found, key=lambda m: (len(_differences(wanted, m)), not _targets_hold(wanted, m)))
    fields = _differences(wanted, nearest)
    if fields and wanted.key[2] == "offline":
        return _conflict(wanted, fields)
    targets = () if _targets_hold(wanted, nearest) else (("targets", nearest.targets, wanted.targets),)
    if fields:
        return Change("change", wanted, fields + targets, "POST", _post_body(wanted))
    if targets:
        return Change("change", wanted, targets, "PATCH", _patch_body(wanted, nearest))
    return None


def _differences(wanted: Wanted, found: Existing) -> tuple[tuple[str, Any, Any], ...]:
    pairs = ((name, found.settings.get(name), value) for name, value in wanted.settings.items())
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def _targets_hold(wanted: Wanted, found: Existing) -> bool:
    return wanted.targets in (LEAVE, found.targets)


def _conflict(wanted: Wanted, fields: Sequence[tuple[str, Any, Any]]) -> Problem:
    said = ", ".join(f"{name} {shown(old)} where {shown(new)} is wanted" for name, old, new in fields)
    return Problem(
        "conflict",
        f"{wanted.origin}: source {wanted.key[0]!r} has an offline monitor with other settings ({said}); "
        "the platform can only add a second one, which would notify twice: change or delete it there by hand",
    )


def _post_body(wanted: Wanted) -> dict[str, Any]:
    source, metric, part = wanted.key
    settings = dict(wanted.settings)
    if part == "offline":
        del settings["enabled"]
    elif part == "event" and settings["message"] is None:
        del settings["message"]
    body: dict[str, Any] = {"source_id": source, "metric": metric, part: settings}
    return _with_targets({key: value for key, value in body.items() if value != ""}, wanted)


def _patch_body(wanted: Wanted, found: Existing) -> dict[str, Any]:
    source, metric, part = wanted.key
    address = {"offline_id": found.id} if part == "offline" else {"source_id": source, "metric": metric}
    return _with_targets(address, wanted)


def _with_targets(body: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    if wanted.targets != LEAVE:
        body["notification_targets"] = None if wanted.targets is None else list(wanted.targets)
    return body
