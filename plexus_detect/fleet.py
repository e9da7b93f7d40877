"""Cross-section of one metric over many sources: median and MAD, with each device's own offset removed.

Time is cut into buckets of about the sources' cadence. At the start of a bucket the newest value of every
source that is not stale, less the offset that source has shown so far, gives centre (median) and scale
(1.4826 x MAD, the consistent estimator for a normal distribution: Rousseeuw and Croux, JASA 88, 1993; the
mean absolute deviation x 1.2533 where MAD is 0). The points of the bucket are scored against that: a score
needs no later point, and one bucket costs one selection however many sources there are. What the centre
moved since the bucket before is part of the scale: where all sources move together, none is odd.
A device that always reads 2 degrees more than the others is *always different*, not *odd now*: its offset
is learned from the points that are not themselves flagged, and a new offset that lasts becomes normal. So
is its spread about that offset (mean absolute deviation x 1.2533), which is its scale where it exceeds the
group's: a device that is always noisy is not odd now either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64, I64, Bool, Points, Scores, rounds, together
from plexus_detect.stats import Z_MAX, cross_section, grown, usable

MAD_TO_STD = 1.4826
MEAN_DEVIATION_TO_STD = 1.2533

# A source is stale when nothing of it arrived for this many buckets; freshness goes by arrival, because
# judging it by the device's clock would silence every device whose clock is wrong.
STALE_SLOTS = 3

# A point more than this many buckets from the fleet's has a wrong clock, unless most other sources agree,
# or there came so many such points in a row, for each fresh source, that the others must be gone.
CLOCK_SLOTS_MAX, STRAYS_MAX = 3, 10

# Points of a source that stays outside longer than this do not widen its spread: it may be an anomaly.
SPREAD_OUTSIDE_MAX = 3

# The width of a bucket before the cadence is known; after how many buckets the width is looked at again.
BUCKET_MS_FIRST, BUCKET_REVIEW = 1_000, 8

# Widths a bucket may have when it follows the cadence, in milliseconds.
_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)
LADDER_MS = np.array([round(1000 * s) for s in (*_SECONDS, 86_400)])

# Points are taken in chunks of four a source, and at least this many: the end of a run is looked for in one.
_CHUNK_POINTS_MIN = 256

_TINY = float(np.finfo(np.float64).tiny)

# The state: a row a source, and a row a group, with what they hold before anything is known.
_ROWS: dict[str, tuple[type, float]] = {
    "group": (np.int64, 0),
    "place": (np.int64, 0),
    "value": (np.float64, np.nan),
    "t_ms": (np.int64, 0),
    "seen_slot": (np.int64, 0),
    "away": (np.bool_, 0),
    "cadence_ms": (np.float64, 0),
    "offset": (np.float64, 0),
    "spread": (np.float64, 0),
    "count": (np.int64, 0),
    "outside": (np.int64, 0),
    "inside": (np.int64, 0),
    "since_ms": (np.int64, 0),
    "held": (np.float64, 0),
}
_GROUPS: dict[str, tuple[type, float]] = {
    "size": (np.int64, 0),
    "bucket_ms": (np.int64, BUCKET_MS_FIRST),
    "paced": (np.bool_, 0),
    "slot": (np.int64, 0),
    "turns": (np.int64, 0),
    "strays": (np.int64, 0),
    "centre": (np.float64, np.nan),
    "scale": (np.float64, np.nan),
    "step_min": (np.float64, np.inf),
}


@dataclass(frozen=True)
class FleetParams:
    """``group_min`` fresh sources make a group; ``bucket_ms`` and ``stale_ms`` of None follow the cadence
    (a source is stale after 3 buckets); ``offset_window`` points is the memory of a device's offset;
    a suspicion ends after ``close_after`` points inside, or as a new offset after ``relearn_ms``."""

    threshold: float = 3.0
    group_min: int = 5
    min_points: int = 30
    offset_window: int = 300
    bucket_ms: int | None = None
    stale_ms: int | None = None
    scale_floor: float = 0.0
    relearn_ms: int = 3_600_000
    close_after: int = 3

    def fingerprint(self) -> str:
        """All settings as one stable text."""
        return ",".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))


class Fleet:
    """The fleets of one rule, each the sources of one metric: one row a source, one row a group.

    Of a source: ``group`` and its ``place`` there, newest ``value``, its time and the bucket in which it
    arrived, whether its clock is ``away``, ``offset`` and ``spread`` learned from ``count`` points, and, of
    a suspicion, its length, the points inside at its end, its start and mean difference from the centre.
    Of a group: how many sources, bucket width and whether it follows a known cadence, current bucket
    (``slot``) and how many there were, points away in a row, centre, scale and least step of any source.
    """

    group: I64
    place: I64
    value: F64
    t_ms: I64
    seen_slot: I64
    away: Bool
    cadence_ms: F64
    offset: F64
    spread: F64
    count: I64
    outside: I64
    inside: I64
    since_ms: I64
    held: F64
    size: I64
    bucket_ms: I64
    paced: Bool
    slot: I64
    turns: I64
    strays: I64
    centre: F64
    scale: F64
    step_min: F64

    def __init__(self, params: FleetParams) -> None:
        self.params = params
        self._n = 0
        self._renewed: list[I64] = []
        for name, (dtype, fill) in (_ROWS | _GROUPS).items():
            setattr(self, name, np.full(0, fill, dtype))

    def __len__(self) -> int:
        return self._n

    def join(self, group: int) -> int:
        """The row newly given to a source of ``group``; groups are numbered from 0."""
        if self._n == len(self.group):
            _grow(self, _ROWS, max(16, 2 * self._n))
        if group >= len(self.size):
            _grow(self, _GROUPS, max(4, 2 * group))
            self.bucket_ms[self.turns == 0] = self.params.bucket_ms or BUCKET_MS_FIRST
        self.group[self._n], self.place[self._n] = group, self.size[group]
        self.size[group] += 1
        self._n += 1
        return self._n - 1

    def step(self, points: Points) -> Scores:
        """Score points in order of arrival (``series`` are rows of this bank), then learn them.

        NaN while the source has fewer than ``min_points`` comparable points or the group is too small.
        """
        out = Scores(*np.full((3, len(points)), np.nan))
        self._renewed = []
        chunk = max(_CHUNK_POINTS_MIN, 4 * self._n)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for start in range(0, len(points), chunk):
                self._take(points.take(slice(start, start + chunk)), start, out)
        return out

    def _take(self, points: Points, offset: int, out: Scores) -> None:
        """Take a chunk of points, every group from one decision about its bucket to the next, together."""
        order = np.argsort(self.group[points.series], kind="stable")
        points = points.take(together(order))
        group, place = self.group[points.series], np.arange(len(points))
        done = np.flatnonzero(np.diff(group, prepend=-1))
        ends = np.append(done[1:], len(points))
        which = np.repeat(np.arange(len(done)), ends - done)
        while (done < ends).any():
            stop, stray = self._run(points, which, done, ends)
            mine = np.flatnonzero((place >= done[which]) & (place < stop[which]))
            for part in rounds(points.series[mine]):
                at = mine[part]
                here = order[at] + offset
                out.z[here], out.centre[here], out.scale[here] = self._score(points.take(together(at)), here)
            self._mark(points.series[mine], stray[mine])
            done = stop

    # -- time

    def _run(self, points: Points, which: I64, done: I64, ends: I64) -> tuple[I64, Bool]:
        """Bring each group's bucket to that of its next point; returns how far no other decision is due,
        and which points are away from the fleet's time. Those count as of now, like late ones.

        A device whose clock is far off must not carry the fleet with it: a leap in time is put to the vote.
        """
        first = done[done < ends]
        g, t_ms = self.group[points.series[first]], points.t_ms[first]
        lead = t_ms // self.bucket_ms[g] - self.slot[g]
        begins = self.turns[g] == 0
        turn = begins | ((lead > 0) & (lead <= CLOCK_SLOTS_MAX))
        for i in np.flatnonzero(~begins & (np.abs(lead) > CLOCK_SLOTS_MAX)).tolist():
            turn[i] = self._carried(int(g[i]), int(points.series[first[i]]))
        if turn.any():
            self._turn(g[turn], t_ms[turn])
        group = self.group[points.series]
        lead = points.t_ms // self.bucket_ms[group] - self.slot[group]
        stray = np.abs(lead) > CLOCK_SLOTS_MAX
        event = (lead > 0) & ~stray
        if stray.any():
            event |= self._doubtful(points.series, stray, done[which])
        at = np.append(np.flatnonzero(event), len(points))
        stop = np.minimum(at[np.searchsorted(at[:-1], done + 1)], ends)
        return np.where(done < ends, stop, done), stray

    def _fresh(self) -> Bool:
        n = self._n
        group = self.group[:n]
        stale = -(-(self.params.stale_ms or 0) // self.bucket_ms) if self.params.stale_ms else STALE_SLOTS
        oldest = self.slot - stale
        return np.isfinite(self.value[:n]) & (self.seen_slot[:n] >= oldest[group])

    def _carried(self, g: int, row: int) -> bool:
        """Whether most fresh sources of a group are away from its time, the one of ``row`` among them."""
        fresh, away = self._fresh() & (self.group[: self._n] == g), self.away[: self._n].copy()
        fresh[row] = away[row] = True
        n = int(fresh.sum())
        return bool(2 * int((away & fresh).sum()) > n or self.strays[g] + 1 > STRAYS_MAX * n)

    def _doubtful(self, rows: I64, stray: Bool, begin: I64) -> Bool:
        """Stray points at which a vote might carry, counting from the positions ``begin``."""
        fresh, groups = self._fresh(), len(self.size)
        away = self.away[: self._n] & fresh
        voters = np.bincount(self.group[: self._n], weights=fresh, minlength=groups)[self.group[rows]]
        against = np.bincount(self.group[: self._n], weights=away, minlength=groups)[self.group[rows]]
        newly, begin = stray & ~away[rows], np.minimum(begin, len(rows) - 1)
        against += np.cumsum(newly) - (np.cumsum(newly) - newly)[begin]
        strays = self.strays[self.group[rows]] + np.cumsum(stray) - (np.cumsum(stray) - stray)[begin]
        doubtful: Bool = stray & ((2 * against > voters) | (strays > STRAYS_MAX * voters))
        return doubtful

    def _mark(self, rows: I64, stray: Bool) -> None:
        """Remember whose newest point was away, and how many such points of a group came in a row."""
        group = self.group[rows]
        if stray.any():
            for g in np.unique(group).tolist():
                mine = stray[group == g]
                on_time = np.flatnonzero(~mine)
                self.strays[g] = len(mine) - 1 - on_time[-1] if len(on_time) else len(mine) + self.strays[g]
        else:
            self.strays[group] = 0
        self.away[rows] = stray

    def _turn(self, g: I64, t_ms: I64) -> None:
        """Begin a new bucket, that of ``t_ms``, in each of these (distinct) groups."""
        if self.params.bucket_ms is None:
            self._follow_cadence(g[~self.paced[g] | (self.turns[g] % BUCKET_REVIEW == 0)])
        slot = t_ms // self.bucket_ms[g]
        leap = np.where(self.turns[g] > 0, slot - self.slot[g], 0)
        self.slot[g] = slot
        self.turns[g] += 1
        far = np.abs(leap) > CLOCK_SLOTS_MAX
        if far.any():
            # Freshness goes by arrival: who was fresh before the leap still is.
            shift = np.zeros(len(self.size), np.int64)
            shift[g[far]] = leap[far]
            shift = shift[self.group[: self._n]]
            self.seen_slot[: self._n] += shift
            self.away[: self._n][shift != 0] = False
            self.strays[g[far]] = 0
        self._take_cross_section(g)

    def _follow_cadence(self, g: I64) -> None:
        """Keep the bucket near the median cadence; it changes only when clearly wrong, so that it rests."""
        if len(g) == 0:
            return
        rows, number = self._members(g)
        cadence = np.where(self.cadence_ms[rows] > 0, self.cadence_ms[rows], np.nan)
        median = cross_section(cadence, number, self.place[rows], len(g)).median
        width = self.bucket_ms[g]
        rests = self.paced[g] & (width <= 2.0 * median) & (median <= 3.0 * width)
        fits = LADDER_MS[np.maximum(np.searchsorted(LADDER_MS, 1.1 * median, side="right") - 1, 0)]
        changes = np.isfinite(median) & ~rests
        self.paced[g[changes]] = True
        for i in np.flatnonzero(changes & (fits != width)).tolist():
            mine = rows[number == i]
            self.slot[g[i]] = self.slot[g[i]] * width[i] // fits[i]
            self.seen_slot[mine] = self.seen_slot[mine] * width[i] // fits[i]
            self.bucket_ms[g[i]] = fits[i]

    def _members(self, g: I64) -> tuple[I64, I64]:
        """The rows of these groups, and the position in ``g`` of the group of each."""
        number = np.full(len(self.size), -1)
        number[g] = np.arange(len(g))
        number = number[self.group[: self._n]]
        rows = np.flatnonzero(number >= 0)
        return rows, number[rows]

    def _take_cross_section(self, g: I64) -> None:
        """Centre and scale from the newest value of every source that arrived lately."""
        rows, number = self._members(g)
        level = np.where(self._fresh()[rows], self.value[rows] - self.offset[rows], np.nan)
        now = cross_section(level, number, self.place[rows], len(g))
        scale = MAD_TO_STD * now.mad
        scale = np.where(scale > 0.0, scale, MEAN_DEVIATION_TO_STD * now.mean_deviation)
        finest = self.step_min[g]
        scale = np.maximum(scale, np.where(finest < np.inf, finest, 0.0))
        scale = np.maximum(scale, self.params.scale_floor)
        scale = np.fmax(scale, np.abs(now.median - self.centre[g]))
        enough = now.n >= self.params.group_min
        self.centre[g] = np.where(enough, now.median, np.nan)
        self.scale[g] = np.where(enough, scale, np.nan)

    # -- scores

    def _score(self, points: Points, at: I64) -> tuple[F64, F64, F64]:
        """Score, then learn, a point of each of several (distinct) rows; ``at`` says where they come from."""
        p, rows, x = self.params, together(points.series), points.value
        ok = usable(x)
        group, offset, spread, count = (
            self.group[rows],
            self.offset[rows],
            self.spread[rows],
            self.count[rows],
        )
        centre = self.centre[group]
        difference, expected = x - centre, centre + offset
        deviation = difference - offset
        scale = np.maximum(self.scale[group], MEAN_DEVIATION_TO_STD * spread)
        # Where nothing ever differed there is no scale: the first deviation is the unit.
        scale = np.where(scale > 0.0, scale, np.maximum(np.abs(deviation), _TINY))
        z = np.minimum(np.maximum(deviation / scale, -Z_MAX), Z_MAX)
        z[~(ok & (count >= p.min_points))] = np.nan
        compared = ok & np.isfinite(centre)
        beyond, outside = np.abs(z) > p.threshold, self.outside[rows]
        # How far a source usually is from the others: a noisy device is always noisy, not odd now.
        rate = np.maximum(1.0 / (1.0 + count), 1.0 / p.offset_window)
        wider = spread + rate * (np.minimum(np.abs(deviation), p.threshold * scale) - spread)
        self.spread[rows] = np.where(compared & (outside < SPREAD_OUTSIDE_MAX), wider, spread)
        calm = compared & ~beyond
        self.count[rows] = count + calm
        self.offset[rows] = np.where(calm, offset + rate * deviation, offset)
        if len(some := np.flatnonzero(compared & (beyond | (outside > 0)))):
            self._suspect(points.take(some), difference[some], beyond[some], at[some])
        self._learn_value(points, ok)
        return z, expected, scale

    def _suspect(self, points: Points, difference: F64, beyond: Bool, at: I64) -> None:
        """Keep flagged points out of the offset, until the suspicion ends in one of two ways."""
        p, rows, t_ms = self.params, points.series, points.t_ms
        before, since, held = self.outside[rows], self.since_ms[rows], self.held[rows]
        since = np.where(beyond, np.where(before == 0, t_ms, np.minimum(since, t_ms)), since)
        inside = np.where(beyond, 0, self.inside[rows] + 1)
        outside = before + beyond
        held = np.where(before == 0, difference, held + beyond * (difference - held) / outside)
        lasting = beyond & (t_ms - since >= p.relearn_ms) & (outside >= p.min_points)
        self.offset[rows] = np.where(lasting, held, self.offset[rows])
        self.since_ms[rows], self.inside[rows], self.held[rows] = since, inside, held
        self.outside[rows] = np.where(lasting | (inside >= p.close_after), 0, outside)
        self._renewed.append(at[lasting])

    def _learn_value(self, points: Points, ok: Bool) -> None:
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
        finer = np.flatnonzero((step > 0) & (step < self.step_min[group]))
        np.minimum.at(self.step_min, group[finer], step[finer])
        self.value[rows], self.t_ms[rows], self.seen_slot[rows] = x, t_ms, self.slot[group]

    def relearned(self) -> I64:
        """Positions in the points of the last step at which a source's offset was replaced, ascending."""
        at: I64 = np.sort(np.concatenate([np.zeros(0, np.int64), *self._renewed]))
        return at

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns, for a snapshot."""
        n_groups = int(self.group[: self._n].max(initial=-1)) + 1
        sources = {name: getattr(self, name)[: self._n] for name in _ROWS}
        return sources | {f"of_group.{name}": getattr(self, name)[:n_groups] for name in _GROUPS}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over what ``dump`` gave under the same parameters."""
        for name in _ROWS:
            setattr(self, name, columns[name].copy())
        for name in _GROUPS:
            setattr(self, name, columns[f"of_group.{name}"].copy())
        self._n = len(self.group)


def _grow(fleet: Fleet, columns: Mapping[str, tuple[type, float]], n: int) -> None:
    for name, (_dtype, fill) in columns.items():
        setattr(fleet, name, grown(getattr(fleet, name), n, fill))
