"""Checks of repetition: a value that stays the same too long, or moves though it never does.

The habit of a series is how often it repeats a value. A run of r equal values has the surprise
-(r - 1) log p, where p is the share of repetitions; a move of a series that almost never moves has the
surprise -log(1 - p) (self-information: Shannon, "A mathematical theory of communication", 1948). Both are
relative to the resolution and habit of the series: a status that is 0 for weeks is not stuck, a temperature
that repeats its last digit eight times is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.detectors.checks import PANE, Block, Pane, Part, Reading
from plexus_detect.series import F64, I64, Reason

# The habit is learned over this many points, and not believed to be rarer than the other.
HABIT_POINTS, RAREST = 5_000.0, 1e-3
NEARLY_ALWAYS = 0.99999

# Before this many points a series is not believed to repeat itself less often than that; before that many a
# move surprises nobody.
YOUNG_POINTS, YOUNG_HABIT, MOVE_POINTS = 50, 0.3, 100


class Stuck(Columns):
    """The checks stuck and rare move."""

    COLUMNS: ClassVar[Mapping[str, Column]] = {
        "habit": Column(fill=0.5),
        "seen": Column(),
        "rarity": Column(fill=np.inf),
        "surprise": Column(),
    }
    parts = (
        Part(
            Reason.STUCK,
            "repetitions of one value in units of the usual surprise of one",
            floor=9.0,
            weight=0.75,
            fades=False,
        ),
        Part(
            Reason.RARE,
            "the surprise of a move of a series that hardly ever moves",
            floor=6.0,
            weight=1.2,
            fades=True,
        ),
    )
    habit: F64
    seen: F64
    rarity: F64
    surprise: F64

    def read(self, block: Block) -> list[Reading]:
        """The surprise of the run, and of the move."""
        moved = np.where(block.same, 0.0, self.surprise[block.at][:, None])
        zero = np.zeros((len(block.rows), 1))
        return [
            Reading(block.run - 1.0, zero, self.rarity[block.at][:, None]),
            Reading(moved, zero, zero + 1.0),
        ]

    def learn(self, pane: Pane) -> None:
        """How often the pane repeats a value."""
        rows = pane.rows
        self.seen[rows] += PANE
        share = (pane.step == 0.0).sum(axis=1) / PANE
        rate = np.maximum(PANE / HABIT_POINTS, 1.0 / pane.panes)
        habit = self.habit[rows] + rate * (share - self.habit[rows])
        self.habit[rows] = habit
        seen = self.seen[rows]
        young = np.where(seen > YOUNG_POINTS, habit, np.maximum(habit, YOUNG_HABIT))
        # A run is measured in the surprise of one repetition: its scale is the inverse.
        self.rarity[rows] = -1.0 / np.log(np.clip(young, RAREST, NEARLY_ALWAYS))
        chance = 1.0 - habit + 1.0 / (np.minimum(seen, HABIT_POINTS) + 2.0)
        self.surprise[rows] = np.where(seen > MOVE_POINTS, -np.log(np.minimum(chance, 1.0)), 0.0)

    def accept(self, pane: Pane) -> None:
        """A new level is no new habit."""

    def resume(self, rows: I64, gap_panes: F64) -> None:
        """A silence changes no habit."""
