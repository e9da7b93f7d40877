"""Half-space trees: a model that goes on learning with every row, at a cost that never grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.models.forest import I32, leaves
from plexus_detect.series import F64, I64

# Rows walked at a time.
ROWS = 2048


@dataclass
class HalfSpaceTrees:
    """How few rows of the last full window share a row's cells (Tan, Ting and Liu 2011, as in river): 0 to 1.

    Rows are brought into 0..1 by ``low`` and ``span``, (f,), and held there. T complete trees as in
    ``leaves``; their cells never change. ``mass`` counts by leaf the rows of the last full window, ``latest``
    those of the window being filled, both (T, 2**depth), of which ``count`` have come; after ``window`` rows
    the latest becomes the mass. The only model here that changes: ``update`` is called by one thread, which
    also scores.
    """

    backend: ClassVar[str] = "half_space_trees"
    online: ClassVar[bool] = True
    low: F64
    span: F64
    feature: I32
    threshold: F64
    mass: I64
    latest: I64
    window: int
    count: int

    def __post_init__(self) -> None:
        self._points = self._of_leaves()

    @staticmethod
    def prepared(x: F64, low: F64, span: F64) -> F64:
        """Rows as the trees compare them, (m, f), from 0 to 1."""
        with np.errstate(over="ignore"):
            part: F64 = np.minimum(np.maximum((x - low) / span, 0.0), 1.0)
        return part

    def raw(self, x: F64) -> F64:
        """1 less the share of mass around each row of x, (m, f): near 1 where no row was, (m,)."""
        rows = self.prepared(x, self.low, self.span)
        trees, cells = self.mass.shape
        tree = (np.arange(trees) * cells)[:, None]
        out = np.empty(len(rows))
        for a in range(0, len(rows), ROWS):
            cell = leaves(rows[a : a + ROWS], self.feature, self.threshold)
            # Whole numbers: their sum is exact in any order.
            out[a : a + ROWS] = self._points.take(tree + cell).sum(axis=0)
        most = trees * self.window * (2 * cells - 1)
        score: F64 = 1.0 - out / most
        return score

    def update(self, x: F64) -> None:
        """Learn rows x, (m, f), one after another."""
        rows = self.prepared(x, self.low, self.span)
        trees, cells = self.mass.shape
        tree = (np.arange(trees) * cells)[:, None]
        while len(rows):
            now, rows = np.split(rows, [min(ROWS, self.window - self.count)])
            at = (tree + leaves(now, self.feature, self.threshold)).ravel()
            np.add.at(self.latest.reshape(-1), at, 1)
            self.count += len(now)
            if self.count == self.window:
                self.mass, self.latest, self.count = self.latest, np.zeros_like(self.latest), 0
                self._points = self._of_leaves()

    def _of_leaves(self) -> I64:
        """What a row gets for ending in each leaf, (T, 2**depth): the mass of every node on its way times
        2**level, down to the first with less than a tenth of the window (the paper's limit)."""
        levels = [self.mass]
        while levels[0].shape[1] > 1:
            levels.insert(0, levels[0][:, 0::2] + levels[0][:, 1::2])
        points = np.zeros_like(levels[0])
        going = np.ones_like(levels[0], np.bool_)
        for level, mass in enumerate(levels):
            if level:
                points, going = np.repeat(points, 2, axis=1), np.repeat(going, 2, axis=1)
            points = points + going * mass * 2**level
            going = going & (mass >= 0.1 * self.window)
        return points

    def contributions(self, x: F64) -> F64 | None:  # noqa: ARG002
        """None: a mass is not a sum over columns."""
        return None

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs to go on exactly from here; a copy, as the masses go on changing."""
        return {
            "low": self.low,
            "span": self.span,
            "feature": self.feature,
            "threshold": self.threshold,
            "mass": self.mass.copy(),
            "latest": self.latest.copy(),
            "counts": np.array([self.window, self.count]),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> HalfSpaceTrees:
        """The model that gave these arrays; it changes none of them."""
        window, count = np.asarray(arrays["counts"], np.int64).tolist()
        low, span, threshold = (np.asarray(arrays[name], np.float64) for name in ("low", "span", "threshold"))
        mass, latest = (np.array(arrays[name], np.int64) for name in ("mass", "latest"))
        return cls(low, span, np.asarray(arrays["feature"], np.int32), threshold, mass, latest, window, count)
