"""What detectors share that compare a point with a baseline of the accepted points before it.

z = (x - centre) / max(spread, resolution, floor); resolution is the smallest non-zero step the series has
ever made. Keeping flagged points out of the baseline is the guard of radar's CFAR detectors (Finn and
Johnson, RCA Review 29, 1968). A suspicion starts with a point beyond the line and ends when ``close_after``
points in a row were inside, or when points have been beyond for ``relearn_ms``: then the newest of them
become the baseline. Points inside the line are learned also while a suspicion lasts: to keep them out too
finds no more on labelled data, and starves the baseline of series that drift, at half as many false alarms
again.

Many series with a point each are stepped together (``_step``). A long run of one series is taken in
stretches (``_stretch``): what would happen if every point were accepted, true up to the first that is not.
Both use the same operations in the same order, so they give the same bits; which one runs is only a
question of speed.
"""

from __future__ import annotations

from typing import ClassVar, Generic, NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Snapshot, under
from plexus_detect.detectors.base import DetectorParams, Receipt, Term
from plexus_detect.detectors.baseline import A, Baseline, Level
from plexus_detect.series import F64, I64, Bool, Points, Reason, Rows, Scores, ascending, rounds, together
from plexus_detect.stats import Z_MAX, grown, usable

# A step below this many parts of the value is rounding, not the sensor's resolution.
_ROUNDING = 8 * float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)

# Stepping all series by one point costs about as much as taking a stretch of this many of them.
_STRETCH_ROUNDS = 3

_FILL: dict[str, float] = {"last": np.nan, "resolution": np.inf}


class Run(NamedTuple):
    """Points of one series in their order; ``at`` are their positions in the stepped points."""

    row: int
    at: I64
    t_ms: I64
    x: F64
    ok: Bool
    known: Bool

    def take(self, at: Rows) -> Run:
        """The points at these positions."""
        return Run(self.row, self.at[at], self.t_ms[at], self.x[at], self.ok[at], self.known[at])

    def part(self, start: int, stop: int) -> Run:
        """The points from ``start`` to before ``stop``."""
        return self.take(slice(start, stop))


