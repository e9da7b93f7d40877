"""COPOD: like ECOD, but the tail that counts is the one to which a column is skewed.

Li, Zhao, Botta, Ionescu, Hu: "COPOD: copula-based outlier detection", ICDM 2020, as PyOD has it: column by
column the larger of the skewed side's tail and the mean of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.models.ecod import Ranks
from plexus_detect.series import F64


@dataclass(frozen=True, slots=True)
class Copod:
    """Each row is ranked in the training rows and itself, never with the other rows of a call.

    ``raw`` is what PyOD's ``decision_function`` gives for that row in a call of its own: the skewness too is
    that of the training rows and this one, so that a value far out decides itself which side counts. PyOD's
    answer for several rows mixes them (PyOD issue 401). Only where the skewness is zero but for rounding may
    the two take different sides.

    ``moments`` are of each column, (4, f): mean, a unit (a power of two, so that dividing by it rounds
    nothing), and the sums of the squares and of the cubes of (value - mean) / unit.
    """

    backend: ClassVar[str] = "copod"
    ranks: Ranks
    moments: F64

    def raw(self, x: F64) -> F64:
        """The score of each row of x, (m, f): nats, at least 0."""
        # A running sum is taken in order, whatever the shape: the same bits for a row alone and in a batch.
        out: F64 = np.add.accumulate(self.contributions(x), axis=1)[:, -1]
        return out

    def contributions(self, x: F64) -> F64:
        """The nats of each value, (m, f); a row's add up to ``raw``."""
        left, right = np.empty(x.shape), np.empty(x.shape)
        for column in range(x.shape[1]):
            at_most, at_least = self.ranks.of(x, column)
            left[:, column] = self.ranks.nats[at_most]
            right[:, column] = self.ranks.nats[at_least]
        both, skew = left + right, self._third_moment(x)
        side = np.where(skew < 0.0, left, np.where(skew > 0.0, right, both))
        out: F64 = np.maximum(side, both / 2.0)
        return out

    def _third_moment(self, x: F64) -> F64:
        """The sum of cubes once each value has joined its column: its sign is that of the skewness.

        Terriberry's update of central moments by one value (2007).
        """
        n = self.ranks.ordered.shape[1]
        mean, unit, squares, cubes = self.moments
        away = (x - mean) / unit
        out: F64 = cubes + away * (n * (n - 1) / (n + 1) ** 2 * (away * away) - 3.0 / (n + 1) * squares)
        return out

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {"ordered": self.ranks.ordered, "nats": self.ranks.nats, "moments": self.moments}

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """The model that gave these arrays."""
        ordered, nats, moments = (
            np.asarray(arrays[name], np.float64) for name in ("ordered", "nats", "moments")
        )
        return cls(Ranks(ordered, nats), moments)
