"""State in columns: named arrays with one entry a series, which grow, go into a snapshot and come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt


class Column(NamedTuple):
    """What a column holds before anything is known; ``shape`` is that of one series. With ``wide`` the series
    are the last axis, so that what all series have in common lies together."""

    fill: float = 0.0
    shape: tuple[int, ...] = ()
    dtype: type = np.float64
    wide: bool = False

    def made(self, n: int) -> npt.NDArray[np.generic]:
        """The column of ``n`` series that know nothing."""
        return np.full((*self.shape, n) if self.wide else (n, *self.shape), self.fill, self.dtype)


class Columns:
    """Attributes named in ``COLUMNS`` are arrays; in a snapshot the series are always the first axis."""

    COLUMNS: ClassVar[Mapping[str, Column]] = {}

    def __init__(self) -> None:
        for name, column in self.COLUMNS.items():
            setattr(self, name, column.made(0))

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones know nothing yet."""
        for name, column in self.COLUMNS.items():
            old, new = getattr(self, name), column.made(n)
            if column.wide:
                new[..., : old.shape[-1]] = old
            else:
                new[: len(old)] = old
            setattr(self, name, new)

    def dump(self, prefix: str = "") -> dict[str, npt.NDArray[np.generic]]:
        """Every column by name, for a snapshot."""
        return {
            prefix + name: np.moveaxis(getattr(self, name), -1, 0) if column.wide else getattr(self, name)
            for name, column in self.COLUMNS.items()
        }

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]], prefix: str = "") -> None:
        """Take over what ``dump`` gave."""
        for name, column in self.COLUMNS.items():
            held = columns[prefix + name]
            setattr(self, name, np.moveaxis(held, 0, -1).copy("C") if column.wide else held.copy())
