"""One-class SVM: how little a row is like the training rows that bound the rest, by a Gaussian kernel.

Schoelkopf, Platt, Shawe-Taylor, Smola, Williamson: "Estimating the support of a high-dimensional
distribution", Neural Computation 13 (2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64

# So many rows at a time: the memory for their distances stays small.
ROWS = 256


@dataclass(frozen=True, slots=True)
class OneClassSVM:
    """``raw`` is PyOD's ``decision_function`` of the row in a call of its own, on robustly scaled columns.

    ``vectors`` (f, s) are the support vectors, ``weights`` (s,) theirs, ``offset`` (1,) is where the boundary
    lies, ``gamma`` (1,) the kernel's: exp(-gamma * squared distance).
    """

    backend: ClassVar[str] = "one_class_svm"
    scale: Scale
    vectors: F64
    weights: F64
    offset: F64
    gamma: F64

    def raw(self, x: F64) -> F64:
        """The score of each row of x, (m, f): above 0 outside of the boundary."""
        z = self.scale.of_rows(x)
        return np.concatenate([self._raw(z[at : at + ROWS]) for at in range(0, max(len(z), 1), ROWS)])

    def _raw(self, z: F64) -> F64:
        squared = np.zeros((len(z), len(self.weights)))
        for column in range(z.shape[1]):
            away = z[:, column : column + 1] - self.vectors[column]
            away *= away
            squared += away
        squared *= -self.gamma[0]
        alike = np.exp(squared)
        alike *= self.weights
        # A running sum is taken in order, whatever the shape: the same bits for a row alone and in a batch.
        out: F64 = self.offset[0] - np.add.accumulate(alike, axis=1)[:, -1]
        return out

    def contributions(self, x: F64) -> None:  # noqa: ARG002
        """None: the kernel is of columns together."""
        return

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {
            **self.scale.arrays(),
            "vectors": self.vectors,
            "weights": self.weights,
            "offset": self.offset,
            "gamma": self.gamma,
        }

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """The model that gave these arrays."""
        parts = (np.asarray(arrays[name], np.float64) for name in ("vectors", "weights", "offset", "gamma"))
        return cls(Scale.of(arrays), *parts)
