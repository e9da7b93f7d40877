"""Checks of how a series moves: one step, and the noise of the last points against that of the past.

``step`` is the distance of a value from the one before in units of the mean such distance; ``noise`` the
median distance of the last panes in those units, and ``quiet`` its inverse: a sensor that becomes restless,
and one that falls silent without standing still. Reference for successive differences as a measure of noise
that no slow change disturbs: von Neumann, Annals of Mathematical Statistics 12 (1941).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.detectors.checks import PANE, TINY, Block, Pane, Part, Reading
from plexus_detect.series import F64, I64, Reason

# The mean distance is learned over this many panes, from which the noise of the last two differs or not.
SLOW_PANES, LEAST_PANES, DISTANCE_MAX = 256.0, 4, 6.0


class Noise(Columns):
    """The checks step, noise and quiet."""

    COLUMNS: ClassVar[Mapping[str, Column]] = {
        "usual": Column(),
        "lately": Column(),
        "scale": Column(fill=np.inf),
        "louder": Column(),
        "quieter": Column(),
    }
    parts = (
        Part(Reason.STEP, "the step to this value against the usual one", floor=4.0, weight=0.8, fades=False),
        Part(
            Reason.NOISE,
            "the noise of the last points in units of the usual one",
            floor=2.0,
            weight=1.0,
            fades=False,
        ),
        Part(
            Reason.QUIET,
            "the usual noise in units of that of the last points",
            floor=3.0,
            weight=0.85,
            fades=False,
        ),
    )
    usual: F64
    lately: F64
    scale: F64
    louder: F64
    quieter: F64

    def read(self, block: Block) -> list[Reading]:
        """Step, noise and quiet."""
        at = block.at
        zero = np.zeros((len(block.rows), 1))
        one = zero + 1.0
        return [
            Reading(block.step, zero, np.maximum(self.scale[at][:, None], block.floor)),
            Reading(self.louder[at][:, None], zero, one),
            Reading(self.quieter[at][:, None], zero, one),
        ]

    def learn(self, pane: Pane) -> None:
        """The steps of the pane."""
        rows, first = pane.rows, pane.panes == 1
        ordered = np.sort(pane.step, axis=1)
        median = 0.5 * (ordered[:, PANE // 2 - 1] + ordered[:, PANE // 2])
        self.lately[rows] = np.where(first, median, 0.5 * self.lately[rows] + 0.5 * median)
        usual = self.usual[rows]
        mean = pane.step.sum(axis=1) / PANE
        bounded = np.where(pane.panes > LEAST_PANES, np.minimum(mean, DISTANCE_MAX * usual), mean)
        # A series that never moved has no usual step to be bounded by.
        bounded = np.where(usual > 0.0, bounded, mean)
        # Compared with the usual noise as it was before this pane, with one resolution more on both sides, so
        # that the ratio of two nothings is one.
        fast, slow = self.lately[rows] + pane.floor + TINY, usual + pane.floor + TINY
        known = pane.panes > LEAST_PANES
        self.louder[rows], self.quieter[rows] = (
            np.where(known, fast / slow, 0.0),
            np.where(known, slow / fast, 0.0),
        )
        usual = usual + (bounded - usual) / np.minimum(pane.panes, SLOW_PANES)
        self.usual[rows] = usual
        self.scale[rows] = np.where(pane.panes >= 2, usual, np.inf)

    def accept(self, pane: Pane) -> None:
        """A new level is no new noise."""

    def resume(self, rows: I64, gap_panes: F64) -> None:
        """A silence changes no noise."""
