"""Exponentially weighted mean and deviation, which points learned from move by a bounded step only.

z = (x - mean) / max(deviation, resolution, floor), where the points learned weigh the less the older they
are: by half at a half-life. The control chart is Roberts, "Control Chart Tests Based on Geometric Moving
Averages", Technometrics 1 (1959); the updates are West, Communications of the ACM 22 (1979), and Finch,
"Incremental calculation of weighted mean and variance" (2009). With time steps of one length the step is
alpha = 1 - 2^(-step / half-life); while young it is 1 / n, a plain mean. A box of ``window`` points and this
have memories of one mean age, which makes the half-life ln 2 / 2 of the window; for a window that is a
duration the weights fall with elapsed time, and after however long a silence ``min_points`` points still
count as that many, so that one point is never the baseline.

The rule beside which this stands learns a point before it tests it, whatever its size, which pulls the mean
to every incident. Here a point is scored first, moves the mean by at most two deviations' worth (Huber,
"Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35, 1964, his proposal 2,
with the deviation corrected for what normal noise loses by that), and not at all when it is beyond the line:
guard and relearning as in ``guarded``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Column, Columns, Snapshot
from plexus_detect.detectors.base import DetectorParams
from plexus_detect.detectors.guarded import Guarded, Run
from plexus_detect.series import F64, I64, Bool, Points, Reason, Rows

# Points learned count as at most this many deviations away.
_CLIP = 2.0

# More points than any stretch has: a mean is never computed anew.
_NEVER = 1 << 40


class Weighted(NamedTuple):
    """Weighted means and deviations, aligned columns; ``mean`` is relative to ``origin``."""

    n: F64
    origin: F64
    mean: F64
    variance: F64

    def take(self, at: Rows) -> Weighted:
        """Those at these positions."""
        return Weighted(self.n[at], self.origin[at], self.mean[at], self.variance[at])

    def place(self) -> tuple[F64, F64]:
        """(origin, mean relative to it)."""
        return self.origin, self.mean

    def deviation(self, x: F64) -> tuple[F64, F64, F64]:
        """(x - mean, mean, deviation)."""
        return (x - self.origin) - self.mean, self.origin + self.mean, np.sqrt(self.variance)


class AheadWeighted(NamedTuple):
    """What learning a run would do; ``weight`` belongs to ``before``, and no push is a loss."""

    before: Weighted
    weight: F64
    lost: Bool


class WeightedBank(Columns):
    """Weighted means and variances of many series; ``weight`` is the sum of the weights.

    ``loss`` is the part of the variance of normal noise that is left when values are taken as at most
    ``_CLIP`` deviations away and those beyond the line are not taken.
    """

    COLUMNS = {name: Column() for name in ("count", "weight", "origin", "mean", "variance")}  # noqa: RUF012
    count: F64
    weight: F64
    origin: F64
    mean: F64
    variance: F64

    def __init__(self, params: DetectorParams) -> None:
        super().__init__()
        self.fade = (params.window - 1.0) / (params.window + 1.0)
        self.window, self.least = float(params.window), float(params.min_points)
        self.clip = min(_CLIP, params.threshold)
        self.loss = _clipped_variance(self.clip, params.threshold)

    def __len__(self) -> int:
        return len(self.count)

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns."""
        return self.save()

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave."""
        self.restore(columns)

    def sums(self, rows: Rows) -> Weighted:
        """The means of these rows as they are now."""
        return Weighted(self.count[rows], self.origin[rows], self.mean[rows], self.variance[rows])

    def push(self, rows: Rows, x: F64, accept: Bool) -> None:
        """Add a value as one of the same time as the one before."""
        self.learn(rows, x, np.ones(len(x)), np.zeros(len(x)), accept)

    def learn(self, rows: Rows, x: F64, fade: F64, least: F64, accept: Bool) -> None:
        """Add a value to each of the (distinct) rows that accept it, those before fading by ``fade``;
        ``least`` is the smallest deviation that values are measured by."""
        n, weight = self.count[rows], self.weight[rows]
        origin = np.where(n == 0.0, x, self.origin[rows])
        mean, variance = self.mean[rows], self.variance[rows]
        now = np.maximum(weight * fade + 1.0, np.minimum(n + 1.0, self.least))
        step = 1.0 / now
        away = (x - origin) - mean
        bound = self.clip * np.maximum(np.sqrt(variance), least)
        free = (n < self.least) | (bound == 0.0)
        away = np.where(free, away, np.minimum(np.maximum(away, -bound), bound))
        square = away * away / np.where(free, 1.0, self.loss)
        columns = {
            "count": np.minimum(n + 1.0, self.window),
            "weight": now,
            "origin": origin,
            "mean": mean + step * away,
            "variance": (1.0 - step) * (variance + step * square),
        }
        for name, column in columns.items():
            own = getattr(self, name)
            own[rows] = np.where(accept, column, own[rows])

    def ahead(self, row: int, x: F64) -> AheadWeighted:
        """What adding these values as of one time would do."""
        return self.look(row, x, np.ones(len(x)), np.zeros(len(x)))

    def look(self, row: int, x: F64, fade: F64, least: F64) -> AheadWeighted:
        """What ``learn`` would do for values of one row one after another: its operations, on one number at
        a time, for each result is needed for the next."""
        n, weight = float(self.count[row]), float(self.weight[row])
        mean, variance = float(self.mean[row]), float(self.variance[row])
        origin = float(self.origin[row]) if n or not len(x) else float(x[0])
        states = [(n, weight, mean, variance)]
        for value, faded, floor in zip(x.tolist(), fade.tolist(), least.tolist(), strict=True):
            weight = max(weight * faded + 1.0, min(n + 1.0, self.least))
            step = 1.0 / weight
            away = (value - origin) - mean
            bound = self.clip * max(math.sqrt(variance), floor)
            if n < self.least or bound == 0.0:
                square = away * away
            else:
                away = min(max(away, -bound), bound)
                square = away * away / self.loss
            mean += step * away
            variance = (1.0 - step) * (variance + step * square)
            n = min(n + 1.0, self.window)
            states.append((n, weight, mean, variance))
        count, weights, means, variances = np.array(states).T
        before = Weighted(count, np.full(len(states), origin), means, variances)
        return AheadWeighted(before, weights, np.zeros(len(x), np.bool_))

    def until_rebase(self, row: int) -> int:  # noqa: ARG002
        """Any number of values may be looked at ahead."""
        return _NEVER

    def commit(self, row: int, ahead: AheadWeighted, m: int) -> None:
        """Make the first ``m`` pushes true."""
        before = ahead.before
        self.count[row], self.weight[row], self.origin[row] = before.n[m], ahead.weight[m], before.origin[m]
        self.mean[row], self.variance[row] = before.mean[m], before.variance[m]

    def clear(self, rows: I64) -> None:
        """Forget everything of these rows."""
        for name in self.COLUMNS:
            getattr(self, name)[rows] = 0.0


class Ewma(Guarded[AheadWeighted]):
    """The detector "ewma": see the module's text."""

    REASON = Reason.EWMA
    SAYS = "the value against the weighted mean"

    def __init__(self, params: DetectorParams) -> None:
        self.bank = WeightedBank(params)
        super().__init__(params, self.bank)
        # The time of the newest point learned.
        self.learned_ms = np.zeros(0, np.int64)

    def _fade(self, gap_ms: I64) -> F64:
        """What is left of a weight after a point, or after so many milliseconds."""
        if self.params.window_ms is None:
            return np.full(len(gap_ms), self.bank.fade)
        half_life_ms = 0.5 * math.log(2.0) * self.params.window_ms
        fade: F64 = np.exp2(-np.maximum(gap_ms, 0) / half_life_ms)
        return fade

    def _learn(self, rows: Rows, points: Points, least: F64, accept: Bool) -> None:
        learned = self.learned_ms[rows]
        self.bank.learn(rows, points.value, self._fade(points.t_ms - learned), least, accept)
        self.learned_ms[rows] = np.where(accept, points.t_ms, learned)

    def _ahead(self, run: Run, least: F64) -> AheadWeighted:
        before = np.concatenate([self.learned_ms[run.row : run.row + 1], run.t_ms])[:-1]
        return self.bank.look(run.row, run.x, self._fade(run.t_ms - before), least)

    def _commit(self, run: Run, ahead: AheadWeighted, m: int) -> None:
        super()._commit(run, ahead, m)
        if m:
            self.learned_ms[run.row] = run.t_ms[m - 1]

    def _columns(self) -> dict[str, npt.NDArray[np.generic]]:
        return super()._columns() | {"learned_ms": self.learned_ms}


def _clipped_variance(clip: float, line: float) -> float:
    """The mean of min(z^2, clip^2) over the normal distribution cut off at +-``line`` (>= ``clip``)."""
    inside = math.erf(clip / math.sqrt(2.0))
    density = math.exp(-0.5 * clip * clip) / math.sqrt(2.0 * math.pi)
    all_taken = math.erf(line / math.sqrt(2.0))
    return (inside - 2.0 * clip * density + clip * clip * (all_taken - inside)) / all_taken
