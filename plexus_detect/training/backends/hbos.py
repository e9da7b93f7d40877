"""Fitting HBOS: the histograms that PyOD makes are NumPy's, and are made here without its compiler.

PyOD's own fit scores the training rows too, in a loop whose compilation takes seconds in every new process.
"""

from __future__ import annotations

import numpy as np

from plexus_detect.learn.models.hbos import Hbos
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64

# PyOD's defaults: bins of a column, what an empty one counts as in units of an even spread, and the part of a
# bin by which a value outside of the histogram still counts as in it.
BINS, ALPHA, TOLERANCE = 10, 0.1, 0.5


def fit_hbos(x: F64, contamination: float, seed: int) -> Hbos:  # noqa: ARG001
    """HBOS of rows x, (n, f), n >= 2 and finite, with 10 bins a column. Nothing is random.

    ``ALPHA`` is added to a density, which has the unit of 1 / column: without scaling, a column of large
    numbers would say nothing at all and one of small numbers everything.
    """
    low, span = x.min(axis=0), np.ptp(x, axis=0)
    scale = Scale(low, np.where(span > 0.0, span, 1.0))
    z = scale.of_rows(x)
    cuts = np.empty((x.shape[1], BINS + 1))
    bits = np.empty((x.shape[1], BINS + 2))
    for j in range(x.shape[1]):
        density, edges = np.histogram(z[:, j], bins=BINS, density=True)
        score = -np.log2(density + ALPHA)
        bits[j] = score.max()
        # A column that never moved says nothing: its one value is on an edge, beside the bin that counts it.
        if span[j] > 0.0:
            bits[j, 1:-1] = score
        cuts[j] = edges
        # A cut belongs to what is below it, but the lower end is inside: it stands one step lower.
        cuts[j, 0] = np.nextafter(edges[0] - (edges[1] - edges[0]) * TOLERANCE, -np.inf)
        cuts[j, -1] = edges[-1] + (edges[-1] - edges[-2]) * TOLERANCE
    return Hbos(scale, cuts, bits)
