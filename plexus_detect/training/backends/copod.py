"""Fitting COPOD: the training columns in order and their moments; neither PyOD nor its compiler is needed."""

from __future__ import annotations

import numpy as np

from plexus_detect.learn.models.copod import Copod
from plexus_detect.learn.models.ecod import ranks_of
from plexus_detect.series import F64


def fit_copod(x: F64, contamination: float, seed: int) -> Copod:  # noqa: ARG001
    """COPOD of rows x, (n, f), n >= 2 and finite. It has no parameter and nothing random."""
    flat = np.ptp(x, axis=0) == 0.0
    mean = np.where(flat, x[0], x.mean(axis=0))
    away = x - mean
    unit = np.ldexp(1.0, np.frexp(np.abs(away).max(axis=0))[1])
    away /= unit
    squares = away * away
    moments = np.stack([mean, unit, squares.sum(axis=0), (squares * away).sum(axis=0)])
    return Copod(ranks_of(x), moments)
