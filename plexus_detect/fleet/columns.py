"""Named columns of state, one row a source or a group, that grow, are dumped and loaded together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.series import I64
from plexus_detect.stats import grown

Dumped = Mapping[str, npt.NDArray[np.generic]]


class Column(NamedTuple):
    """Type, what a new row holds, and the shape of a row."""

    dtype: type
    fill: float = 0
    shape: tuple[int, ...] = ()


class Columns:
    """State by the names of ``spec``, each an attribute of shape (rows, ...)."""

    spec: ClassVar[Mapping[str, Column]]

    def __init__(self) -> None:
        for name, column in self.spec.items():
            setattr(self, name, np.full((0, *column.shape), column.fill, column.dtype))

    def grow(self, n: int) -> None:
        """Room for ``n`` rows; the new ones know nothing."""
        for name, column in self.spec.items():
            setattr(self, name, grown(getattr(self, name), n, column.fill))

    def forget(self, rows: I64) -> None:
        """Make these rows as they were at first."""
        for name, column in self.spec.items():
            getattr(self, name)[rows] = column.fill

    def save(self, n: int, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
        """The first ``n`` rows of every column, by ``prefix`` and name."""
        return {prefix + name: getattr(self, name)[:n] for name in self.spec}

    def restore(self, columns: Dumped, prefix: str) -> None:
        """Take over what ``save`` gave."""
        for name in self.spec:
            setattr(self, name, columns[prefix + name].copy())
