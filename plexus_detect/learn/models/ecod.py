"""ECOD: how far out in its own column each value of a row is, as the logarithm of a tail's share, summed.

Li, Zhao, Hu, Botta, Ionescu, Chen: "ECOD: unsupervised outlier detection using empirical cumulative
distribution functions", IEEE TKDE 35 (2022), as PyOD has it: the larger of the two tails, column by column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.series import F64, I64


@dataclass(frozen=True, slots=True)
class Ranks:
    """The training values of each of f columns in ascending order, (f, n), and the nats of a tail, (n + 1,):
    ``nats[k]`` is -log((k + 1) / (n + 1)) of a tail with k of the n values and the row itself."""

    ordered: F64
    nats: F64

    def of(self, x: F64, column: int) -> tuple[I64, I64]:
        """How many training values are at or below each value of a column of x, and how many at or above."""
        ordered, values = self.ordered[column], x[:, column]
        at_most = ordered.searchsorted(values, "right")
        return at_most, len(ordered) - ordered.searchsorted(values, "left")


def ranks_of(x: F64) -> Ranks:
    """The ranks of rows x, (n, f)."""
    n = len(x)
    return Ranks(np.ascontiguousarray(np.sort(x, axis=0).T), -np.log(np.arange(1, n + 2) / (n + 1)))


@dataclass(frozen=True, slots=True)
class Ecod:
    """Each row is ranked in the training rows and itself, never with the other rows of a call.

    ``raw`` is what PyOD's ``decision_function`` gives for that row in a call of its own, to rounding. PyOD's
    answer for several rows ranks them with each other too, so it is another one (PyOD issue 401). The
    one difference: where a column and the row's value in it are exactly symmetric (skewness 0) PyOD takes the
    sum of both tails instead of the larger; neither the paper nor this does.
    """

    backend: ClassVar[str] = "ecod"
    ranks: Ranks

    def raw(self, x: F64) -> F64:
        """The score of each row of x, (m, f): nats, at least 0."""
        total = np.zeros(len(x))
        for column in range(x.shape[1]):
            total += self._nats(x, column)
        return total

    def contributions(self, x: F64) -> F64:
        """The nats of each value, (m, f); a row's add up to ``raw``."""
        return np.stack([self._nats(x, column) for column in range(x.shape[1])], axis=1)

    def _nats(self, x: F64, column: int) -> F64:
        at_most, at_least = self.ranks.of(x, column)
        return self.ranks.nats[np.minimum(at_most, at_least)]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {"ordered": self.ranks.ordered, "nats": self.ranks.nats}

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """The model that gave these arrays."""
        return cls(Ranks(np.asarray(arrays["ordered"], np.float64), np.asarray(arrays["nats"], np.float64)))
