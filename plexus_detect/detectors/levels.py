"""Checks of where a series is: a value against the last minutes, a short mean against a longer one.

Three exponentially weighted means with windows of 48, 288 and 1,728 points, learned by bounded (Huber) steps,
so that an incident moves them little and a level that lasts moves them in the end. Each has its own typical
distance, learned eight times more slowly. ``jump`` compares a value with the first, as a robust z-score does
(the first follows the pane's median); ``level`` the mean of 8 values with the second; ``drift`` the mean
of the last three panes' medians with the third. References: Roberts, "Control chart tests based on geometric
moving averages", Technometrics 1 (1959); Huber, "Robust estimation of a location parameter", Annals of
Mathematical Statistics 35 (1964).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.detectors.checks import PANE, Block, Pane, Part, Reading, clipped
from plexus_detect.series import F64, I64, Reason

# Windows in panes of 16 points, and how much slower the typical distance is learned.
WINDOWS = np.array([3.0, 18.0, 108.0])
SCALE_SLOWER = 8.0

# A step of a mean is at most this many typical distances, a distance at most that many, once there were
# as many panes as in the last.
STEP_MAX, DISTANCE_MAX, FIRST_PANES = 3.0, 6.0, 8

# The local deviation counts no less than this part of the typical distance: quiet hours make no alarms.
QUIET = 0.3


class Levels(Columns):
    """The checks jump, level and drift."""

    COLUMNS: ClassVar[Mapping[str, Column]] = {
        "mean": Column(shape=(3,)),
        "distance": Column(shape=(3,)),
        "seen": Column(shape=(3,)),
        "variance": Column(),
        "short": Column(shape=(3,)),
        "centre": Column(shape=(3,), wide=True),
        "scale": Column(fill=np.inf, shape=(3,), wide=True),
        "lately": Column(),
    }
    parts = (
        Part(
            Reason.ROBUST,
            "the value against the level of the last 48 points",
            floor=4.0,
            weight=0.75,
            fades=True,
        ),
        Part(
            Reason.LEVEL,
            "the mean of 8 points against that of the last 288",
            floor=4.0,
            weight=1.15,
            fades=True,
        ),
        Part(
            Reason.DRIFT,
            "the level of the last 48 points against that of the last 1728",
            floor=3.0,
            weight=1.1,
            fades=False,
        ),
    )
    mean: F64
    distance: F64
    seen: F64
    variance: F64
    short: F64
    centre: F64
    scale: F64
    lately: F64

    def read(self, block: Block) -> list[Reading]:
        """Jump, level and drift of each point."""
        at, floor = block.at, block.floor
        observed = (block.x, block.mean8, self.lately[at][:, None])
        return [
            Reading(observed[j], self.centre[j, at][:, None], np.maximum(self.scale[j, at][:, None], floor))
            for j in range(3)
        ]

    def learn(self, pane: Pane) -> None:
        """Move the means towards the pane, each by a bounded step."""
        rows, floor = pane.rows, pane.floor[:, None]
        mean, distance, seen = self.mean[rows], self.distance[rows], self.seen[rows] + 1.0
        median = 0.5 * (pane.ordered[:, PANE // 2 - 1] + pane.ordered[:, PANE // 2])
        target = np.stack([median, pane.mean, pane.mean], axis=1)
        off = target - mean
        known = np.where(distance > 0.0, DISTANCE_MAX * distance, np.inf)
        apart = np.minimum(np.abs(off), np.where(seen > 3, known, np.inf))
        spread = np.minimum(np.abs(pane.x - mean[:, :1]), known[:, :1])
        apart[:, 0] = spread.sum(axis=1) / PANE
        limit = np.where(seen > FIRST_PANES, STEP_MAX * np.maximum(distance, floor), np.inf)
        mean = np.where(seen == 1, target, mean + clipped(off, limit) / np.minimum(seen, WINDOWS))
        panes = pane.panes[:, None]
        rate = np.maximum(1.0 / np.minimum(panes, SCALE_SLOWER * WINDOWS), 1.0 / np.maximum(panes - 1.0, 1.0))
        # What follows a silence is no distance from a mean.
        self.distance[rows] = np.where(seen == 1, distance, distance + rate * (apart - distance))
        self.mean[rows], self.seen[rows] = mean, seen
        self._learn_variance(pane, mean[:, 1], seen[:, 1])
        short = np.roll(self.short[rows], 1, axis=1)
        short[:, 0] = median
        short = np.where(seen[:, :1] == 1, median[:, None], short)
        self.short[rows], self.lately[rows] = short, short.sum(axis=1) / 3.0
        self._set_scales(rows)

    def _learn_variance(self, pane: Pane, mean: F64, seen: F64) -> None:
        """The local variance about the second mean, a pane's part in it bounded."""
        rows, variance = pane.rows, self.variance[pane.rows]
        now = np.square(pane.x - mean[:, None]).sum(axis=1) / PANE
        usual = np.maximum(variance, np.square(np.maximum(self.distance[rows, 1], pane.floor)))
        limit = np.where(seen > FIRST_PANES, DISTANCE_MAX**2 * usual, np.inf)
        self.variance[rows] = variance + (np.minimum(now, limit) - variance) / np.minimum(seen, WINDOWS[1])

    def _set_scales(self, rows: I64) -> None:
        """What the next pane is compared with."""
        distance, seen = self.distance[rows], self.seen[rows]
        local = np.maximum(np.sqrt(self.variance[rows]), QUIET * distance[:, 1])
        scale = np.stack([distance[:, 0], local, distance[:, 2]])
        least = np.array([[1.0], [1.0], [FIRST_PANES + 1.0]])
        self.scale[:, rows] = np.where(least <= seen.T, scale, np.inf)
        self.centre[:, rows] = self.mean[rows].T

    def accept(self, pane: Pane) -> None:
        """Take the level of the pane as the new normal."""
        rows = pane.rows
        self.mean[rows] = self.short[rows] = pane.mean[:, None]
        self.lately[rows] = pane.mean
        self._set_scales(rows)

    def resume(self, rows: I64, gap_panes: F64) -> None:
        """Means whose window is shorter than the silence begin anew."""
        self.seen[rows] = np.where(gap_panes[:, None] > WINDOWS, 0.0, self.seen[rows])
        self._set_scales(rows)
