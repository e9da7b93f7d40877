"""What values a metric may have and which of its deviations matter: range, direction, least deviation.

A detector knows what is unusual; only a person knows what is possible and what matters. A score of how far
a value is from the expected one cannot be beyond the line while that distance is too small or in a
direction nobody minds. A value out of its valid range is beyond the line by itself, also while the
detector knows nothing yet, and no detector learns from it: many sensors report a fault as an impossible
value (a DS18B20 without power reads 85 degrees Celsius, one without contact -127).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from plexus_detect.series import F64, I64, Points, Reason, Scores
from plexus_detect.stats import Z_MAX, grown

# Scores of these do not say how far the value is from the expected one, and in which direction.
NO_DISTANCE = (Reason.STUCK, Reason.NOISE, Reason.QUIET, Reason.GAP, Reason.RANGE, Reason.UNIT)

# A value just out of its range scores this many times the line, and one more for each width of the range.
RANGE_SCORE = 2.0

_FILL = {"low": -np.inf, "high": np.inf, "unit": 1.0}


@dataclass(frozen=True)
class Limits:
    """The limits of a metric, in its unit: deviations count above ``direction`` 1, below -1, or both ways 0,
    from ``min_abs`` and from the share ``min_rel`` of the expected value; ``low`` to ``high`` is valid."""

    direction: int = 0
    min_abs: float = 0.0
    min_rel: float = 0.0
    low: float = -np.inf
    high: float = np.inf


class LimitsBank:
    """The limits of many series, one row each; ``points.series`` are rows of this bank."""

    def __init__(self) -> None:
        self.direction = np.zeros(0, np.int64)
        self.min_abs = np.zeros(0)
        self.min_rel = np.zeros(0)
        self.low = np.zeros(0)
        self.high = np.zeros(0)
        self.unit = np.zeros(0)

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones have no limits."""
        for name in ("direction", "min_abs", "min_rel", "low", "high", "unit"):
            setattr(self, name, grown(getattr(self, name), n, _FILL.get(name, 0)))

    def put(self, row: int, limits: Limits) -> None:
        """Give a row its limits."""
        self.direction[row], self.low[row], self.high[row] = limits.direction, limits.low, limits.high
        self.min_abs[row], self.min_rel[row] = limits.min_abs, limits.min_rel
        bounds = [abs(b) for b in (limits.low, limits.high) if np.isfinite(b)]
        width = limits.high - limits.low
        self.unit[row] = width if np.isfinite(width) and width > 0 else max([1.0, *bounds])

    def least(self, rows: I64, centre: F64) -> F64:
        """The least deviation that matters, for each of these expected values (which may be NaN)."""
        least: F64 = np.fmax(self.min_abs[rows], self.min_rel[rows] * np.abs(centre))
        return least

    def valid(self, points: Points) -> Points:
        """The points, NaN in place of values out of range."""
        rows, x = points.series, points.value
        wrong = (x < self.low[rows]) | (x > self.high[rows])
        if not wrong.any():
            return points
        return replace(points, value=np.where(wrong, np.nan, x))

    def apply(self, points: Points, scores: Scores, threshold: float) -> Scores:
        """The scores, those of deviations that do not matter brought back to the line.

        Where a check of something else than a deviation is beyond the line too, its score is taken.
        """
        at = np.flatnonzero(np.abs(scores.z) > threshold)
        rows, centre = points.series[at], scores.centre[at]
        with np.errstate(over="ignore", invalid="ignore"):
            deviation = points.value[at] - centre
            small = np.abs(deviation) < self.least(rows, centre)
            # Some checks have no sign; what a person sees is on which side of the expected value it is.
            side = np.where(np.isnan(deviation), scores.z[at], deviation)
            unwanted = self.direction[rows] * np.sign(side) < 0
        at = at[(small | unwanted) & ~np.isin(scores.reason[at], NO_DISTANCE)]
        if len(at) == 0:
            return scores
        z, fresh, reason = scores.z.copy(), scores.fresh.copy(), scores.reason.copy()
        z[at] = np.copysign(threshold, z[at])
        for check in NO_DISTANCE:
            if check in scores.parts:
                part = scores.parts[check][at]
                wins = np.abs(part) > np.abs(z[at])
                z[at[wins]], reason[at[wins]] = part[wins], check
        fresh[at] = np.minimum(fresh[at], np.abs(z[at]))
        return replace(scores, z=z, fresh=fresh, reason=reason)

    def flag(self, points: Points, scores: Scores, threshold: float) -> Scores:
        """The scores, those of values out of range beyond the line, the further out the larger."""
        rows, x = points.series, points.value
        below, above = x < self.low[rows], x > self.high[rows]
        at = np.flatnonzero(below | above)
        if len(at) == 0:
            return scores
        rows, x, below = rows[at], x[at], below[at]
        bound = np.where(below, self.low[rows], self.high[rows])
        with np.errstate(over="ignore"):
            size = threshold * (RANGE_SCORE + np.abs(x - bound) / self.unit[rows])
        z, fresh, centre = scores.z.copy(), scores.fresh.copy(), scores.centre.copy()
        reason = scores.reason.copy()
        size = np.minimum(np.fmax(size, np.abs(z[at])), Z_MAX)
        z[at], fresh[at] = np.where(below, -size, size), size
        centre[at] = np.where(np.isfinite(centre[at]), centre[at], bound)
        reason[at] = Reason.RANGE
        return replace(scores, z=z, fresh=fresh, centre=centre, reason=reason)

    def band(self, points: Points, scores: Scores, threshold: float) -> tuple[F64, F64]:
        """Lower and upper bound of what is normal; NaN where that is not known."""
        with np.errstate(over="ignore", invalid="ignore"):
            half = np.maximum(threshold * scores.scale, self.least(points.series, scores.centre))
            return scores.centre - half, scores.centre + half
