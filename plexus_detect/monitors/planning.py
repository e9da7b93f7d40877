"""Compares what is wanted with what the platform has and with what we once applied.

A monitor that a document wants is made, or changed where it is ours and nobody else has touched it since we
applied it. What a person edited, or somebody else made, is named and left, unless the caller says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from plexus_detect.monitors.documents import LEAVE, shown
from plexus_detect.monitors.marks import digest, marked
from plexus_detect.monitors.model import (
    Action,
    Change,
    Existing,
    Expansion,
    Fields,
    Plan,
    Problem,
    Wanted,
    label,
)
from plexus_detect.monitors.ownership import Key, Owned, Ownership


def plan(
    expansion: Expansion,
    existing: Sequence[Existing],
    ownership: Ownership | None = None,
    *,
    prune: bool = False,
) -> Plan:
    """Compare what is wanted with what exists, and both with what we once applied.

    A monitor that no document wants is never touched, unless it is ours and ``prune`` is given. Without an
    ``ownership`` only marked thresholds are known as ours.
    """
    ours = ownership or Ownership()
    by_key: defaultdict[Key, list[Existing]] = defaultdict(list)
    for monitor in existing:
        by_key[monitor.key].append(monitor)
    comparison = _Comparison(ours)
    for wanted in expansion.wanted:
        comparison.add(wanted, by_key.pop(wanted.key, []))
    left = [monitor for found in by_key.values() for monitor in found]
    stale = [*comparison.stale, *_unwanted(left, ours)]
    own_keys = {monitor.key for monitor in left if is_ours(monitor, ours)}
    possible, conflicts = _deletable(stale, existing, ours)
    return Plan(
        expansion,
        tuple(_sparing(comparison.changes, existing, ours)),
        tuple(possible),
        (*comparison.problems, *(conflicts if prune else ())),
        (*expansion.notes, *comparison.notes),
        keep=len(expansion.wanted) - len(comparison.changes) - len(comparison.problems),
        foreign=sum(not is_ours(m, ours) for m in left),
        seen=tuple(m for m in existing if m.key not in by_key or m.key in own_keys),
        ownership=ours,
        prune=prune,
    )


class _Comparison:
    """What came of comparing each wanted monitor with those that the platform has of its key."""

    def __init__(self, ours: Ownership) -> None:
        self._ours = ours
        self.changes: list[Change] = []
        self.problems: list[Problem] = []
        self.stale: list[Change] = []
        self.notes: list[str] = []

    def add(self, wanted: Wanted, found: Sequence[Existing]) -> None:
        """Take in one wanted monitor and what exists of it."""
        outcome = self._offline(wanted, found) if wanted.key[2] == "offline" else self._pair(wanted, found)
        if isinstance(outcome, Change):
            self.changes.append(outcome)
        elif isinstance(outcome, Problem):
            self.problems.append(outcome)

    def _pair(self, wanted: Wanted, found: Sequence[Existing]) -> Change | Problem | None:
        if not found:
            return self._new(wanted)
        return self._compared(wanted, found[0])

    def _offline(self, wanted: Wanted, found: Sequence[Existing]) -> Change | Problem | None:
        """A post of an offline monitor always adds one, so that there may be several, of whomever."""
        if not found:
            return self._new(wanted)
        # The one nearest to the wish is compared, ours before another's.
        best = min(found, key=lambda m: (distance(wanted, m), not is_ours(m, self._ours)))
        mine = [m for m in found if is_ours(m, self._ours)]
        if mine and distance(wanted, best) != SAME:
            best = min(mine, key=lambda m: distance(wanted, m))
        twice = [m for m in mine if m is not best]
        if twice and distance(wanted, best) == SAME and self._is_unfinished(wanted.key):
            return _finished(wanted, twice[0])
        self.stale += [_deletion(m, "a second one on its source") for m in twice]
        if len(found) - len(twice) > 1:
            self.notes.append(f"{wanted.key[0]} has {len(found)} offline monitors, and each of them notifies")
        return self._compared(wanted, best)

    def _is_unfinished(self, key: Key) -> bool:
        """Whether a run began to replace an offline monitor and ended before the delete of the old one."""
        return any(entry.id and entry.sent is not None for entry in self._ours.of(key))

    def _compared(self, wanted: Wanted, found: Existing) -> Change | Problem | None:
        fields = _differences(wanted, found)
        targets = () if _targets_hold(wanted, found) else (("targets", found.targets, wanted.targets),)
        if found.mark_owner not in (None, self._ours.owner) and not self._ours.overwrite:
            return _belongs(wanted, str(found.mark_owner))
        if not fields and not targets:
            return None
        if not self._ours.overwrite:
            if not is_ours(found, self._ours):
                return _not_ours(wanted, fields + targets)
            if _is_edited(found, self._ours):
                return _drift(wanted, found, self._ours)
        if not fields:
            return Change("change", wanted.key, wanted, found, targets, "PATCH", patch_body(wanted, found))
        action: Action = "replace" if wanted.key[2] == "offline" else "change"
        return Change(
            action, wanted.key, wanted, found, fields + targets, "POST", post_body(wanted, self._ours)
        )

    def _new(self, wanted: Wanted) -> Change:
        known = any(entry.settings is not None for entry in self._ours.of(wanted.key))
        why = "was there and is gone from the platform" if known else ""
        return Change("create", wanted.key, wanted, None, (), "POST", post_body(wanted, self._ours), why)


SAME = (0, False)


def is_ours(found: Existing, ours: Ownership) -> bool:
    """Whether a monitor is one that we applied."""
    if found.mark is not None:
        return found.mark.owner == ours.owner
    return _entry(found, ours) is not None


def _entry(found: Existing, ours: Ownership) -> Owned | None:
    """What the manifest says of a monitor.

    Of an offline monitor that a run had no time to see with its id only the settings are known.
    """
    entries = ours.of(found.key)
    if found.key[2] != "offline":
        return entries[0] if entries else None
    known = [entry for entry in entries if entry.id == found.id]
    sent = [e for e in entries if not e.id and e.sent is not None and e.made(found.settings, None)]
    return next(iter(known + sent), None)


def _is_edited(found: Existing, ours: Ownership) -> bool:
    """Whether somebody changed a monitor of ours since we applied it."""
    if found.mark is not None and found.mark.digest == digest(found.settings):
        entry = _entry(found, ours)
        return entry is not None and entry.sent is None and entry.targets not in (LEAVE, found.targets)
    entry = _entry(found, ours)
    return entry is None or not entry.made(found.settings, found.targets)


def distance(wanted: Wanted, found: Existing) -> tuple[int, bool]:
    """How far a monitor is from what is wanted; ``SAME`` when it is just that."""
    return len(_differences(wanted, found)), not _targets_hold(wanted, found)


def _differences(wanted: Wanted, found: Existing) -> Fields:
    pairs = ((name, found.settings.get(name), value) for name, value in wanted.settings.items())
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def _targets_hold(wanted: Wanted, found: Existing) -> bool:
    return wanted.targets in (LEAVE, found.targets)


def _sparing(changes: Sequence[Change], existing: Sequence[Existing], ours: Ownership) -> Iterator[Change]:
    """The changes, none of which gives targets to another monitor.

    A PATCH is about the threshold and the event of a metric together, so where only one of them is meant it
    is posted instead.
    """
    now = {monitor.key: monitor.targets for monitor in existing}
    after = now | {c.key: c.wanted.targets for c in changes if c.wanted and c.wanted.targets != LEAVE}
    for change in changes:
        source, metric, part = change.key
        other = (source, metric, "event" if part == "threshold" else "threshold")
        alone = part == "offline" or other not in now
        if (
            change.method != "PATCH"
            or change.wanted is None
            or alone
            or after[other] == change.wanted.targets
        ):
            yield change
        else:
            yield replace(change, method="POST", body=post_body(change.wanted, ours))


def _finished(wanted: Wanted, old: Existing) -> Change:
    why = "the new one is there, the old one is still to be deleted"
    return Change("replace", wanted.key, wanted, old, (), "DELETE", {"offline_id": old.id}, why)


# -- what is ours and no longer wanted


def _unwanted(left: Sequence[Existing], ours: Ownership) -> Iterator[Change]:
    for monitor in left:
        if is_ours(monitor, ours):
            yield _deletion(monitor, "no document wants it")


def _deletion(found: Existing, why: str) -> Change:
    source, metric, part = found.key
    address = {"offline_id": found.id} if part == "offline" else {"source_id": source, "metric": metric}
    return Change("delete", found.key, None, found, (), "DELETE", address, why)


def _deletable(
    stale: Sequence[Change], existing: Sequence[Existing], ours: Ownership
) -> tuple[list[Change], list[Problem]]:
    """The deletes that reach nothing else, and a sentence about each other one.

    The platform deletes a threshold and an event of one metric together.
    """
    edited = [c for c in stale if not ours.overwrite and c.found is not None and _is_edited(c.found, ours)]
    # An edited one stays, and so does what could be deleted only together with it.
    staying = {id(change) for change in edited}
    doomed = {change.key for change in stale if id(change) not in staying}
    by_pair: defaultdict[tuple[str, str], list[Key]] = defaultdict(list)
    for monitor in existing:
        by_pair[monitor.key[:2]].append(monitor.key)
    possible: list[Change] = []
    problems = [_edited_and_unwanted(change) for change in edited]
    for change in stale:
        if id(change) in staying:
            continue
        source, metric, part = change.key
        others = [key for key in by_pair[source, metric] if key not in doomed] if part != "offline" else []
        if others:
            problems.append(_hangs_on(change, others[0]))
        else:
            possible.append(change)
    return possible, problems


# -- sentences for a person


def _said(fields: Fields) -> str:
    return ", ".join(f"{name} {shown(old)} where {shown(new)} is wanted" for name, old, new in fields)


def _not_ours(wanted: Wanted, fields: Fields) -> Problem:
    return Problem(
        "not ours",
        f"{wanted.origin}: {label(wanted.key)} exists with other settings ({_said(fields)}) and was not made "
        "from these documents; write it as it is there, or overwrite it with --force",
    )


def _belongs(wanted: Wanted, owner: str) -> Problem:
    return Problem(
        "not ours",
        f"{wanted.origin}: {label(wanted.key)} belongs to {owner!r}, who applies it from other documents; "
        "take it out of one of the two, or take it over with --force",
    )


def _drift(wanted: Wanted, found: Existing, ours: Ownership) -> Problem:
    entry = _entry(found, ours)
    before = entry.settings if entry is not None and entry.settings is not None else wanted.settings
    names = [name for name in found.settings if before.get(name) != found.settings[name]]
    said = [f"{name} {shown(before.get(name))} -> {shown(found.settings[name])}" for name in names]
    if entry is not None and entry.targets not in (LEAVE, found.targets):
        said.append(f"targets {shown(entry.targets)} -> {shown(found.targets)}")
    since = f" since {entry.applied}" if entry is not None and entry.applied else ""
    return Problem(
        "drift",
        f"{wanted.origin}: {label(wanted.key)} was edited on the platform{since} ({', '.join(said)}); "
        "write the new settings into the document, or overwrite them with --force",
    )


def _hangs_on(change: Change, other: Key) -> Problem:
    return Problem(
        "conflict",
        f"{label(change.key)}: {change.why}, but the platform deletes it only together with the {other[2]} "
        "monitor of the same metric, which stays; delete it there by hand",
    )


def _edited_and_unwanted(change: Change) -> Problem:
    return Problem(
        "drift",
        f"{label(change.key)}: {change.why}, but it was edited on the platform, so somebody may need it; "
        "delete it there by hand, or with --force",
    )


# -- bodies of requests


def post_body(wanted: Wanted, ours: Ownership) -> dict[str, Any]:
    """What a POST sends to make a monitor."""
    source, metric, part = wanted.key
    settings = dict(wanted.settings)
    if part == "offline":
        del settings["enabled"]
    elif part == "event" and settings["message"] is None:
        del settings["message"]
    elif part == "threshold" and ours.mark:
        settings["message"] = marked(wanted.settings, ours.owner)
    body: dict[str, Any] = {"source_id": source, "metric": metric, part: settings}
    return _with_targets({key: value for key, value in body.items() if value != ""}, wanted)


def patch_body(wanted: Wanted, found: Existing) -> dict[str, Any]:
    """What a PATCH sends to give a monitor its targets."""
    source, metric, part = wanted.key
    address = {"offline_id": found.id} if part == "offline" else {"source_id": source, "metric": metric}
    return _with_targets(address, wanted)


def _with_targets(body: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    if wanted.targets != LEAVE:
        body["notification_targets"] = None if wanted.targets is None else list(wanted.targets)
    return body
