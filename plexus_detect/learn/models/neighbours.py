"""Scores by distance to the nearest rows of the training window: knn and local_outlier_factor.

Distances are brute force, column by column in a fixed order, so that a row's bits never depend on its company
(a matrix product's may). All columns are in units of their own deviation first: without that the column with
the largest numbers is the only one that counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64, I64

# Deviations beyond this say nothing more; their squares stay finite.
AWAY_MAX = 1e100

# So many distances are in memory at a time: 2 MiB, about what a cache holds.
DISTANCES = 1 << 18

# Added to a mean distance so that duplicates have a density (scikit-learn's constant).
DENSITY_EPS = 1e-10


def scaled(x: F64, scale: Scale) -> F64:
    """Rows x, (m, f), without unit, always finite."""
    with np.errstate(over="ignore"):
        away = scale.of_rows(x)
    return np.minimum(np.maximum(away, -AWAY_MAX), AWAY_MAX)


def squares(x: F64, columns: F64) -> F64:
    """Squared distances (m, n) of rows x, (m, f), to the n rows whose f columns are given, (f, n)."""
    total = np.zeros((len(x), columns.shape[1]))
    for j, column in enumerate(columns):
        away = x[:, j, None] - column
        away *= away
        total += away
    return total


def chunks(m: int, n: int) -> Iterator[slice]:
    """Parts of m rows, each with at most DISTANCES distances to n others, or one row."""
    step = max(1, DISTANCES // n)
    return (slice(a, a + step) for a in range(0, m, step))


@dataclass(frozen=True)
class Knn:
    """The distance to the k-th nearest training row (Ramaswamy, Rastogi and Shim 2000), in deviations.

    ``columns`` are the training rows by column, (f, n), scaled.
    """

    backend: ClassVar[str] = "knn"
    scale: Scale
    columns: F64
    k: int

    def raw(self, x: F64) -> F64:
        """Distance of each row of x, (m, f), to its k-th nearest training row, (m,)."""
        rows = scaled(x, self.scale)
        out = np.empty(len(rows))
        for part in chunks(len(rows), self.columns.shape[1]):
            near = squares(rows[part], self.columns)
            near.partition(self.k - 1, axis=1)
            out[part] = near[:, self.k - 1]
        return np.sqrt(out)

    def contributions(self, x: F64) -> F64 | None:  # noqa: ARG002
        """None: a distance is not a sum over columns."""
        return None

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {**self.scale.arrays(), "columns": self.columns, "k": np.array([self.k])}

    @classmethod
    def of(cls, arrays: Arrays) -> Knn:
        """The model that gave these arrays."""
        return cls(Scale.of(arrays), np.asarray(arrays["columns"], np.float64), int(arrays["k"][0]))


@dataclass(frozen=True)
class LocalOutlierFactor:
    """How much sparser a row's surroundings are than its k neighbours' (Breunig et al. 2000); about 1 inside.

    ``columns`` are the training rows by column, (f, n), scaled; ``reach`` is each training row's distance to
    its own k-th neighbour, ``density`` its local reachability density, both (n,).
    """

    backend: ClassVar[str] = "local_outlier_factor"
    scale: Scale
    columns: F64
    reach: F64
    density: F64
    k: int

    def raw(self, x: F64) -> F64:
        """The local outlier factor of each row of x, (m, f), among the training rows, (m,)."""
        rows = scaled(x, self.scale)
        out = np.empty(len(rows))
        for part in chunks(len(rows), self.columns.shape[1]):
            away = squares(rows[part], self.columns)
            near = nearest(away, self.k)
            distance = np.sqrt(np.take_along_axis(away, near, axis=1))
            mine = 1.0 / (_mean(np.maximum(distance, self.reach[near])) + DENSITY_EPS)
            out[part] = _mean(self.density[near] / mine[:, None])
        return out

    def contributions(self, x: F64) -> F64 | None:  # noqa: ARG002
        """None: a ratio of densities is not a sum over columns."""
        return None

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {
            **self.scale.arrays(),
            "columns": self.columns,
            "reach": self.reach,
            "density": self.density,
            "k": np.array([self.k]),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> LocalOutlierFactor:
        """The model that gave these arrays."""
        columns, reach, density = (
            np.asarray(arrays[name], np.float64) for name in ("columns", "reach", "density")
        )
        return cls(Scale.of(arrays), columns, reach, density, int(arrays["k"][0]))


def nearest(away: F64, k: int) -> I64:
    """Places of the k smallest of each row of ``away``, (m, n), in ascending order of place, (m, k).

    Of several that are equally far the first ones are taken: which ones a partition would take depends on
    the processor it runs on.
    """
    near: I64 = np.argpartition(away, k - 1, axis=1)[:, :k]
    edge = np.take_along_axis(away, near[:, k - 1 :], axis=1)
    for row in np.flatnonzero((away <= edge).sum(axis=1) > k):
        near[row] = np.argsort(away[row], kind="stable")[:k]
    near.sort(axis=1)
    return near


def _mean(x: F64) -> F64:
    """The mean of each row, added up from left to right whatever the number of rows."""
    total: F64 = np.add.accumulate(x, axis=1)[:, -1]
    mean: F64 = total / x.shape[1]
    return mean
