"""How far a row is outside of where its model has seen data: column by column, and across the columns.

Most backends know ranks, bins or trees: what lies ten deviations beyond the largest value they have seen is
as odd to them as what lies just beyond it. Each column's two tails are continued as exponentials, in which a
distance of one mean excess is one nat. Many of them also look at one column at a time; so the principal
components of the metrics (Jolliffe 2002) count as columns here: metrics that moved together and no longer do
are far out along one that hardly varied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.scale import Scale, robust_scale
from plexus_detect.learn.tail import capped
from plexus_detect.series import F64

# The tails of a column are its outer parts of this share on each side.
SHARE = 0.1

# How many excesses the one expected of a normal distribution is worth, and what that is in deviations for a
# tail of 0.1.
EXPECTED = 10
_NORMAL_EXCESS = 0.474
_NORMAL_IQR = 1.349

# The mean excess is no less than this part of a column's range.
LEAST = 0.01

# A column that hardly varies is measured by this part of its size.
RESOLUTION = 1e-3

# Components are known from so many rows for each metric, or not at all.
ROWS_EACH = 10

# More nats than this say nothing more.
NATS_MAX = 1e6


@dataclass(frozen=True)
class Support:
    """Of each of k metrics and p components: where its tails begin and their mean excesses, (k + p,), in its
    unit. ``scale`` is that of the metrics, and ``axes``, (k, p), are the components in it.

    Rolling features have no part in it: so few windows without common rows say nothing about their tails.
    """

    low: F64
    high: F64
    below: F64
    above: F64
    scale: Scale
    axes: F64

    def nats(self, x: F64) -> F64:
        """How far each metric of rows of features x, (m, f), and each component is out: 0 inside, in nats
        beyond where a tail begins, (m, k + p)."""
        wide = _with_components(x, self.scale, self.axes)
        out = np.maximum((wide - self.high) / self.above, (self.low - wide) / self.below)
        return np.minimum(np.maximum(out, 0.0), NATS_MAX)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        tails = {"low": self.low, "high": self.high, "below": self.below, "above": self.above}
        return tails | {"axes": self.axes, **self.scale.arrays()}

    @staticmethod
    def of(arrays: Arrays) -> Support:
        """The support that gave these arrays."""
        names = ("low", "high", "below", "above", "axes")
        low, high, below, above, axes = (np.asarray(arrays[name], np.float64) for name in names)
        return Support(low, high, below, above, Scale.of(arrays), axes)


def _with_components(x: F64, scale: Scale, axes: F64) -> F64:
    """The metrics with their components beside them: added up column by column, so that a row's bits are its
    own."""
    x = x[:, : len(axes)]
    metrics = scale.of_rows(x)
    components = np.zeros((len(x), axes.shape[1]))
    for column, weights in zip(metrics.T, axes, strict=True):
        components += column[:, None] * weights
    return np.concatenate([x, components], axis=1)


def _scale(x: F64) -> Scale:
    """The scale of metrics x, (n, k): one that never varied has its size as unit, as a deviation has none."""
    scale, size = robust_scale(x), np.abs(x[0])
    return Scale(scale.centre, np.where((np.ptp(x, axis=0) == 0.0) & (size > 0.0), size, scale.unit))


def _axes(x: F64) -> F64:
    """The components of scaled metrics x, (n, k), as columns, (k, p); none where there are too few rows to
    know them, or one metric only."""
    n, k = x.shape
    if k < 2 or n < ROWS_EACH * k:
        return np.zeros((k, 0))
    _variances, axes = np.linalg.eigh(np.cov(x, rowvar=False))
    return np.ascontiguousarray(axes)


def support_of(rows: F64, k_metrics: int) -> Support:
    """The support of rows of features, (n, f), n >= 2 and finite, whose first ``k_metrics`` are metrics."""
    scale = _scale(rows[:, :k_metrics])
    axes = _axes(scale.of_rows(rows[:, :k_metrics]))
    x = _with_components(rows, scale, axes)
    ordered = np.sort(x, axis=0)
    n = len(ordered)
    k = max(1, min(n - 1, round(SHARE * n)))
    low, high = ordered[k], ordered[n - 1 - k]
    quarter = max(1, n // 4)
    middle = (ordered[n - 1 - quarter] - ordered[quarter]) / _NORMAL_IQR
    size = np.maximum(np.abs(ordered[0]), np.abs(ordered[-1]))
    size[k_metrics:] = 1.0
    least = np.maximum(np.maximum(RESOLUTION * size, LEAST * (ordered[-1] - ordered[0])), 1e-12)
    # The mean of a few excesses is near anything; what a normal column of this middle would have counts too.
    prior = EXPECTED * _NORMAL_EXCESS * middle
    above = (capped(ordered[n - k :] - high).sum(axis=0) + prior) / (k + EXPECTED)
    below = (capped(low - ordered[:k]).sum(axis=0) + prior) / (k + EXPECTED)
    return Support(low, high, np.maximum(below, least), np.maximum(above, least), scale, axes)
