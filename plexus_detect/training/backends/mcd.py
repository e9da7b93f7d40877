"""Fitting MCD with PyOD."""

from __future__ import annotations

import warnings

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.models.mcd import Mcd
from plexus_detect.learn.scale import robust_scale
from plexus_detect.series import F64

# With fewer rows a column than this, half of them are too few for a covariance (Rousseeuw, Van Driessen
# 1999): then the compact part is all rows.
ROWS_A_COLUMN = 5

# Columns that never move, or two that are one, have no inverse covariance: all columns get noise of this part
# of their unit, which then is the least deviation that counts. Below SINGULAR, the smallest eigenvalue of a
# covariance as a part of the largest, it has none.
RESOLUTION, SINGULAR = 1e-3, 1e-10


def fit_mcd(x: F64, contamination: float, seed: int) -> Mcd:
    """MCD of rows x, (n, f), finite, n >= f + 2.

    Raises FitError when there are too few rows, or too few different ones.
    """
    n, f = x.shape
    if n < f + 2:
        raise FitError(f"mcd needs at least {f + 2} rows for {f} columns and has {n}")
    scale = robust_scale(x)
    z = scale.of_rows(x)
    noise = RESOLUTION * np.random.default_rng(seed).standard_normal(z.shape)
    for rows in (z, z + noise):
        found = _covariance(rows, contamination, seed)
        if found is not None:
            location, covariance = found
            return Mcd(scale, location, np.linalg.cholesky(np.linalg.inv(covariance)))
    raise FitError(f"mcd cannot be fitted to these {n} rows of {f} columns: too few of them differ")


def _covariance(z: F64, contamination: float, seed: int) -> tuple[F64, F64] | None:
    """Centre and covariance, or None when it cannot be inverted."""
    from pyod.models.mcd import MCD

    part = None if len(z) >= ROWS_A_COLUMN * z.shape[1] else 1.0
    estimator = MCD(contamination, support_fraction=part, random_state=seed)
    try:
        with warnings.catch_warnings():
            # Of a singular covariance it only warns; what comes of it is checked below.
            warnings.simplefilter("ignore")
            estimator.fit(z)
    except ValueError:
        return None
    covariance = np.asarray(estimator.covariance_, np.float64)
    if not np.isfinite(covariance).all():
        return None
    eigenvalues = np.linalg.eigvalsh(covariance)
    if eigenvalues[0] <= SINGULAR * eigenvalues[-1]:
        return None
    return np.asarray(estimator.location_, np.float64), covariance
