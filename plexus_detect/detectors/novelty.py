"""The check of values never seen: how far a value is outside the range of the past, in units of its width.

The range widens by at most half of itself a pane, so that one wild value does not make all others normal, and
narrows slowly, so that it follows the series. Records of a stationary series become rare by themselves: the
n-th value is one with probability 1/n (Renyi, 1962).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.detectors.checks import Block, Pane, Part, Reading
from plexus_detect.series import F64, I64, Reason

FIRST_PANES, WIDEN_MAX, NARROW = 4, 0.5, 0.0005


class Novelty(Columns):
    """The check novel value."""

    COLUMNS: ClassVar[Mapping[str, Column]] = {
        "low": Column(fill=-np.inf),
        "high": Column(fill=np.inf),
        "middle": Column(),
        "width": Column(fill=np.inf),
    }
    parts = (
        Part(
            Reason.NOVEL,
            "the value against the nearest end of the range of the past",
            floor=0.25,
            weight=0.6,
            fades=False,
        ),
    )
    low: F64
    high: F64
    middle: F64
    width: F64

    def read(self, block: Block) -> list[Reading]:
        """The distance from the range; 0 inside."""
        at = block.at
        nearest = np.minimum(np.maximum(block.x, self.low[at][:, None]), self.high[at][:, None])
        return [Reading(block.x, nearest, np.maximum(self.width[at][:, None], block.floor))]

    def learn(self, pane: Pane) -> None:
        """Widen or narrow the range."""
        rows = pane.rows
        least, most = pane.ordered[:, 0], pane.ordered[:, -1]
        first, middle = pane.panes == 1, self.middle[rows]
        low, high = np.where(first, least, self.low[rows]), np.where(first, most, self.high[rows])
        middle = middle + (pane.mean - middle) / np.minimum(pane.panes, 128.0)
        early = pane.panes < FIRST_PANES
        width = WIDEN_MAX * np.where(high > low, high - low, pane.floor)
        wider = np.where(early, most, np.minimum(most, high + width))
        lower = np.where(early, least, np.maximum(least, low - width))
        # The end of the range that was not reached comes nearer to the middle, not nearer than this pane.
        fall = np.where(early, 0.0, NARROW) * (high - np.maximum(most, middle))
        rise = np.where(early, 0.0, NARROW) * (np.minimum(least, middle) - low)
        self.high[rows] = np.where(most > high, wider, high - np.maximum(fall, 0.0))
        self.low[rows] = np.where(least < low, lower, low + np.maximum(rise, 0.0))
        self.middle[rows] = middle
        wide = self.high[rows] - self.low[rows]
        self.width[rows] = np.where(pane.panes >= FIRST_PANES, wide, np.inf)

    def accept(self, pane: Pane) -> None:
        """The range takes in a new level."""
        rows = pane.rows
        self.low[rows] = np.minimum(self.low[rows], pane.ordered[:, 0])
        self.high[rows] = np.maximum(self.high[rows], pane.ordered[:, -1])

    def resume(self, rows: I64, gap_panes: F64) -> None:
        """A silence changes no range."""
