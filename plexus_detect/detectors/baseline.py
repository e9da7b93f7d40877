"""What a baseline is for the detectors of ``guarded``: a bank of summaries of the points accepted so far."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Snapshot
from plexus_detect.series import F64, I64, Bool, Rows


class Level(Protocol):
    """What baselines say, aligned columns: how many points they are of, and how far a value is from them."""

    @property
    def n(self) -> F64:
        """Number of points learned."""
        ...

    def take(self, at: Rows) -> Level:
        """Those at these positions."""
        ...

    def place(self) -> tuple[F64, F64]:
        """(origin, centre relative to it): x - centre is computed as (x - origin) - the second."""
        ...

    def deviation(self, x: F64) -> tuple[F64, F64, F64]:
        """(x - centre, centre, spread)."""
        ...


class Ahead(Protocol):
    """What a run of m pushes to one baseline would do: true up to and with the first loss only."""

    @property
    def before(self) -> Level:
        """The baseline before each push and after the last: m + 1 entries."""
        ...

    @property
    def lost(self) -> Bool:
        """After which pushes the baseline would be computed anew."""
        ...


A = TypeVar("A", bound=Ahead)


class Baseline(Protocol[A]):
    """A bank of baselines, one row a series."""

    count: F64

    def __len__(self) -> int: ...

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones are empty."""
        ...

    def sums(self, rows: Rows) -> Level:
        """These rows as they are now."""
        ...

    def push(self, rows: Rows, x: F64, accept: Bool) -> None:
        """Add a value to each of the (distinct) rows that accept it."""
        ...

    def ahead(self, row: int, x: F64) -> A:
        """What pushing these values to one row would do."""
        ...

    def until_rebase(self, row: int) -> int:
        """The most values that ``ahead`` may be asked about."""
        ...

    def commit(self, row: int, ahead: A, m: int) -> None:
        """Make the first ``m`` pushes true."""
        ...

    def clear(self, rows: I64) -> None:
        """Forget everything of these rows."""
        ...

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns."""
        ...

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave."""
        ...


class Ring(Baseline[A], Protocol[A]):
    """Baselines of the newest points, each of so many as it is told."""

    limit: I64

    def resize(self, rows: I64, limit: I64) -> None:
        """Let these rows be of ``limit`` points; they must not have learned more since they were empty."""
        ...
