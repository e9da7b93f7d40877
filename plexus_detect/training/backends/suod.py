"""Fitting suod from the documented parts.

PyOD's class of that name needs a package of its own (with plotting and tables) whose work is to spread fits
over processes. Three small fits need none of that: the combination itself is made here, and seeded.
"""

from __future__ import annotations

import numpy as np

from plexus_detect.learn.models.suod import Suod
from plexus_detect.series import F64
from plexus_detect.training.backends.copod import fit_copod
from plexus_detect.training.backends.forest import fit_isolation_forest
from plexus_detect.training.backends.hbos import fit_hbos


def fit_suod(x: F64, contamination: float, seed: int) -> Suod:
    """suod of rows x, (n, f). Raises FitError."""
    forest = fit_isolation_forest(x, contamination, seed)
    hbos, copod = fit_hbos(x, contamination, seed), fit_copod(x, contamination, seed)
    scores = np.stack([part.raw(x) for part in (forest, hbos, copod)])
    flat = np.ptp(scores, axis=1) == 0.0
    return Suod(forest, hbos, copod, scores.mean(axis=1), np.where(flat, 1.0, scores.std(axis=1)))
