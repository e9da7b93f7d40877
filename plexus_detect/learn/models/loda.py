"""LODA: random projections of a row, each looked up in a histogram of its own; the mean of the logarithms.

Pevny: "Loda: lightweight on-line detector of anomalies", Machine Learning 102 (2016), as PyOD has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64

# So many rows at a time: their projections stay in the processor's cache.
ROWS = 512


@dataclass(frozen=True, slots=True)
class Loda:
    """``raw`` is PyOD's ``decision_function`` of the row in a call of its own, on robustly scaled columns.

    ``weights`` (f, k) make k projections; ``limits`` (b - 1, k) are the values beyond which a projection is
    in the next entry of ``nats`` (b, k), which already is divided by the square of k, as in PyOD.
    """

    backend: ClassVar[str] = "loda"
    scale: Scale
    weights: F64
    limits: F64
    nats: F64

    def raw(self, x: F64) -> F64:
        """The score of each row of x, (m, f)."""
        z = self.scale.of_rows(x)
        return np.concatenate([self._raw(z[at : at + ROWS]) for at in range(0, max(len(z), 1), ROWS)])

    def _raw(self, z: F64) -> F64:
        projected = z[:, :1] * self.weights[0]
        for column in range(1, z.shape[1]):
            projected += z[:, column : column + 1] * self.weights[column]
        entry = np.zeros(projected.shape, np.intp)
        for limit in self.limits:
            entry += projected > limit
        nats = self.nats[entry, np.arange(projected.shape[1])]
        # A running sum is taken in order, whatever the shape: the same bits for a row alone and in a batch.
        out: F64 = np.add.accumulate(nats, axis=1)[:, -1]
        return out

    def contributions(self, x: F64) -> None:  # noqa: ARG002
        """None: a projection mixes columns."""
        return

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {**self.scale.arrays(), "weights": self.weights, "limits": self.limits, "nats": self.nats}

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """The model that gave these arrays."""
        weights, limits, nats = (
            np.asarray(arrays[name], np.float64) for name in ("weights", "limits", "nats")
        )
        return cls(Scale.of(arrays), weights, limits, nats)
