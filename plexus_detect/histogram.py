"""Durations counted by bucket, as Prometheus wants them; whole columns at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plexus_detect.series import F64


class Histogram:
    """Counts of durations by bucket, each up to and including one of ``bounds_s``, and their sum."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = tuple(bounds_s)
        self.counts = np.zeros(len(self.bounds_s) + 1, np.int64)
        self.sum_s = 0.0

    def add(self, s: float | F64) -> None:
        """Count one duration or a column of them; less than nothing (a clock that is ahead) counts as 0."""
        column = np.maximum(np.atleast_1d(s), 0.0)
        bucket = np.searchsorted(self.bounds_s, column)
        self.counts += np.bincount(bucket, minlength=len(self.counts))
        self.sum_s += float(column.sum())

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, durations up to there) in the order and the words of the text format."""
        bounds = [*map(str, self.bounds_s), "+Inf"]
        return list(zip(bounds, map(float, np.cumsum(self.counts).tolist()), strict=True))