class Guarded(Generic[A]):
    """A detector with a guarded baseline: see the module's text. Subclasses give the baseline."""

    REASON: ClassVar[Reason]
    SAYS: ClassVar[str]

    # Longest stretch: what is computed beyond the first flagged point is thrown away.
    STRETCH_POINTS: ClassVar[int] = 512

    def __init__(self, params: DetectorParams, baseline: Baseline[A]) -> None:
        self.params = params
        self.baseline = baseline
        self.last = np.zeros(0)
        self.resolution = np.zeros(0)
        # Of a suspicion: the newest points beyond the line, how many there were (0: there is none), how many
        # in a row were inside since, and when it began.
        self.held = np.zeros((0, params.min_points))
        self.held_count = np.zeros(0, np.int64)
        self.inside = np.zeros(0, np.int64)
        self.since_ms = np.zeros(0, np.int64)
        self._relearned: list[I64] = []
        self._scores = _no_scores(0)

    def __len__(self) -> int:
        return len(self.baseline)

    def grow(self, n_series: int) -> None:
        """Room for ``n_series`` series."""
        self.baseline.grow(n_series)
        for name, column in self._columns().items():
            setattr(self, name, grown(column, n_series, _FILL.get(name, 0)))

    def step(self, points: Points) -> Scores:
        """Scores of ``points``, which are then learned; see ``Detector``."""
        self._relearned = []
        parts = rounds(points.series)
        # Values that are no numbers, or too large to square, come to nothing, but not without warnings.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if parts.whole:
                return self._step(points, parts.order)
            self._scores = _no_scores(len(points))
            for r in range(parts.n):
                at = parts.part(r)
                if parts.n - r > _STRETCH_ROUNDS * len(at):
                    self._run_out(points, parts.since(r))
                    break
                self._keep(at, self._step(points.take(at), at))
        kept = self._scores
        return Scores(kept.z, kept.centre, kept.scale, kept.reason)

    # -- what differs between detectors

    def _learn(self, rows: Rows, points: Points, least: F64, accept: Bool) -> None:  # noqa: ARG002
        """Push a point of each row; ``least`` is the smallest scale it may be measured by."""
        self.baseline.push(rows, points.value, accept)

    def _ahead(self, run: Run, least: F64) -> A:  # noqa: ARG002
        """What learning all of ``run`` would do."""
        return self.baseline.ahead(run.row, run.x)

    def _commit(self, run: Run, ahead: A, m: int) -> None:
        """Learn the first ``m`` of ``run``."""
        self.baseline.commit(run.row, ahead, m)

    # -- scores

    def _least(self, resolution: F64) -> F64:
        """The smallest scale of series with these resolutions; 0 where there is none."""
        floor = self.params.scale_floor
        least = np.where(resolution < np.inf, resolution, floor)
        return np.maximum(least, floor) if floor > 0.0 else least

    def _score(self, x: F64, ok: Bool, level: Level, least: F64) -> Scores:
        """Scores of values against the level before them; NaN where the value or the baseline is no good."""
        deviation, centre, spread = level.deviation(x)
        scale = np.maximum(spread, least)
        if not scale.min(initial=1.0) > 0.0:
            # A series that never moved has no scale of its own: its first deviation is the unit.
            scale = np.where(scale > 0.0, scale, np.maximum(np.abs(deviation), _TINY))
        z = np.minimum(np.maximum(deviation / scale, -Z_MAX), Z_MAX)
        reason = np.full(len(x), int(self.REASON), np.int8)
        known = ok & (level.n >= self.params.min_points)
        if not known.all():
            z[~known] = np.nan
            reason[~known] = Reason.WARMING
            reason[~ok] = Reason.NOT_A_NUMBER
        return Scores(z, centre, scale, reason)

    def receipt(self, points: Points) -> Receipt:
        """What the score of one point is made from; see ``Detector``."""
        rows, x = points.series, points.value
        level, finer = self.baseline.sums(rows), self.resolution[rows]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if usable(x)[0] and not points.late[0]:
                finer = np.minimum(finer, _step_size(x, self.last[rows]))
            score = self._score(x, usable(x), level, self._least(finer))
            origin, centre = (float(column[0]) for column in level.place())
        z = float(score.z[0])
        terms: tuple[Term, ...] = ()
        if not np.isnan(z):
            numbers = float(x[0]) - origin, centre, float(score.scale[0])
            terms = (Term(self.REASON, self.SAYS, *numbers, sign=float(np.copysign(1.0, z))),)
        return Receipt(
            terms,
            learned=int(level.n[0]),
            needed=self.params.min_points,
            aside=int(self.held_count[rows[0]]),
            resolution=float(finer[0]) if finer[0] < np.inf else None,
            origin=origin,
        )

    # -- many series, one point each

    def _step(self, points: Points, at: I64) -> Scores:
        """Take a point of each of several series, in order of series; ``at`` says where they come from."""
        rows, x = together(points.series), points.value
        ok = usable(x)
        known = ok & ~points.late
        last, resolution = self.last[rows], self.resolution[rows]
        finer = np.minimum(resolution, _step_size(x, last))
        if known.all():
            self.last[rows], self.resolution[rows] = x, finer
        else:
            finer = np.where(known, finer, resolution)
            self.last[rows], self.resolution[rows] = np.where(known, x, last), finer
        least = self._least(finer)
        scores = self._score(x, ok, self.baseline.sums(rows), least)
        beyond = np.abs(scores.z) > self.params.threshold
        busy = (beyond | (self.held_count[rows] > 0)) & known
        self._learn(rows, points, least, known & ~beyond)
        some = busy.nonzero()[0]
        if len(some):
            self._suspect(points.series[some], points.t_ms[some], x[some], beyond[some], at[some])
        return scores

    def _suspect(self, rows: I64, t_ms: I64, x: F64, beyond: Bool, at: I64) -> None:
        """Keep flagged points aside, until the suspicion ends in one of two ways."""
        p = self.params
        before, since = self.held_count[rows], self.since_ms[rows]
        # A clock may be set back meanwhile, which must not put off the end for ever.
        since = np.where(beyond, np.where(before == 0, t_ms, np.minimum(since, t_ms)), since)
        inside = np.where(beyond, 0, self.inside[rows] + 1)
        count = before + beyond
        self.held[rows[beyond], before[beyond] % p.min_points] = x[beyond]
        self.since_ms[rows], self.inside[rows] = since, inside
        self.held_count[rows] = np.where(inside >= p.close_after, 0, count)
        lasting = beyond & (t_ms - since >= p.relearn_ms) & (count >= p.min_points)
        if lasting.any():
            self._relearn(rows[lasting], at[lasting])

    def _relearn(self, rows: I64, at: I64) -> None:
        """Make the points held for these rows their baseline, oldest first."""
        self._relearned.append(at)
        self.baseline.clear(rows)
        for k in range(self.params.min_points):
            oldest = (self.held_count[rows] + k) % self.params.min_points
            self.baseline.push(rows, self.held[rows, oldest], np.ones(len(rows), np.bool_))
        self.held_count[rows] = 0

    # -- one series, many points

    def _run_out(self, points: Points, at: I64) -> None:
        """Take the points at ``at``, series by series, in stretches."""
        at = at[np.argsort(points.series[at], kind="stable")]
        series = points.series[at]
        starts = np.flatnonzero(np.diff(series, prepend=-1))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(at)], strict=True):
            mine = at[start:stop]
            x = points.value[mine]
            ok = usable(x)
            run = Run(int(series[start]), mine, points.t_ms[mine], x, ok, ok & ~points.late[mine])
            taken = self.STRETCH_POINTS
            while len(run.x):
                # As far as it went the last time is as far as it may go again.
                taken = self._stretch(points, run, min(self.STRETCH_POINTS, 16 + 2 * taken))
                run = run.part(taken, len(run.x))

    def _stretch(self, points: Points, run: Run, most: int) -> int:
        """Take as many points at once as can be, of ``most`` looked at; returns how many that were."""
        row = run.row
        part = run.part(0, min(most, self.baseline.until_rebase(row)))
        if self.baseline.count[row] == 0:
            unknown = int(np.argmax(np.append(part.known, True)))
            if unknown == 0:
                self._keep(run.at[:1], self._step(points.take(run.at[:1]), run.at[:1]))
                return 1
            part = part.part(0, unknown)
        end, flagged = self._accept(part)
        if flagged:
            end += self._wait(
                run.part(end, end + min(self.STRETCH_POINTS, 8 + 2 * int(self.held_count[row])))
            )
        return end

    def _accept(self, run: Run) -> tuple[int, bool]:
        """Score and learn points up to the first that is flagged, or after which the sums are taken anew.

        Returns where that is, and whether the point there is flagged.
        """
        row, k = run.row, np.flatnonzero(run.known)
        resolution = self._resolutions(row, run.x[k])
        least = self._least(resolution)
        learning = run.take(k)
        stretch = self._ahead(learning, least[1:])
        before, after = _around(run.known)
        scores = self._score(run.x, run.ok, stretch.before.take(before), least[after])
        flagged = np.flatnonzero(run.known & (np.abs(scores.z) > self.params.threshold))
        lost = np.flatnonzero(stretch.lost)
        end = int(k[lost[0]]) + 1 if len(lost) else len(run.x)
        at_flag = len(flagged) > 0 and int(flagged[0]) < end
        if at_flag:
            end = int(flagged[0])
        m = int(np.count_nonzero(run.known[:end]))
        self._commit(learning, stretch, m)
        if self.held_count[row] > 0:
            self.inside[row] = min(self.inside[row] + m, self.params.close_after)
            if self.inside[row] == self.params.close_after:
                self.held_count[row] = 0
        self._give(run, scores, resolution, end, m)
        return end, at_flag

    def _wait(self, run: Run) -> int:
        """Score points beyond the line, which leave the baseline as it is, up to the first inside it.

        The first point of ``run`` is known to be flagged. Returns how many points were taken.
        """
        p, row = self.params, run.row
        resolution = self._resolutions(row, run.x[run.known])
        frozen = self.baseline.sums(np.full(len(run.x), row))
        least = self._least(resolution)[_around(run.known)[1]]
        scores = self._score(run.x, run.ok, frozen, least)
        inside = np.flatnonzero(run.known & ~(np.abs(scores.z) > p.threshold))
        run = run.part(0, int(inside[0]) if len(inside) else len(run.x))
        k = np.flatnonzero(run.known)
        t_ms, held = run.t_ms[k], int(self.held_count[row])
        since = np.minimum.accumulate(np.minimum(t_ms, self.since_ms[row] if held else t_ms[0]))
        count = held + 1 + np.arange(len(k))
        lasting = np.flatnonzero((t_ms - since >= p.relearn_ms) & (count >= p.min_points))
        m = int(lasting[0]) + 1 if len(lasting) else len(k)
        end = int(k[m - 1]) + 1 if len(lasting) else len(run.x)
        kept = slice(max(0, m - p.min_points), m)
        self.held[row, (count[kept] - 1) % p.min_points] = run.x[k[kept]]
        self.held_count[row], self.inside[row], self.since_ms[row] = held + m, 0, since[m - 1]
        self._give(run, scores, resolution, end, m)
        if len(lasting):
            self._relearn(np.array([row]), run.at[k[m - 1 : m]])
        return end

    def _resolutions(self, row: int, x: F64) -> F64:
        """The resolution of a series before and after each of the values ``x``: one more than these."""
        last = np.concatenate([self.last[row : row + 1], x])[:-1]
        steps = np.concatenate([self.resolution[row : row + 1], _step_size(x, last)])
        finest: F64 = np.minimum.accumulate(steps)
        return finest

    def _give(self, run: Run, scores: Scores, resolution: F64, end: int, m: int) -> None:
        """Keep the scores of the points before ``end``, of which ``m`` are known, and their steps."""
        columns = scores.z[:end], scores.centre[:end], scores.scale[:end], scores.reason[:end]
        self._keep(run.at[:end], Scores(*columns))
        if m:
            self.last[run.row] = run.x[np.flatnonzero(run.known)[m - 1]]
            self.resolution[run.row] = resolution[m]

    def _keep(self, at: I64, scores: Scores) -> None:
        out = self._scores
        out.z[at], out.centre[at], out.scale[at] = scores.z, scores.centre, scores.scale
        out.reason[at] = scores.reason

    # -- the rest of the protocol

    def ready_count(self, rows: I64) -> I64:
        """Points in the baseline of each row."""
        count: I64 = self.baseline.count[rows].astype(np.int64)
        return count

    def relearned(self) -> I64:
        """Positions in the points of the last step at which a level became normal, ascending."""
        return ascending(self._relearned)

    def _columns(self) -> dict[str, npt.NDArray[np.generic]]:
        names = ("last", "resolution", "held", "held_count", "inside", "since_ms")
        return {name: getattr(self, name) for name in names}

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns."""
        return self._columns() | {f"baseline.{k}": column for k, column in self.baseline.dump().items()}

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave."""
        prefix = "baseline."
        self.baseline.load(under(columns, prefix))
        for name in self._columns():
            setattr(self, name, columns[name].copy())


def _step_size(x: F64, last: F64) -> F64:
    """How far values moved, infinite where they did not (but for rounding)."""
    step = np.abs(x - last)
    return np.where(step > _ROUNDING * np.abs(x), step, np.inf)


def _around(known: Bool) -> tuple[Rows, Rows]:
    """For each point, how many known points there were before it and up to it."""
    if known.all():
        return slice(0, len(known)), slice(1, len(known) + 1)
    learned: I64 = np.cumsum(known)
    before: I64 = learned - known
    return before, learned


def _no_scores(n: int) -> Scores:
    return Scores(*np.full((3, n), np.nan))
