"""Self x fleet in four words, and a fleet event as one episode instead of fifty.

A device beyond its line against its peers is odd. Beyond its own line, but with a large share of its group
and not odd against it, it takes part in a fleet event. Far from the others for ever, and not odd now, it is
always different. A group's event opens when enough of its fresh members were beyond their own line within a
short time, and closes when less than half as many are. It is looked at once a bucket of the group, in the
order of the points, so that it does not depend on which call brought which point.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Column, Columns, Snapshot
from plexus_detect.fleet.slots import CLOCK_SLOTS_MAX
from plexus_detect.series import F64, I8, I64, Bool

_NEVER = -(1 << 60)


class Verdict(IntEnum):
    """What a device is doing, in the light of its past and of its peers."""

    NORMAL = 0
    ALWAYS_DIFFERENT = 1
    FLEET_EVENT = 2
    ODD_DEVICE = 3


WORDS = {verdict: verdict.name.lower().replace("_", " ") for verdict in Verdict}


def verdicts(own: F64, fleet: F64, different: Bool, in_event: Bool) -> I8:
    """``Verdict`` codes, aligned with the columns: scores of points against their own past and against their
    peers (1.0 is at the line, NaN is unknown), whether the device is always different, and whether its group
    has an event."""
    out = np.where(different, np.int8(Verdict.ALWAYS_DIFFERENT), np.int8(Verdict.NORMAL))
    out[in_event & (np.abs(own) >= 1.0)] = Verdict.FLEET_EVENT
    out[np.abs(fleet) >= 1.0] = Verdict.ODD_DEVICE
    return out


@dataclass(frozen=True)
class EventParams:
    """``share`` of the fresh members of a group, and ``group_min`` of them, make an event when they were
    beyond their line within ``within_ms`` (three buckets at least)."""

    group_min: int = 5
    share: float = 0.3
    within_ms: int = 600_000


@dataclass(frozen=True)
class GroupMove:
    """A fleet event of ``group`` opened or closed, told by the point at position ``at``; it lasts since
    ``since_ms``, and ``members`` is how many were beyond their line (the most so far)."""

    opened: bool
    group: int
    at: int
    since_ms: int
    members: int


class _EventGroups(Columns):
    """Of a group: its bucket and how wide that is, points far ahead of it in a row, whether it has an event,
    since when, and how many members were in it."""

    slot: I64
    width: I64
    ahead: I64
    is_open: Bool
    since_ms: I64
    members: I64

    COLUMNS: ClassVar = {
        "slot": Column(_NEVER, dtype=np.int64),
        "width": Column(dtype=np.int64),
        "ahead": Column(dtype=np.int64),
        "is_open": Column(dtype=np.bool_),
        "since_ms": Column(dtype=np.int64),
        "members": Column(dtype=np.int64),
    }


class FleetEvents(Columns):
    """The events of the groups of a bank: of a source when it was ``seen`` and when ``beyond`` its own line
    last, its ``group``, and whether it is still beyond since an event (``held``): then it is part of that."""

    group: I64
    held: Bool
    seen_ms: I64
    beyond_ms: I64

    COLUMNS: ClassVar = {
        "group": Column(-1, dtype=np.int64),
        "seen_ms": Column(_NEVER, dtype=np.int64),
        "beyond_ms": Column(_NEVER, dtype=np.int64),
        "held": Column(dtype=np.bool_),
    }

    def __init__(self, params: EventParams) -> None:
        super().__init__()
        self.params = params
        self.groups = _EventGroups()

    def put(self, row: int, group: int) -> None:
        """Source ``row`` is a member of ``group``; makes room for both."""
        if row >= len(self.group):
            self.grow(max(16, 2 * row))
        if group >= len(self.groups.slot):
            self.groups.grow(max(4, 2 * group))
        self.group[row] = group

    def step(self, rows: I64, t_ms: I64, own: F64, bucket_ms: I64) -> tuple[Bool, list[GroupMove]]:
        """Take points in order of arrival: sources, times, scores against their own past (1.0 is at the
        line), widths of the buckets of their groups. Returns which points fall into an event of their group,
        and the events that opened or closed, in order of position."""
        order = np.argsort(self.group[rows], kind="stable")
        group = self.group[rows][order]
        first = np.flatnonzero(np.diff(group, prepend=-1))
        inside, moves = np.zeros(len(rows), np.bool_), list[GroupMove]()
        for part in np.split(order, first[1:]) if len(rows) else []:
            g, width = int(self.group[rows[part[0]]]), int(bucket_ms[part[0]])
            self._widen(g, width)
            slots = self._slots(g, t_ms[part] // width)
            bounds = [0, *(np.flatnonzero(np.diff(slots))).tolist(), len(part)]
            for i, (a, b) in enumerate(pairwise(bounds)):
                now = part[a:b]
                if i:
                    moves += self._look(g, int(now[0]), int(slots[a + 1]) * width, width)
                counted = np.minimum(t_ms[now], (slots[a + 1 : b + 1] + 1) * width)
                self._note(rows[now], counted, own[now])
                inside[now] = self._hold(rows[now], own[now], bool(self.groups.is_open[g]))
        return inside, sorted(moves, key=lambda move: move.at)

    def _widen(self, g: int, width: int) -> None:
        """The bucket of a group in units of another width: it follows the cadence."""
        of = self.groups
        if of.width[g] != width and of.slot[g] != _NEVER:
            of.slot[g] = of.slot[g] * of.width[g] // width
        of.width[g] = width

    def _slots(self, g: int, slot: I64) -> I64:
        """The bucket of the group before each of its points and after the last. One clock far ahead moves
        it not; as many in a row as half of the members are a leap in time."""
        was, of = int(self.groups.slot[g]), self.groups
        out = np.maximum.accumulate(np.append(was, slot))
        if was != _NEVER and of.ahead[g] == 0 and out[-1] - was <= CLOCK_SLOTS_MAX:
            of.slot[g] = out[-1]
            return out
        ahead, half = int(of.ahead[g]), int((self.group == g).sum()) // 2
        for i, now in enumerate(slot.tolist()):
            ahead = ahead + 1 if now - was > CLOCK_SLOTS_MAX else 0
            if was == _NEVER or 0 < now - was <= CLOCK_SLOTS_MAX or ahead > half:
                was, ahead = now, 0
            out[i + 1] = was
        of.slot[g], of.ahead[g] = was, ahead
        return out

    def _note(self, rows: I64, t_ms: I64, own: F64) -> None:
        self.seen_ms[rows] = t_ms
        beyond = np.abs(own) >= 1.0
        self.beyond_ms[rows[beyond]] = t_ms[beyond]

    def _hold(self, rows: I64, own: F64, is_open: bool) -> Bool:
        """Which points are part of an event: of one that is open, or of one that is over for the others."""
        beyond = np.abs(own) >= 1.0
        held = (self.held[rows] | is_open) & (beyond | np.isnan(own))
        self.held[rows] = held
        return held | is_open

    def _look(self, g: int, at: int, now_ms: int, width: int) -> list[GroupMove]:
        """A bucket of ``g`` is over: whether its event opens or closes."""
        of, mine, p = self.groups, self.group == g, self.params
        since = now_ms - max(p.within_ms, 3 * width)
        fresh = mine & (self.seen_ms >= since)
        beyond = fresh & (self.beyond_ms >= since)
        n, needed = int(beyond.sum()), max(p.group_min, p.share * int(fresh.sum()))
        if of.is_open[g]:
            of.members[g] = max(int(of.members[g]), n)
            if 2 * n >= needed:
                return []
            of.is_open[g] = False
            return [self._move(g, at)]
        if n < needed:
            return []
        of.is_open[g], of.members[g] = True, n
        of.since_ms[g] = int(self.beyond_ms[beyond].min())
        return [self._move(g, at)]

    def _move(self, g: int, at: int) -> GroupMove:
        of = self.groups
        return GroupMove(bool(of.is_open[g]), g, at, int(of.since_ms[g]), int(of.members[g]))

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns, for a snapshot."""
        of_groups = self.groups.save("of_group.")
        return self.save() | of_groups

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave under the same parameters."""
        self.restore(columns)
        self.groups.restore(columns, "of_group.")
