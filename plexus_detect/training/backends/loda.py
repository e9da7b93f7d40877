"""Fitting LODA with PyOD."""

from __future__ import annotations

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.models.loda import Loda
from plexus_detect.learn.scale import robust_scale
from plexus_detect.series import F64

PROJECTIONS, BINS = 100, 10

# The smallest training value of a projection is a limit itself; how its sum is rounded must not matter.
ROUNDING = 1e-12


def fit_loda(x: F64, contamination: float, seed: int) -> Loda:
    """LODA of rows x, (n, f), n >= 2 and finite: 100 projections, 10 bins each. Raises FitError."""
    from pyod.models.loda import LODA

    scale = robust_scale(x)
    estimator = LODA(contamination, n_bins=BINS, n_random_cuts=PROJECTIONS, random_state=seed)
    try:
        estimator.fit(scale.of_rows(x))
    except ValueError as error:
        raise FitError(f"loda cannot be fitted to these {len(x)} rows: {error}") from None
    limits = estimator.limits_
    width = limits[:, -1:] - limits[:, :1]
    return Loda(
        scale,
        np.ascontiguousarray(estimator.projections_.T),
        np.ascontiguousarray((limits[:, : BINS - 1] + ROUNDING * width).T),
        np.ascontiguousarray((-np.log(estimator.histograms_) * estimator.weights[:, None] / PROJECTIONS).T),
    )
