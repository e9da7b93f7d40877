"""The fleets of a rule: each source of a metric against its peers, in order of arrival.

Time is cut into buckets of about the sources' cadence. At the start of a bucket the newest value of every
source that is not stale, less the level of that source, says what the peers of each do (``peers``); the
points of the bucket are scored against that: a score needs no later point, and what a bucket costs does not
grow with its points. What is left of a value, less its level and its share in what the peers do
(``levels``), goes through five checks (``checks``), each measured by its own past extremes (``tail``). Where
a quarter of the peers, or a seventh of the group, are as odd, it is the centre that moved, not this device:
its oddness counts only as far as it exceeds theirs, and its level follows.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Column, Columns, Snapshot
from plexus_detect.fleet.checks import JUMP, NOISE, REASONS, Checks, Seen
from plexus_detect.fleet.levels import Levels
from plexus_detect.fleet.onsets import Onsets
from plexus_detect.fleet.params import FleetParams
from plexus_detect.fleet.peers import HOUR_MS, Peers
from plexus_detect.fleet.slots import Slots
from plexus_detect.fleet.suspicion import Suspicion
from plexus_detect.fleet.tail import LINE, SUSPECT, Tail
from plexus_detect.series import F64, I8, I64, Bool, Points, Reason, Rows, Scores, ascending, rounds, together
from plexus_detect.stats import Z_MAX, cross_section, usable

# Points are taken in chunks of four a source, and at least this many: the end of a run is looked for in one.
_CHUNK_POINTS_MIN = 256

# So odd, this share of the group (and four) is no coincidence.
_MOVED, _MOVED_SHARE, _MOVED_MIN = 4.0, 0.15, 4.0

MAD_TO_STD = 1.4826

# A level so many deviations from those of the group is always different.
_DIFFERENT = 3.0

# The least scale is so much of the finest step that any source of the group made.
_STEP_SHARE = 0.5

_TINY = float(np.finfo(np.float64).tiny)


class Now(Columns):
    """What holds for a source in the current bucket: what its ``peers`` do (NaN: too few), how odd the
    others are (``common``), the finest step of its group, how far
    its level is from theirs (in deviations of the group), and the points measured so far (``count``)."""

    peers: F64
    common: F64
    finest: F64
    apart: F64
    count: I64

    COLUMNS: ClassVar = {
        "peers": Column(np.nan),
        "common": Column(),
        "finest": Column(np.inf),
        "apart": Column(np.nan),
        "count": Column(dtype=np.int64),
    }


class Fleet(Slots):
    """The fleets of one rule, each the sources of one metric: one row a source, one row a group."""

    def __init__(self, params: FleetParams) -> None:
        super().__init__(params)
        self.levels, self.checks, self.tail = Levels(), Checks(), Tail()
        self.peers, self.suspicion, self.now = Peers(), Suspicion(), Now()
        self.onsets = Onsets()
        self._renewed: list[I64] = []

    def join(self, group: int) -> int:
        """The row newly given to a source of ``group``; groups are numbered from 0."""
        if self.n == len(self.group):
            for columns in self._of_sources().values():
                columns.grow(max(16, 2 * self.n))
        if group >= len(self.groups.size):
            for columns in self._of_groups().values():
                columns.grow(max(4, 2 * group))
            if self.params.bucket_ms is not None:
                self.groups.bucket_ms[self.groups.turns == 0] = self.params.bucket_ms
        return self.enter(group)

    def _of_sources(self) -> dict[str, Columns]:
        """All state that has a row a source, by the prefix of its name in a snapshot."""
        parts = {"levels.": self.levels, "checks.": self.checks, "tail.": self.tail, "peers.": self.peers}
        return {"": self, **parts, "suspicion.": self.suspicion, "now.": self.now, "onsets.": self.onsets}

    def _of_groups(self) -> dict[str, Columns]:
        """All state that has a row a group."""
        parts = {"tail.": self.tail.groups, "peers.": self.peers.groups, "onsets.": self.onsets.groups}
        return {"of_group.": self.groups, **{"of_group." + name: part for name, part in parts.items()}}

    def step(self, points: Points) -> Scores:
        """Score points in order of arrival (``series`` are rows of this bank), then learn them.

        z is NaN, with the reason, while the group is too small, the source has fewer than ``min_points``
        comparable points, or the value is no number. ``centre`` is what the source should read.
        """
        out = Scores(*np.full((3, len(points)), np.nan))
        self._renewed = []
        chunk = max(_CHUNK_POINTS_MIN, 4 * self.n)
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
            stop, stray = self.run(points, which, done, ends)
            mine = np.flatnonzero((place >= done[which]) & (place < stop[which]))
            for part in rounds(points.series[mine]):
                at = mine[part]
                self._score(points.take(together(at)), order[at] + offset, out)
            self.mark(points.series[mine], stray[mine])
            done = stop

    # -- buckets

    def turn(self, g: I64, t_ms: I64) -> None:
        """Begin a new bucket, that of ``t_ms``, in each of these (distinct) groups, and compare anew."""
        super().turn(g, t_ms)
        rows, number = self.members(g)
        place = self.place[rows]
        fresh = self.fresh()[rows]
        self.learn_clocks((rows, number), fresh, len(g))
        # What was last heard before a leap in time says nothing of now.
        fresh &= self.seen_slot[rows] >= self.groups.leapt[g][number]
        deviation = np.full(self.n, np.nan)
        mine = np.where(fresh, self.value[rows] - self.levels.level[rows], np.nan)
        deviation[rows] = mine
        all_of_group = cross_section(mine, number, place, len(g))
        enough = all_of_group.n >= self.params.group_min
        said = self.peers.consensus(rows, deviation, all_of_group.median[number])
        self.now.peers[rows] = np.where(enough[number], said, np.nan)
        self.now.common[rows] = self._common(rows, number, fresh, t_ms[number])
        self.now.finest[rows] = self.groups.step_min[g][number]
        bucket_ms = self.groups.bucket_ms[g]
        self.peers.sample((g, t_ms // np.maximum(HOUR_MS, bucket_ms)), (rows, number), mine)
        over = self.tail.turn(g, (rows, number, place), bucket_ms)
        if over.any():
            levels = cross_section(self.levels.level[rows], number, place, len(g))
            apart = np.abs(self.levels.level[rows] - levels.median[number])
            spread = np.maximum(MAD_TO_STD * levels.mad[number], self.now.finest[rows])
            self.now.apart[rows] = np.where(over[number], apart / spread, self.now.apart[rows])

    def _common(self, rows: I64, number: I64, fresh: Bool, now_ms: I64) -> F64:
        """How odd the others are: what a quarter of the peers exceed, and the mean of a seventh of the group
        that became odd lately, whichever is more."""
        recent = self.suspicion.recent[rows]
        # Whoever has been odd for hours has a cause of its own, and excuses nobody.
        lately = self.suspicion.lately(rows, now_ms)
        oddness = np.full(self.n, np.nan)
        oddness[rows] = np.where(fresh, np.where(lately, recent, 0.0), np.nan)
        odd = fresh & lately & (recent >= _MOVED)
        n_groups = int(number.max(initial=-1)) + 1
        n_odd = np.bincount(number, weights=odd, minlength=n_groups)
        n_fresh = np.bincount(number, weights=fresh, minlength=n_groups)
        mean = np.bincount(number, weights=np.where(odd, recent, 0.0), minlength=n_groups) / n_odd
        event = n_odd >= np.maximum(_MOVED_MIN, _MOVED_SHARE * n_fresh)
        return np.maximum(self.peers.third_oddest(rows, oddness), np.where(event, mean, 0.0)[number])

    # -- scores

    def _seen(self, rows: Rows, x: F64, expected: F64) -> Seen:
        p, group = self.params, self.group[rows]
        before, cadence = self.value[rows], self.cadence_ms[rows]
        ok = usable(x) & np.isfinite(expected)
        finest = self.now.finest[rows]
        # Where nothing ever differed there is no scale: the first step is the unit.
        step = np.where(finest < np.inf, _STEP_SHARE * finest, np.fmax(np.abs(x - before), _TINY))
        return Seen(
            x=x,
            before=before,
            residual=np.where(ok, x - expected, 0.0),
            ok=ok,
            learn=ok & (self.suspicion.outside[rows] == 0),
            n=self.now.count[rows].astype(np.float64),
            cadence_ms=np.where(cadence > 0, cadence, self.groups.bucket_ms[group]),
            floor=np.maximum(step, p.scale_floor),
        )

    def _score(self, points: Points, at: I64, out: Scores) -> None:
        """Score, then learn, a point of each of several (distinct) rows; ``at`` are their places in
        ``out``."""
        p, rows, x = (
            self.params,
            together(points.series),
            np.where(usable(points.value), points.value, np.nan),
        )
        consensus, common = self.now.peers[rows], self.now.common[rows]
        expected = self.levels.expected(rows, x, consensus)
        seen = self._seen(rows, x, expected)
        jump_scale = np.maximum(self.checks.jump_scale[rows], seen.floor)
        measure = self.checks.measure(rows, seen)
        odd = self.tail.oddness(rows, measure)
        check = odd.argmax(axis=1)
        oddest = odd[np.arange(len(check)), check]
        ready = seen.ok & (seen.n >= p.min_points)
        common = np.maximum(common, self._onset(rows, at, ready, oddest))
        beyond = ready & (oddest - common > SUSPECT)
        size = np.minimum(p.threshold * np.exp((oddest - common) / LINE - 1.0), Z_MAX)
        out.z[at] = np.where(ready, np.where((check < NOISE) & (seen.residual < 0), -size, size), np.nan)
        out.centre[at] = expected
        out.scale[at] = self.tail.reach(rows, JUMP, LINE + common) * jump_scale / p.threshold
        out.reason[at] = self._reasons(x, expected, np.where(ready, REASONS[check], Reason.WARMING))
        self.tail.add(rows, measure, ready, beyond)
        self.suspicion.remember(rows, oddest, ready, seen.cadence_ms)
        self._learn(
            points,
            at,
            (
                seen,
                consensus,
                (common > _MOVED) & ready & ~beyond & self.suspicion.lately(rows, points.t_ms),
                beyond,
            ),
        )

    def _onset(self, rows: Rows, at: I64, ready: Bool, oddness: F64) -> F64:
        """How odd those are that became odd before each row in this bucket."""
        group = self.group[rows]
        new = ready & (oddness > SUSPECT) & (self.suspicion.recent[rows] < _MOVED)
        return self.onsets.meet(rows, group, self.groups.turns[group], at, (new, oddness))

    def _reasons(self, x: F64, expected: F64, known: npt.NDArray[np.generic]) -> I8:
        reason = np.where(np.isfinite(expected), known, Reason.GROUP_SMALL)
        return np.where(np.isfinite(x), reason, Reason.NOT_A_NUMBER).astype(np.int8)

    def _learn(self, points: Points, at: I64, by: tuple[Seen, F64, Bool, Bool]) -> None:
        seen, consensus, moved, beyond = by
        rows = together(points.series)
        age = self.groups.turns[self.group[rows]].astype(np.float64)
        spread = np.maximum(self.checks.spread[rows], seen.floor)
        self.levels.learn(rows, seen, consensus, spread, (moved, age, self.params.offset_window))
        self.now.count[rows] += seen.ok
        some = np.flatnonzero(seen.ok & (beyond | (self.suspicion.outside[rows] > 0)))
        if len(some):
            t_ms, residual = points.t_ms[some], seen.residual[some]
            lasting = self.suspicion.step(points.series[some], t_ms, residual, beyond[some], self.params)
            self._relearn(points.series[some[lasting]])
            self._renewed.append(at[some[lasting]])
        self.learn_value(points, np.isfinite(seen.x))

    def _relearn(self, rows: I64) -> None:
        """What a device does now is its new normal: its level is where it was held, the rest begins anew."""
        self.levels.level[rows] += self.suspicion.held[rows]
        self.now.count[rows] = 0
        for columns in (self.checks, self.tail, self.suspicion):
            columns.forget(rows)

    def different(self, rows: I64) -> Bool:
        """Which of these sources are always different: their level is far from the levels of their group."""
        different: Bool = self.now.apart[rows] > _DIFFERENT
        return different

    def relearned(self) -> I64:
        """Positions in the points of the last step at which a source began anew, ascending."""
        return ascending(self._renewed)

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns, for a snapshot."""
        n_groups = int(self.group[: self.n].max(initial=-1)) + 1
        out: dict[str, npt.NDArray[np.generic]] = {}
        for prefix, columns in self._of_sources().items():
            out |= columns.save(prefix, self.n)
        for prefix, columns in self._of_groups().items():
            out |= columns.save(prefix, n_groups)
        return out

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave under the same parameters."""
        for prefix, part in (self._of_sources() | self._of_groups()).items():
            part.restore(columns, prefix)
        self.n = len(self.group)
