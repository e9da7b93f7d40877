"""HBOS: how rare the histogram bin of each value of a row is, as a logarithm, summed over the columns.

Goldstein, Dengel: "Histogram-based outlier score (HBOS): a fast unsupervised anomaly detection algorithm",
KI 2012, as PyOD has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64


@dataclass(frozen=True, slots=True)
class Hbos:
    """``raw`` is PyOD's ``decision_function`` of the row in a call of its own, on columns brought to 0..1.

    Only a column that never moved is another matter: here it adds the same to every row.

    ``cuts`` are where the score of a column changes, (f, b + 1) for b bins: the lower end of what counts as
    the first bin, the edges between bins, the upper end of the last. ``bits`` are the scores, (f, b + 2):
    ``bits[j, i]`` above ``cuts[j, i - 1]`` and up to ``cuts[j, i]``; the first and the last are of what lies
    outside: the rarest bin's, as in PyOD.
    """

    backend: ClassVar[str] = "hbos"
    scale: Scale
    cuts: F64
    bits: F64

    def raw(self, x: F64) -> F64:
        """The score of each row of x, (m, f), in bits; below 0 where bins are denser than an even spread."""
        z = self.scale.of_rows(x)
        total = np.zeros(len(x))
        for column in range(x.shape[1]):
            total += self._bits(z, column)
        return total

    def contributions(self, x: F64) -> F64:
        """By how many bits each value's bin is rarer than the fullest of its column, (m, f).

        A row's add up to ``raw`` less a constant of the model: the score of the fullest bins.
        """
        z, least = self.scale.of_rows(x), self.bits.min(axis=1)
        return np.stack([self._bits(z, column) - least[column] for column in range(x.shape[1])], axis=1)

    def _bits(self, z: F64, column: int) -> F64:
        out: F64 = self.bits[column][self.cuts[column].searchsorted(z[:, column], "left")]
        return out

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {**self.scale.arrays(), "cuts": self.cuts, "bits": self.bits}

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """The model that gave these arrays."""
        cuts, bits = (np.asarray(arrays[name], np.float64) for name in ("cuts", "bits"))
        return cls(Scale.of(arrays), cuts, bits)
