"""Whether a plan still fits: what the platform and the manifest say now, compared with when it was made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from plexus_detect.errors import UnsafePlanError
from plexus_detect.monitors.documents import shown
from plexus_detect.monitors.model import Change, Existing, Plan, label
from plexus_detect.monitors.ownership import Key, Ownership
from plexus_detect.monitors.planning import SAME, distance, plan

NAMED_MAX = 5


def missing(made: Plan, now: Sequence[Existing]) -> bool:
    """Whether a reading lacks something that the plan saw and does not itself replace or delete."""
    there = {(m.key, m.id) for m in now}
    going = {(c.key, c.found.id) for c in made.work if c.found and c.action in ("delete", "replace")}
    return any((m.key, m.id) not in there for m in made.seen if (m.key, m.id) not in going)


def still_to_do(made: Plan, now: Sequence[Existing], ours: Ownership) -> Plan:
    """What is left to do of a plan, by what the platform lists now and what is ours now.

    What an earlier run of the same plan has done is done. Raises UnsafePlanError, which names what moved,
    when anything else that the plan saw is different now, when something exists that it would create, or when
    whose a monitor is has changed.
    """
    comparison = _Since(made, now, ours)
    left = [change for change in map(comparison.left_of, made.work) if change is not None]
    again = plan(made.expansion, now, ours, prune=made.prune)
    possible = {(c.key, c.found.id if c.found else "") for c in again.work}
    moved = comparison.moved() or [
        f"{c.label} may not be touched any more (by the manifest, or for what else is there)"
        for c in left
        if (c.key, c.found.id if c.found else "") not in possible and not _is_half_done(c)
    ]
    if moved:
        more = f" and {len(moved) - NAMED_MAX} more" if len(moved) > NAMED_MAX else ""
        raise UnsafePlanError(
            f"the plan no longer fits, nothing was changed: {'; '.join(moved[:NAMED_MAX])}{more}; plan again"
        )
    deletes = tuple(change for change in left if change.action == "delete")
    return replace(
        made,
        changes=tuple(change for change in left if change.action != "delete"),
        stale=deletes if made.prune else made.stale,
        seen=again.seen,
        ownership=ours,
    )


class _Since:
    """What has become of each monitor since the plan was made."""

    def __init__(self, made: Plan, now: Sequence[Existing], ours: Ownership) -> None:
        self._ours = ours
        self._before = _by_key(made.seen)
        self._now = _by_key(now)
        self._wanted = {w.key: w for w in made.expansion.wanted}
        self._work: defaultdict[Key, list[Change]] = defaultdict(list)
        for change in made.work:
            self._work[change.key].append(change)

    def moved(self) -> list[str]:
        """A few words about each monitor that somebody else changed."""
        keys = dict.fromkeys((*self._before, *self._wanted))
        return [words for key in keys for words in self._moved(key)]

    def _moved(self, key: Key) -> Iterator[str]:
        before, now = self._before.get(key, {}), self._now.get(key, {})
        work = self._work[key]
        made = [m for m in now.values() if self._is_made(m, work)]
        for monitor in now.values():
            old = before.get(monitor.id)
            if monitor == old or monitor in made[:1]:
                continue
            yield f"{label(key)} exists by now" if old is None else f"{label(key)} was {_edit(old, monitor)}"
        going = {change.found.id for change in work if change.found and self._may_go(change, bool(made))}
        yield from (f"{label(key)} is gone" for id_ in before if id_ not in now and id_ not in going)

    def _is_made(self, found: Existing, work: Sequence[Change]) -> bool:
        """Whether a monitor is what a change of the plan makes."""
        if found in self._before.get(found.key, {}).values():
            return False
        owned = found.mark_owner in (None, self._ours.owner)
        return owned and any(c.wanted is not None and distance(c.wanted, found) == SAME for c in work)

    @staticmethod
    def _may_go(change: Change, made: bool) -> bool:
        return change.method == "DELETE" or (change.action in ("replace", "change") and made)

    def left_of(self, change: Change) -> Change | None:
        """What is left of a change: all of it, nothing, or of a replacement the delete."""
        now = self._now.get(change.key, {})
        made = any(self._is_made(monitor, self._work[change.key]) for monitor in now.values())
        if change.method == "DELETE":
            return change if change.found is not None and change.found.id in now else None
        if change.action == "replace" and made and change.found is not None and change.found.id in now:
            return replace(change, method="DELETE", body={"offline_id": change.found.id})
        return None if made else change


def _is_half_done(change: Change) -> bool:
    return change.action == "replace" and change.method == "DELETE"


def _by_key(monitors: Sequence[Existing]) -> dict[Key, dict[str, Existing]]:
    found: dict[Key, dict[str, Existing]] = {}
    for monitor in monitors:
        found.setdefault(monitor.key, {})[monitor.id] = monitor
    return found


def _edit(old: Existing, new: Existing) -> str:
    pairs = [(name, old.settings.get(name), value) for name, value in new.settings.items()]
    pairs.append(("targets", old.targets, new.targets))
    said = [f"{name} {shown(was)} -> {shown(value)}" for name, was, value in pairs if was != value]
    return f"edited ({', '.join(said)})" if said else "marked by somebody else"
