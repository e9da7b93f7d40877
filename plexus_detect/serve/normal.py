"""Scores of batch models: a backend's own score on one of the three documented scales."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from plexus_detect.series import F64

NORMALIZATIONS = ("standardization", "zscore", "raw")


@dataclass(frozen=True)
class Scale:
    """What the training scores were like: median, spread (interquartile range, or the deviation where that is
    0), mean and deviation, and on each scale the score that the share ``contamination`` of them is above."""

    median: float
    spread: float
    mean: float
    deviation: float
    thresholds: dict[str, float]

    @staticmethod
    def of(raw: F64, contamination: float) -> Scale:
        """The scale of training scores, (n,), finite."""
        low, median, high = np.percentile(raw, [25.0, 50.0, 75.0])
        deviation = float(raw.std()) or 1.0
        bare = Scale(float(median), float(high - low) or deviation, float(raw.mean()), deviation, {})
        percent = 100.0 * (1.0 - contamination)
        thresholds = {name: float(np.percentile(bare.scores(raw, name), percent)) for name in NORMALIZATIONS}
        return Scale(bare.median, bare.spread, bare.mean, bare.deviation, thresholds)

    def scores(self, raw: F64, normalization: str) -> F64:
        """Scores (m,) on a scale: standardization is a logistic curve around the median, 0..1; zscore counts
        deviations from the mean; raw is the backend's own."""
        if normalization == "raw":
            return raw
        if normalization == "zscore":
            return (raw - self.mean) / self.deviation
        away = np.clip((raw - self.median) / (2.0 * self.spread), -700.0, 700.0)
        scores: F64 = 1.0 / (1.0 + np.exp(-away))
        return scores

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)
