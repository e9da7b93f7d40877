"""Time in a fleet: which bucket it is, who is fresh, whose clock is wrong.

Freshness goes by arrival, because judging it by the device's clock would silence every device whose clock is
wrong. The bucket follows the median cadence of the sources.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.fleet.params import FleetParams
from plexus_detect.series import F64, I64, Bool, Points, together
from plexus_detect.stats import cross_section

# A source is stale when nothing of it arrived for this many buckets.
STALE_SLOTS = 3

# A point more than this many buckets from the fleet's has a wrong clock, unless most other sources agree,
# or there came so many such points in a row, for each fresh source, that the others must be gone.
CLOCK_SLOTS_MAX, STRAYS_MAX = 3, 10

# A clock that is ahead by more than this many buckets is not believed: else it would drive the fleet's time,
# and the others would be behind. How far it is ahead of the median is learned at this rate;
# one that is very far ahead is left to the vote.
AHEAD_SLOTS, AHEAD_SLOTS_MAX, _AHEAD_RATE = 1.5, 12, 0.1

# The width of a bucket before the cadence is known; after how many buckets the width is looked at again.
BUCKET_MS_FIRST, BUCKET_REVIEW = 1_000, 8

# Widths a bucket may have when it follows the cadence, in milliseconds.
_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)
LADDER_MS = np.array([round(1000 * s) for s in (*_SECONDS, 86_400)])


class Groups(Columns):
    """Of a group: how many sources, bucket width and whether it follows a known cadence, current bucket
    (``slot``) and how many there were, points away in a row, the first bucket after the last leap in time,
    and the least step of any source."""

    size: I64
    bucket_ms: I64
    paced: Bool
    slot: I64
    turns: I64
    strays: I64
    leapt: I64
    step_min: F64

    COLUMNS: ClassVar = {
        "size": Column(dtype=np.int64),
        "bucket_ms": Column(BUCKET_MS_FIRST, dtype=np.int64),
        "paced": Column(dtype=np.bool_),
        "slot": Column(dtype=np.int64),
        "turns": Column(dtype=np.int64),
        "strays": Column(dtype=np.int64),
        "leapt": Column(-(1 << 60), dtype=np.int64),
        "step_min": Column(np.inf),
    }


class Slots(Columns):
    """Of a source: ``group`` and its ``place`` there, newest ``value``, its time and the bucket in which it
    arrived, whether its clock is ``away``, its cadence, and how far its clock is ahead
    of the others'."""

    group: I64
    place: I64
    value: F64
    t_ms: I64
    seen_slot: I64
    away: Bool
    cadence_ms: F64
    ahead_ms: F64

    COLUMNS: ClassVar = {
        "group": Column(dtype=np.int64),
        "place": Column(dtype=np.int64),
        "value": Column(np.nan),
        "t_ms": Column(dtype=np.int64),
        "seen_slot": Column(dtype=np.int64),
        "away": Column(dtype=np.bool_),
        "cadence_ms": Column(),
        "ahead_ms": Column(),
    }

    def __init__(self, params: FleetParams) -> None:
        super().__init__()
        self.params = params
        self.groups = Groups()
        self.n = 0

    def __len__(self) -> int:
        return self.n

    def enter(self, group: int) -> int:
        """The row newly given to a source of ``group``; there is room for both."""
        self.group[self.n], self.place[self.n] = group, self.groups.size[group]
        self.groups.size[group] += 1
        self.n += 1
        return self.n - 1

    def run(self, points: Points, which: I64, done: I64, ends: I64) -> tuple[I64, Bool]:
        """Bring each group's bucket to that of its next point; returns how far no other decision is due,
        and which points are away from the fleet's time. Those count as of now, like late ones.

        A device whose clock is far off must not carry the fleet with it: a leap in time is put to the vote.
        """
        first = done[done < ends]
        g, t_ms = self.group[points.series[first]], self._believed(points.take(first))
        lead = t_ms // self.groups.bucket_ms[g] - self.groups.slot[g]
        begins = self.groups.turns[g] == 0
        turn = begins | ((lead > 0) & (lead <= CLOCK_SLOTS_MAX))
        for i in np.flatnonzero(~begins & (np.abs(lead) > CLOCK_SLOTS_MAX)).tolist():
            turn[i] = self._carried(int(g[i]), int(points.series[first[i]]))
        if turn.any():
            self.turn(g[turn], t_ms[turn])
        group = self.group[points.series]
        lead = self._believed(points) // self.groups.bucket_ms[group] - self.groups.slot[group]
        stray = np.abs(lead) > CLOCK_SLOTS_MAX
        event = (lead > 0) & ~stray
        if stray.any():
            event |= self._doubtful(points.series, stray, done[which])
        at = np.append(np.flatnonzero(event), len(points))
        stop = np.minimum(at[np.searchsorted(at[:-1], done + 1)], ends)
        return np.where(done < ends, stop, done), stray

    def _believed(self, points: Points) -> I64:
        """The times of points, less what their clocks are ahead."""
        ahead = self.ahead_ms[points.series]
        wrong = ahead > AHEAD_SLOTS * self.groups.bucket_ms[self.group[points.series]]
        if not wrong.any():
            return points.t_ms
        return points.t_ms - np.where(wrong, ahead, 0.0).astype(np.int64)

    def learn_clocks(self, members: tuple[I64, I64], fresh: Bool, n_groups: int) -> None:
        """Learn how far the clock of each fresh member is ahead of the median of its group."""
        rows, number = members
        newest = np.where(fresh, self.t_ms[rows].astype(np.float64), np.nan)
        off = newest - cross_section(newest, number, self.place[rows], n_groups).median[number]
        ahead = self.ahead_ms[rows]
        width = self.groups.bucket_ms[self.group[rows]]
        weight = np.where(np.abs(off - ahead) > CLOCK_SLOTS_MAX * width, 1.0, _AHEAD_RATE)
        learned = np.where(np.abs(off) <= AHEAD_SLOTS_MAX * width, ahead + weight * (off - ahead), 0.0)
        self.ahead_ms[rows] = np.where(np.isfinite(off), learned, ahead)

    def fresh(self) -> Bool:
        """Of which sources something arrived lately."""
        n = self.n
        group = self.group[:n]
        stale = (
            -(-(self.params.stale_ms or 0) // self.groups.bucket_ms) if self.params.stale_ms else STALE_SLOTS
        )
        oldest = self.groups.slot - stale
        return np.isfinite(self.value[:n]) & (self.seen_slot[:n] >= oldest[group])

    def _carried(self, g: int, row: int) -> bool:
        """Whether most fresh sources of a group are away from its time, the one of ``row`` among them."""
        fresh, away = self.fresh() & (self.group[: self.n] == g), self.away[: self.n].copy()
        fresh[row] = away[row] = True
        n = int(fresh.sum())
        return bool(2 * int((away & fresh).sum()) > n or self.groups.strays[g] + 1 > STRAYS_MAX * n)

    def _doubtful(self, rows: I64, stray: Bool, begin: I64) -> Bool:
        """Stray points at which a vote might carry, counting from the positions ``begin``."""
        fresh, groups = self.fresh(), len(self.groups.size)
        away = self.away[: self.n] & fresh
        voters = np.bincount(self.group[: self.n], weights=fresh, minlength=groups)[self.group[rows]]
        against = np.bincount(self.group[: self.n], weights=away, minlength=groups)[self.group[rows]]
        newly, begin = stray & ~away[rows], np.minimum(begin, len(rows) - 1)
        against += np.cumsum(newly) - (np.cumsum(newly) - newly)[begin]
        strays = self.groups.strays[self.group[rows]] + np.cumsum(stray) - (np.cumsum(stray) - stray)[begin]
        doubtful: Bool = stray & ((2 * against > voters) | (strays > STRAYS_MAX * voters))
        return doubtful

    def mark(self, rows: I64, stray: Bool) -> None:
        """Remember whose newest point was away, and how many such points of a group came in a row."""
        group = self.group[rows]
        if stray.any():
            for g in np.unique(group).tolist():
                mine = stray[group == g]
                on_time = np.flatnonzero(~mine)
                self.groups.strays[g] = (
                    len(mine) - 1 - on_time[-1] if len(on_time) else len(mine) + self.groups.strays[g]
                )
        else:
            self.groups.strays[group] = 0
        self.away[rows] = stray

    def turn(self, g: I64, t_ms: I64) -> None:
        """Begin a new bucket, that of ``t_ms``, in each of these (distinct) groups."""
        if self.params.bucket_ms is None:
            self._follow_cadence(g[~self.groups.paced[g] | (self.groups.turns[g] % BUCKET_REVIEW == 0)])
        slot = t_ms // self.groups.bucket_ms[g]
        leap = np.where(self.groups.turns[g] > 0, slot - self.groups.slot[g], 0)
        self.groups.slot[g] = slot
        self.groups.turns[g] += 1
        far = np.abs(leap) > CLOCK_SLOTS_MAX
        if far.any():
            self.groups.leapt[g[far]] = slot[far]
            # Freshness goes by arrival: who was fresh before the leap still is.
            shift = np.zeros(len(self.groups.size), np.int64)
            shift[g[far]] = leap[far]
            shift = shift[self.group[: self.n]]
            self.seen_slot[: self.n] += shift
            self.away[: self.n][shift != 0] = False
            self.groups.strays[g[far]] = 0

    def _follow_cadence(self, g: I64) -> None:
        """Keep the bucket near the median cadence; it changes only when clearly wrong, so that it rests."""
        if len(g) == 0:
            return
        rows, number = self.members(g)
        cadence = np.where(self.cadence_ms[rows] > 0, self.cadence_ms[rows], np.nan)
        median = cross_section(cadence, number, self.place[rows], len(g)).median
        width = self.groups.bucket_ms[g]
        rests = self.groups.paced[g] & (width <= 2.0 * median) & (median <= 3.0 * width)
        fits = LADDER_MS[np.maximum(np.searchsorted(LADDER_MS, 1.1 * median, side="right") - 1, 0)]
        changes = np.isfinite(median) & ~rests
        self.groups.paced[g[changes]] = True
        for i in np.flatnonzero(changes & (fits != width)).tolist():
            mine = rows[number == i]
            self.groups.slot[g[i]] = self.groups.slot[g[i]] * width[i] // fits[i]
            self.groups.leapt[g[i]] = -(1 << 60)
            self.seen_slot[mine] = self.seen_slot[mine] * width[i] // fits[i]
            self.groups.bucket_ms[g[i]] = fits[i]

    def members(self, g: I64) -> tuple[I64, I64]:
        """The rows of these groups, and the position in ``g`` of the group of each."""
        number = np.full(len(self.groups.size), -1)
        number[g] = np.arange(len(g))
        number = number[self.group[: self.n]]
        rows = np.flatnonzero(number >= 0)
        return rows, number[rows]

    def learn_value(self, points: Points, ok: Bool) -> None:
        """Take over the values of points of distinct rows, where they are ``ok``, and learn the cadence."""
        if not ok.all():
            points = points.take(ok)
        rows, x, t_ms = together(points.series), points.value, points.t_ms
        group, last, cadence = self.group[rows], self.value[rows], self.cadence_ms[rows]
        gap = (t_ms - self.t_ms[rows]).astype(np.float64)
        moved = np.isfinite(last) & (gap > 0)
        gap = np.where(cadence > 0, np.minimum(gap, 10 * cadence), gap)
        rate = np.where(cadence > 0, 0.1, 1.0)
        self.cadence_ms[rows] = np.where(moved, cadence + rate * (gap - cadence), cadence)
        step = np.abs(x - last)
        finer = np.flatnonzero((step > 0) & (step < self.groups.step_min[group]))
        np.minimum.at(self.groups.step_min, group[finer], step[finer])
        self.value[rows], self.t_ms[rows], self.seen_slot[rows] = x, t_ms, self.groups.slot[group]
