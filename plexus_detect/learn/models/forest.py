"""Isolation forest as complete binary trees in flat arrays, walked for all trees and rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.models.neighbours import scaled
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64, I64

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

# Rows walked at a time: what 100 trees need for them stays in the cache.
ROWS = 512

# The largest deviation that a 32-bit float takes.
AWAY_MAX = 3e38


def leaves(x: F32 | F64, feature: I32, threshold: F32 | F64) -> I64:
    """In which leaf of each of T complete trees each row of x, (m, f), ends: numbers from 0, (T, m).

    ``feature`` and ``threshold`` are of the inner nodes level by level, (T, 2**depth - 1): a row goes right
    where its value is larger than the threshold.
    """
    trees, inner = feature.shape
    values = np.ascontiguousarray(x).ravel()
    row = np.arange(len(x)) * x.shape[1]
    tree = (np.arange(trees) * inner)[:, None]
    node: I64 = np.zeros((trees, len(x)), np.int64)
    for _ in range(inner.bit_length()):
        at = tree + node
        right = values.take(feature.take(at) + row) > threshold.take(at)
        node *= 2
        node += 1
        node += right
    node -= inner
    return node


@dataclass(frozen=True)
class IsolationForest:
    """How soon random cuts separate a row from the others (Liu, Ting and Zhou 2008), with PyOD's offset.

    T trees of depth d: ``feature`` and ``threshold`` as in ``leaves``; ``length`` is the expected number of
    cuts by leaf, (T, 2**d); ``unit`` the sum over trees that gives the score 0.5. The trees compare 32-bit
    floats as scikit-learn's do, but of values in units of their column's deviation: a column of large numbers
    that vary little keeps its digits, one of tiny numbers is not taken for constant.
    """

    backend: ClassVar[str] = "isolation_forest"
    scale: Scale
    feature: I32
    threshold: F32
    length: F64
    unit: float
    offset: float

    @staticmethod
    def prepared(x: F64, scale: Scale) -> F32:
        """Rows as the trees compare them, (m, f)."""
        away = scaled(x, scale)
        return np.minimum(np.maximum(away, -AWAY_MAX), AWAY_MAX).astype(np.float32)

    def raw(self, x: F64) -> F64:
        """The anomaly score of each row of x, (m, f), less that of the training rows' contamination: (m,)."""
        rows = self.prepared(x, self.scale)
        tree = (np.arange(len(self.length)) * self.length.shape[1])[:, None]
        out = np.empty(len(rows))
        for a in range(0, len(rows), ROWS):
            cuts = self.length.take(tree + leaves(rows[a : a + ROWS], self.feature, self.threshold))
            # Added up tree by tree, whatever the number of rows.
            out[a : a + ROWS] = np.add.accumulate(cuts, axis=0)[-1]
        score: F64 = 2.0 ** -(out / self.unit) + self.offset
        return score

    def contributions(self, x: F64) -> F64 | None:  # noqa: ARG002
        """None: a depth is not a sum over columns."""
        return None

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {
            **self.scale.arrays(),
            "feature": self.feature,
            "threshold": self.threshold,
            "length": self.length,
            "line": np.array([self.unit, self.offset]),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> IsolationForest:
        """The model that gave these arrays."""
        line = np.asarray(arrays["line"], np.float64)
        return cls(
            Scale.of(arrays),
            np.asarray(arrays["feature"], np.int32),
            np.asarray(arrays["threshold"], np.float32),
            np.asarray(arrays["length"], np.float64),
            float(line[0]),
            float(line[1]),
        )
