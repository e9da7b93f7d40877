"""Cadence and unit: what the times of points say, and values that jumped by a known factor.

Cadence: the interval to the point before, beside the longest that is usual for the series. Usual is up to
three times the typical interval (the median of the last ones, so that half of them may be wrong) and half as
long again as any of late. The score of a point is its interval as a part of that, negative for a clock that
went back. One long silence makes only a silence of that kind usual that is at most twice as long as what was
usual before, so that after an outage the next is found as well.

Unit: three points in a row, far from the recent level (the median of the last few values) for its noise and
where no level of late has been, whose median is that level in another known unit (``units``), within 2 %.
Such points are kept out of the level; when they last for ``relearn_ms``, they are the new normal.

Both compare with a record of the last ten to twenty windows. Records and medians are taken from values and
not summed, so they are exact however points are batched. A point that is late says nothing of the cadence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Column, Columns, Snapshot, under
from plexus_detect.detectors.base import DetectorParams, Receipt, Term
from plexus_detect.detectors.medians import MedianBank
from plexus_detect.detectors.units import TOLERANCE, changes
from plexus_detect.series import F64, I64, Bool, Points, Reason, Rows, Scores, ascending, rounds, together
from plexus_detect.stats import Z_MAX, usable

# Intervals of which the median is the typical one, values of which it is the level, and the least of both.
_INTERVALS, _VALUES, _FEW = 60, 9, 5

# An interval is usual up to so many typical ones, or so many times the longest of late; a longer one counts
# in the record as at most so many times what was usual.
_TYPICAL_MAX, _LONGEST_MAX, _GROWTH_MAX = 3.0, 1.5, 2.0

# A record is of the last one or two blocks of so many windows.
_BLOCK_WINDOWS = 10

# A change of unit is this many deviations of the level's noise. Three points tell it, or one of the next two
# with the two before it; the score is the number of points as a part of the second number, up to the third.
_NOISE_MIN, _POINTS_AT_LINE, _POINTS_MAX = 6.0, 2.5, 5.0

_GAP_SAYS = "the interval in ms against the longest usual one"
_UNIT_SAYS = "points in another unit, of those that tell it"

# Stepping all series by one point costs about as much as taking a stretch of this many of them.
_STRETCH_ROUNDS = 3
_STRETCH_POINTS = 256


class _Known(NamedTuple):
    """What is known before each of some points, aligned columns: points seen; number, median and longest of
    the intervals; number, median and noise of the values; lowest and highest level."""

    seen: F64
    intervals: F64
    typical_ms: F64
    longest_ms: F64
    values: F64
    level: F64
    noise: F64
    low: F64
    high: F64


class _Records(Columns):
    """Of each series: points seen and in this block, time of the last, longest interval and range of levels
    of this block and of the one before; of points far from the level: how many in a row, since when, the
    last two, and which change of unit they are."""

    COLUMNS = {  # noqa: RUF012
        "seen": Column(),
        "in_block": Column(dtype=np.int64),
        "last_ms": Column(dtype=np.int64),
        "longest": Column(shape=(2,)),
        "low": Column(np.inf, (2,)),
        "high": Column(-np.inf, (2,)),
        "change": Column(-1, dtype=np.int64),
        "streak": Column(),
        "since_ms": Column(dtype=np.int64),
        "far": Column(shape=(2,)),
    }
    seen: F64
    in_block: I64
    last_ms: I64
    longest: F64
    low: F64
    high: F64
    change: I64
    streak: F64
    since_ms: I64
    far: F64

    def learn(self, rows: Rows, t_ms: I64, longest: F64, low: F64, high: F64) -> None:
        """Take in a point of each row, with the records of its block."""
        self.last_ms[rows] = t_ms
        self.longest[rows, 0], self.low[rows, 0], self.high[rows, 0] = longest, low, high

    def pass_on(self, rows: I64) -> None:
        """Begin a new block."""
        for name in ("longest", "low", "high"):
            column = getattr(self, name)
            column[rows, 1] = column[rows, 0]
            column[rows, 0] = self.COLUMNS[name].fill
        self.in_block[rows] = 0


class Gap:
    """The detector "gap": see the module's text. ``centre`` is the level, ``scale`` is always NaN."""

    def __init__(self, params: DetectorParams) -> None:
        self.params = params
        self.block = _BLOCK_WINDOWS * params.window
        self.records = _Records()
        self.intervals = MedianBank(0, _INTERVALS)
        self.values = MedianBank(0, _VALUES)
        self._relearned: list[I64] = []

    def __len__(self) -> int:
        return len(self.records.seen)

    def grow(self, n_series: int) -> None:
        """Room for ``n_series`` series."""
        for bank in (self.records, self.intervals, self.values):
            bank.grow(n_series)

    def step(self, points: Points) -> Scores:
        """Scores of ``points``, which are then learned; see ``Detector``."""
        self._relearned = []
        ok = usable(points.value)
        z, centre, scale, by_gap, by_unit = np.full((5, len(points)), np.nan)
        out = Scores(z, centre, scale, parts={Reason.GAP: by_gap, Reason.UNIT: by_unit})
        out.reason[points.late] = Reason.STALE
        out.reason[~ok] = Reason.NOT_A_NUMBER
        given = np.flatnonzero(ok & ~points.late)
        parts = rounds(points.series[given])
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for r in range(parts.n):
                at = given[parts.part(r)]
                if parts.n - r > _STRETCH_ROUNDS * len(at):
                    self._run_out(points, given[parts.since(r)], out)
                    break
                self._step(points, at, out)
        return Scores(z, centre, scale, out.reason, out.parts)

    # -- what is known, and what it says

    def _judge(self, x: F64, gap_ms: F64, known: _Known) -> tuple[F64, F64, Bool]:
        """Of each point: its interval as a part of the longest usual one (NaN where that is not known yet),
        the longest usual interval, and whether its value is far from the level and new."""
        usual_ms = np.maximum(_TYPICAL_MAX * known.typical_ms, _LONGEST_MAX * known.longest_ms)
        part = np.where((known.intervals >= _FEW) & (known.seen > 0), gap_ms / usual_ms, np.nan)
        far = np.abs(x - known.level) >= _NOISE_MIN * known.noise
        margin_low, margin_high = (TOLERANCE * np.abs(level) for level in (known.low, known.high))
        far &= (x < known.low - margin_low) | (x > known.high + margin_high)
        far &= (known.seen >= self.params.min_points) & (known.values >= _FEW)
        return part, usual_ms, far

    def _give(self, out: Scores, at: I64, known: _Known, part: F64, unit: F64) -> None:
        """Keep scores; ``unit`` is the signed number of points for which the unit has been another."""
        line = self.params.threshold
        ready = known.seen >= self.params.min_points
        part = np.minimum(np.maximum(part, -Z_MAX), Z_MAX)
        gap_z = np.where(ready, np.minimum(np.maximum(part * line, -Z_MAX), Z_MAX), np.nan)
        unit_z = np.where(ready, unit / _POINTS_AT_LINE * line, np.nan)
        by_unit = (unit_z != 0.0) & ready & ~(np.abs(unit_z) <= np.abs(gap_z))
        z = np.where(by_unit, unit_z, gap_z)
        out.z[at], out.centre[at] = z, known.level
        reason = np.where(by_unit, int(Reason.UNIT), int(Reason.GAP))
        out.reason[at] = np.where(np.isnan(z), int(Reason.WARMING), reason)
        out.parts[Reason.GAP][at], out.parts[Reason.UNIT][at] = gap_z, unit_z

    def receipt(self, points: Points) -> Receipt:
        """What the score of one point is made from; see ``Detector``."""
        rows, x, own = points.series, points.value, self.records
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            known = self._known(rows, x)
            gap_ms = (points.t_ms - own.last_ms[rows]).astype(np.float64)
            part, usual_ms, far = self._judge(x, gap_ms, known)
            # What is far is counted, which must not be for good.
            held = {name: column.copy() for name, column in own.save().items()}
            streak, change, _back = self._follow(rows, points, far, known.level)
            own.restore(held)
            unit = float(_signed(streak, change, x - known.level)[0])
        terms, line = list[Term](), self.params.threshold
        if known.seen[0] >= self.params.min_points and usable(x)[0] and not points.late[0]:
            by_gap = Term(Reason.GAP, _GAP_SAYS, float(gap_ms[0]), 0.0, float(usual_ms[0]), line)
            by_unit = Term(Reason.UNIT, _UNIT_SAYS, unit, 0.0, _POINTS_AT_LINE, line)
            terms += [by_gap._replace(sign=float(np.copysign(1.0, gap_ms[0])))] if part[0] == part[0] else []
            terms += [by_unit._replace(sign=float(np.copysign(1.0, unit)))] if unit else []
        return Receipt(
            tuple(terms),
            learned=int(known.seen[0]),
            needed=self.params.min_points,
            window=2 * self.block,
            cadence_ms=float(known.typical_ms[0]) if known.intervals[0] >= _FEW else None,
        )

    def _known(self, rows: Rows, x: F64) -> _Known:
        """What is known of each of some rows before a point of value ``x``."""
        own, times, values = self.records, self.intervals.sums(rows), self.values.sums(rows)
        level, noise = values.deviation(x)[1:]
        longest = own.longest[rows].max(axis=1)
        levels = own.low[rows].min(axis=1), own.high[rows].max(axis=1)
        return _Known(own.seen[rows], times.n, times.median(), longest, values.n, level, noise, *levels)

    # -- many series, one point each

    def _step(self, points: Points, at: I64, out: Scores) -> None:
        """Take the points at ``at``, of distinct series in ascending order."""
        series, x, t_ms = points.series[at], points.value[at], points.t_ms[at]
        rows, own = together(series), self.records
        known = self._known(rows, x)
        gap_ms = (t_ms - own.last_ms[rows]).astype(np.float64)
        part, usual_ms, far = self._judge(x, gap_ms, known)
        streak, change, back = self._follow(rows, points.take(at), far, known.level)
        changed, longest, low, high = change >= 0, own.longest[rows], own.low[rows], own.high[rows]
        self._give(out, at, known, part, _signed(streak, change, x - known.level))
        forward = (gap_ms > 0.0) & (known.seen > 0.0)
        plain = ~changed & ((streak == 0.0) | (streak > _POINTS_MAX))
        counted = forward & (known.intervals >= _FEW)
        counts = np.where(counted, np.minimum(gap_ms, _GROWTH_MAX * usual_ms), 0.0)
        settled = np.where(plain & (known.values >= _FEW), known.level, np.nan)
        own.learn(
            rows,
            t_ms,
            np.maximum(longest[:, 0], counts),
            np.fmin(np.fmin(low[:, 0], settled), back),
            np.fmax(np.fmax(high[:, 0], settled), back),
        )
        self._count(rows, np.ones(len(x), np.int64))
        self.intervals.push(rows, gap_ms, forward)
        self.values.push(rows, x, plain)
        lasting = changed & (streak >= self.params.min_points)
        lasting &= t_ms - own.since_ms[rows] >= self.params.relearn_ms
        if lasting.any():
            self._relearn(series[lasting], x[lasting], at[lasting])

    def _follow(self, rows: Rows, points: Points, far: Bool, level: F64) -> tuple[F64, I64, F64]:
        """Of each row, after its point: how many points in a row were far, which change of unit they are
        (-1: none), and the level that a change ended at which ends with this point, else NaN."""
        own, x, t_ms = self.records, points.value, points.t_ms
        was, since, before = own.change[rows], own.since_ms[rows], own.far[rows]
        back = np.where((was >= 0) & ~far, before[:, 0], np.nan)
        streak = np.where(far, own.streak[rows] + 1.0, 0.0)
        change = np.where(far, was, -1)
        asked = np.flatnonzero((change < 0) & (streak > _POINTS_AT_LINE) & (streak <= _POINTS_MAX))
        if len(asked):
            three = np.sort(np.column_stack([before[asked], x[asked]]), axis=1)
            change[asked] = changes(level[asked], three[:, 1])
        own.since_ms[rows] = np.where(far, np.where(streak > 1.0, np.minimum(since, t_ms), t_ms), 0)
        own.far[rows] = np.where(far[:, None], np.column_stack([x, before[:, 0]]), 0.0)
        own.change[rows], own.streak[rows] = change, streak
        return streak, change, back

    def _count(self, rows: Rows, m: I64) -> None:
        """Count ``m`` more points, which are not more than there is room for in the block."""
        own = self.records
        own.seen[rows] = np.minimum(own.seen[rows] + m, float(self.params.window))
        own.in_block[rows] += m
        full = np.flatnonzero(own.in_block[rows] >= self.block)
        if len(full):
            own.pass_on(full + rows.start if isinstance(rows, slice) else rows[full])

    def _relearn(self, rows: I64, x: F64, at: I64) -> None:
        """Begin anew with the level of these rows."""
        own = self.records
        self._relearned.append(at)
        self.values.clear(rows)
        self.values.push(rows, x, np.ones(len(rows), np.bool_))
        own.low[rows], own.high[rows] = np.inf, -np.inf
        own.change[rows], own.streak[rows], own.since_ms[rows], own.far[rows] = -1, 0.0, 0, 0.0

    # -- one series, many points

    def _run_out(self, points: Points, at: I64, out: Scores) -> None:
        """Take the points at ``at``, series by series, in stretches."""
        at = at[np.argsort(points.series[at], kind="stable")]
        ends = np.flatnonzero(np.diff(points.series[at], append=-1)) + 1
        start = 0
        for end in ends.tolist():
            taken = _STRETCH_POINTS
            while start < end:
                row = int(points.series[at[start]])
                # As far as it went the last time is as far as it may go again.
                most = min(_STRETCH_POINTS, 16 + 2 * taken)
                room, taken = min(most, self.block - int(self.records.in_block[row])), 0
                if self.records.seen[row] > 0 and self.records.streak[row] == 0.0:
                    taken = self._stretch(points, at[start : min(end, start + room)], out)
                if taken == 0:
                    self._step(points, at[start : start + 1], out)
                    taken = 1
                start += taken

    def _stretch(self, points: Points, at: I64, out: Scores) -> int:
        """Take points of one series up to the first that is unusual; returns how many those were."""
        row, x, t_ms, own = int(points.series[at[0]]), points.value[at], points.t_ms[at], self.records
        m = len(at)
        gap_ms = np.diff(t_ms, prepend=own.last_ms[row]).astype(np.float64)
        forward = gap_ms > 0.0
        passed = np.concatenate([[0], np.cumsum(forward)])
        ahead_times = self.intervals.ahead(row, gap_ms[forward])
        ahead_values = self.values.ahead(row, x)
        times, values = ahead_times.before.take(passed[:-1]), ahead_values.before.take(slice(0, m))
        level, noise = values.deviation(x)[1:]
        counts = np.where(forward & (times.n >= _FEW), gap_ms, 0.0)
        settled = np.where(values.n >= _FEW, level, np.nan)
        longest = np.maximum.accumulate(np.append(own.longest[row, 0], counts))
        low = np.fmin.accumulate(np.append(own.low[row, 0], settled))
        high = np.fmax.accumulate(np.append(own.high[row, 0], settled))
        known = _Known(
            np.minimum(own.seen[row] + np.arange(m), float(self.params.window)),
            times.n,
            times.median(),
            np.maximum(longest[:-1], own.longest[row, 1]),
            values.n,
            level,
            noise,
            np.minimum(low[:-1], own.low[row, 1]),
            np.maximum(high[:-1], own.high[row, 1]),
        )
        part, _, far = self._judge(x, gap_ms, known)
        unusual = np.flatnonzero((np.abs(part) > 1.0) | far)
        m = int(unusual[0]) if len(unusual) else m
        if m:
            self._give(out, at[:m], _Known(*(column[:m] for column in known)), part[:m], np.zeros(m))
            self.intervals.commit(row, ahead_times, int(passed[m]))
            self.values.commit(row, ahead_values, m)
            own.learn(slice(row, row + 1), t_ms[m - 1 : m], longest[m], low[m], high[m])
            self._count(slice(row, row + 1), np.array([m]))
        return m

    # -- the rest of the protocol

    def ready_count(self, rows: I64) -> I64:
        """Points seen of each row, as far as they count."""
        count: I64 = self.records.seen[rows].astype(np.int64)
        return count

    def relearned(self) -> I64:
        """Positions in the points of the last step at which a level in another unit became normal."""
        return ascending(self._relearned)

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns."""
        banks = {"intervals": self.intervals.dump(), "values": self.values.dump()}
        rings = {f"{name}.{key}": column for name, bank in banks.items() for key, column in bank.items()}
        return self.records.save() | rings

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave."""
        self.records.restore(columns)
        for name, bank in (("intervals.", self.intervals), ("values.", self.values)):
            bank.load(under(columns, name))


def _signed(streak: F64, change: I64, away: F64) -> F64:
    """For how many points the unit has been another, with the sign of ``away``; 0 if it has not."""
    return np.where(change >= 0, np.copysign(np.minimum(streak, _POINTS_MAX), away), 0.0)
