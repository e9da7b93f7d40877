"""Fitting cblof: PyOD's clusters, large and small, by k-means."""

from __future__ import annotations

import numpy as np

from plexus_detect.learn.models.cblof import Cblof
from plexus_detect.series import F64
from plexus_detect.training.backends.neighbours import fitting, without_unit

CLUSTERS = 8
STARTS = 3

# A cluster of fewer rows than this, on average, is noise.
ROWS_PER_CLUSTER = 5


def fit_cblof(x: F64, contamination: float, seed: int) -> Cblof:
    """cblof of rows x, (n, f), with up to 8 clusters. Raises FitError.

    Where PyOD finds no line between large and small clusters (it refuses then), all of them are large.
    """
    scale, rows = without_unit(x)
    clusters = max(1, min(CLUSTERS, len(rows) // ROWS_PER_CLUSTER, len(np.unique(rows, axis=0))))
    with fitting("cblof"):
        from pyod.models.cblof import CBLOF
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        class Quick(CBLOF):  # type: ignore[misc]
            """Without the training rows' scores, for which PyOD starts a compiler that takes seconds."""

            def _decision_function(self, X: F64, labels: object) -> F64:  # noqa: ARG002, N803
                return np.zeros(len(X))

        means = KMeans(clusters, n_init=STARTS, random_state=seed)
        fitted = Quick(clusters, contamination, means, random_state=seed)
        # The sums of k-means have other last bits with other numbers of threads.
        with threadpool_limits(1):
            try:
                fitted.fit(rows)
                small = fitted.small_cluster_labels_
            except ValueError as error:
                if "valid cluster separation" not in str(error):
                    raise
                small = []
    large = np.ones(clusters, np.bool_)
    large[small] = False
    return Cblof(scale, np.ascontiguousarray(means.cluster_centers_.T), large)
