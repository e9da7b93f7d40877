"""Scores by distance to the nearest large cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.models.neighbours import chunks, scaled, squares
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64, Bool


@dataclass(frozen=True)
class Cblof:
    """Distance, in deviations, to the centre of a row's cluster, or, where that cluster is small, to the
    nearest centre of a large one (He, Xu and Deng 2003, unweighted as in PyOD).

    ``columns`` are the c centres by column, (f, c), scaled; ``large`` says which clusters are large, (c,).
    """

    backend: ClassVar[str] = "cblof"
    scale: Scale
    columns: F64
    large: Bool

    def raw(self, x: F64) -> F64:
        """Distance of each row of x, (m, f), to the centre that counts for it, (m,)."""
        rows = scaled(x, self.scale)
        out = np.empty(len(rows))
        for part in chunks(len(rows), len(self.large)):
            away = squares(rows[part], self.columns)
            mine = away.argmin(axis=1)
            out[part] = np.where(self.large[mine], away.min(axis=1), away[:, self.large].min(axis=1))
        return np.sqrt(out)

    def contributions(self, x: F64) -> F64 | None:  # noqa: ARG002
        """None: a distance is not a sum over columns."""
        return None

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {**self.scale.arrays(), "columns": self.columns, "large": self.large}

    @classmethod
    def of(cls, arrays: Arrays) -> Cblof:
        """The model that gave these arrays."""
        columns = np.asarray(arrays["columns"], np.float64)
        return cls(Scale.of(arrays), columns, np.asarray(arrays["large"], np.bool_))
