"""MCD: the squared Mahalanobis distance of a row from the most compact part of the training rows.

Rousseeuw, Van Driessen: "A fast algorithm for the minimum covariance determinant estimator", Technometrics 41
(1999).
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
class Mcd:
    """``raw`` is PyOD's ``decision_function`` of the row in a call of its own, on robustly scaled columns.

    ``location`` (f,) is the centre and ``root`` (f, f) a factor of the precision: root @ root.T is the
    inverse covariance.
    """

    backend: ClassVar[str] = "mcd"
    scale: Scale
    location: F64
    root: F64

    def raw(self, x: F64) -> F64:
        """The squared distance of each row of x, (m, f); no unit, at least 0."""
        away = self.scale.of_rows(x) - self.location
        white = np.zeros(away.shape)
        # Column by column and not as a product of matrices, whose bits depend on the number of rows.
        for column in range(away.shape[1]):
            white += away[:, column : column + 1] * self.root[column]
        white *= white
        out: F64 = np.add.accumulate(white, axis=1)[:, -1]
        return out

    def contributions(self, x: F64) -> None:  # noqa: ARG002
        """None: the distance is of columns together."""
        return

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {**self.scale.arrays(), "location": self.location, "root": self.root}

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """The model that gave these arrays."""
        location, root = (np.asarray(arrays[name], np.float64) for name in ("location", "root"))
        return cls(Scale.of(arrays), location, root)
