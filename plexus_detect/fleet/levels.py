"""What a device is expected to read: its own level, and its share in what its peers do.

The level is a slow mean (half a day and more) that follows the peers and, clipped, the device's own
difference from them: a device that always reads 2 degrees more is always different, not odd. The gain is a
running least squares fit of the device's deviation on that of its peers, drawn a little towards 1.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.fleet.checks import Seen
from plexus_detect.series import F64, Bool, Rows

# Memories as mean lives: a level of half a life of a day, a gain of one of two days.
_LEVEL_MS, _GAIN_MS = 34.6 * 3_600_000.0, 69.2 * 3_600_000.0

# Where the others are as odd as this device, it is the centre that moved, and the level goes there.
_FOLLOW_MS = 3_600_000.0

_YOUNG, _GAIN_POINTS = 30, 60
_GAIN_MAX, _PRIOR = 2.5, 0.05


class Levels(Columns):
    """``level`` (NaN: none yet), ``gain``, and the sums it comes from."""

    level: F64
    gain: F64
    peers_squared: F64
    shared: F64

    COLUMNS: ClassVar = {
        "level": Column(np.nan),
        "gain": Column(1.0),
        "peers_squared": Column(),
        "shared": Column(),
    }

    def expected(self, rows: Rows, x: F64, consensus: F64) -> F64:
        """What ``rows`` should read now; a source without a level begins with its first value ``x``."""
        level = self.level[rows]
        if np.isnan(level).any():
            begun = np.where(np.isnan(level), x - np.where(np.isnan(consensus), 0.0, consensus), level)
            self.level[rows] = level = np.where(np.isfinite(x), begun, level)
        expected: F64 = level + self.gain[rows] * consensus
        return expected

    def learn(self, rows: Rows, seen: Seen, consensus: F64, spread: F64, by: tuple[Bool, F64, int]) -> None:
        """Learn a point a row; ``by``: whether the centre moved, the age of the group, the least memory."""
        moved, age, points_min = by
        count, cadence = seen.n, seen.cadence_ms
        common = np.where(seen.ok, self.gain[rows] * consensus, 0.0)
        slow = 1.0 / (1.0 + np.maximum(_LEVEL_MS / cadence, points_min))
        bound = np.where(count < _YOUNG, np.inf, 2.5 * spread)
        own = np.minimum(np.maximum(seen.residual, -bound), bound)
        follow = 1.0 / (1.0 + np.maximum(_FOLLOW_MS / cadence, 3.0))
        step = np.where(moved, follow * seen.residual, np.where(seen.learn, own, 0.0))
        step = np.where(moved, step, np.maximum(slow, 1.0 / (count + 1.0)) * step)
        self.level[rows] += np.where(seen.ok, np.maximum(slow, 1.0 / (age + 1.0)) * common + step, 0.0)
        self._learn_gain(rows, seen, common, consensus, spread)

    def _learn_gain(self, rows: Rows, seen: Seen, common: F64, consensus: F64, spread: F64) -> None:
        weight = np.maximum(1.0 / (1.0 + _GAIN_MS / seen.cadence_ms), 1.0 / (seen.n + 1.0))
        bound = np.where(seen.n < _YOUNG, np.inf, 5.0 * spread)
        mine = common + np.minimum(np.maximum(seen.residual, -bound), bound)
        squared, shared = self.peers_squared[rows], self.shared[rows]
        squared = np.where(seen.learn, squared + weight * (consensus * consensus - squared), squared)
        shared = np.where(seen.learn, shared + weight * (consensus * mine - shared), shared)
        self.peers_squared[rows], self.shared[rows] = squared, shared
        prior = _PRIOR * spread * spread
        gain = np.minimum(np.maximum((shared + prior) / (squared + prior), 0.0), _GAIN_MAX)
        self.gain[rows] = np.where((seen.n > _GAIN_POINTS) & np.isfinite(gain), gain, 1.0)
