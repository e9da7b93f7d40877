"""Three models as one: the mean of their standardised scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import under
from plexus_detect.learn.model import Arrays
from plexus_detect.learn.models.copod import Copod
from plexus_detect.learn.models.forest import IsolationForest
from plexus_detect.learn.models.hbos import Hbos
from plexus_detect.series import F64


@dataclass(frozen=True)
class Suod:
    """The documented suod (Zhao et al. 2021): isolation_forest, hbos and copod, averaged after each score is
    centred on its mean in the training rows and divided by its standard deviation there.

    ``mean`` and ``std`` are those of the parts' scores, (3,). The arrays of the parts are named by part, as
    ``forest_...``, ``hbos_...`` and ``copod_...``.
    """

    backend: ClassVar[str] = "suod"
    forest: IsolationForest
    hbos: Hbos
    copod: Copod
    mean: F64
    std: F64

    def raw(self, x: F64) -> F64:
        """The mean standardised score of each row of x, (m, f): 0 for what scores as usual, (m,)."""
        total = np.zeros(len(x))
        scores = self.forest.raw(x), self.hbos.raw(x), self.copod.raw(x)
        for score, mean, std in zip(scores, self.mean, self.std, strict=True):
            total += (score - mean) / std
        return total / 3.0

    def contributions(self, x: F64) -> F64 | None:  # noqa: ARG002
        """None: one of the parts is no sum over columns."""
        return None

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        out: dict[str, npt.NDArray[np.generic]] = {"mean": self.mean, "std": self.std}
        out |= {"forest_" + name: array for name, array in self.forest.arrays().items()}
        out |= {"hbos_" + name: array for name, array in self.hbos.arrays().items()}
        return out | {"copod_" + name: array for name, array in self.copod.arrays().items()}

    @classmethod
    def of(cls, arrays: Arrays) -> Suod:
        """The model that gave these arrays."""
        return cls(
            IsolationForest.of(under(arrays, "forest_")),
            Hbos.of(under(arrays, "hbos_")),
            Copod.of(under(arrays, "copod_")),
            np.asarray(arrays["mean"], np.float64),
            np.asarray(arrays["std"], np.float64),
        )
