"""Fitting ECOD: the training columns in order are the model, so neither PyOD nor its compiler is needed."""

from __future__ import annotations

from plexus_detect.learn.models.ecod import Ecod, ranks_of
from plexus_detect.series import F64


def fit_ecod(x: F64, contamination: float, seed: int) -> Ecod:  # noqa: ARG001
    """ECOD of rows x, (n, f), n >= 2 and finite. It has no parameter and nothing random."""
    return Ecod(ranks_of(x))
