"""Fitting knn and local_outlier_factor with PyOD, on columns in units of their own deviation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.models.neighbours import DENSITY_EPS, Knn, LocalOutlierFactor, scaled
from plexus_detect.learn.scale import Scale, robust_scale
from plexus_detect.series import F64

# Of a longer window an evenly spaced part is compared with: one row's score costs time for each of them.
REFERENCE_MAX = 2_000

KNN_NEIGHBOURS = 5
LOF_NEIGHBOURS = 20


@contextmanager
def fitting(backend: str) -> Iterator[None]:
    """What a library raises for rows that it cannot use, or for want of itself, becomes a FitError."""
    try:
        yield
    except ImportError as error:
        raise FitError(f"{backend} needs a library that is not installed: {error}") from error
    except (ValueError, ArithmeticError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise FitError(f"{backend} could not be fitted: {said or type(error).__name__}") from error


def without_unit(x: F64) -> tuple[Scale, F64]:
    """The robust scale of rows x, (n, f), and the rows on it; FitError when their spread is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        scale = robust_scale(x)
        finite = np.isfinite(scale.of_rows(x)).all() and np.isfinite(scale.unit).all()
    if not finite:
        raise FitError("the numbers of a column are too large to be compared: their spread is infinite")
    return scale, scaled(x, scale)


def evenly(x: F64, most: int) -> F64:
    """At most so many of the rows of x, evenly spaced, the first and the last among them."""
    if len(x) <= most:
        return x
    return x[np.linspace(0, len(x) - 1, most).round().astype(np.int64)]


def fit_knn(x: F64, contamination: float, seed: int) -> Knn:  # noqa: ARG001
    """knn of rows x, (n, f), with 5 neighbours (fewer in a smaller window); nothing is drawn.

    Raises FitError.
    """
    scale, rows = without_unit(x)
    rows = evenly(rows, REFERENCE_MAX)
    k = min(KNN_NEIGHBOURS, len(rows) - 1)
    with fitting("knn"):
        from pyod.models.knn import KNN

        # Trees measure by differences; for many columns "auto" would take a product, which loses digits.
        KNN(contamination, k, "largest", algorithm="ball_tree", n_jobs=1).fit(rows)
    return Knn(scale, np.ascontiguousarray(rows.T), k)


def fit_local_outlier_factor(x: F64, contamination: float, seed: int) -> LocalOutlierFactor:  # noqa: ARG001
    """Local outlier factor of rows x, (n, f), among 20 neighbours, fewer in a smaller window.

    Nothing is drawn. Raises FitError.
    """
    scale, rows = without_unit(x)
    rows = evenly(rows, REFERENCE_MAX)
    k = min(LOF_NEIGHBOURS, len(rows) - 1)
    with fitting("local_outlier_factor"), warnings.catch_warnings():
        from pyod.models.lof import LOF

        # Sensors repeat themselves: rows with more than k duplicates have the largest density there is.
        warnings.filterwarnings("ignore", "Duplicate values are leading to incorrect results", UserWarning)
        fitted = LOF(k, algorithm="ball_tree", contamination=contamination, n_jobs=1, novelty=True).fit(rows)
        away, near = fitted.detector_.kneighbors()
    reach = away[:, k - 1]
    density = 1.0 / (np.maximum(away, reach[near]).mean(axis=1) + DENSITY_EPS)
    return LocalOutlierFactor(scale, np.ascontiguousarray(rows.T), reach, density, k)
