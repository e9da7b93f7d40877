"""Who is suspected: nothing is learned from a suspected device until it is inside again or has lasted."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.fleet.params import FleetParams
from plexus_detect.series import F64, I64, Bool, Rows

# What a device was found to be, whatever its peers do, fades with this time constant.
_RECENT_MS = 1_800_000.0
_YOUNG_MS = 7_200_000


class Suspicion(Columns):
    """Of a source: points ``outside`` in its suspicion, ``inside`` in a row at the end of it, its start, the
    mean difference meanwhile, and how odd it was of late (``recent``)."""

    outside: I64
    inside: I64
    since_ms: I64
    held: F64
    recent: F64

    COLUMNS: ClassVar = {
        "outside": Column(dtype=np.int64),
        "inside": Column(dtype=np.int64),
        "since_ms": Column(dtype=np.int64),
        "held": Column(),
        "recent": Column(),
    }

    def remember(self, rows: Rows, oddness: F64, ready: Bool, cadence_ms: F64) -> None:
        """Take in how odd each row is, before its peers are asked."""
        recent = self.recent[rows]
        fading = recent * (1.0 - 1.0 / (1.0 + _RECENT_MS / cadence_ms))
        self.recent[rows] = np.where(ready, np.maximum(oddness, fading), recent)

    def lately(self, rows: Rows, now_ms: I64) -> Bool:
        """Whose suspicion, if any, is young: what began at different times has no common cause."""
        lately: Bool = (self.outside[rows] == 0) | (now_ms - self.since_ms[rows] <= _YOUNG_MS)
        return lately

    def step(self, rows: I64, t_ms: I64, residual: F64, beyond: Bool, params: FleetParams) -> Bool:
        """A point of each of several (distinct) rows; returns whose suspicion has lasted ``relearn_ms``: it
        ends, ``held`` says where the device stood."""
        before, since, held = self.outside[rows], self.since_ms[rows], self.held[rows]
        since = np.where(beyond, np.where(before == 0, t_ms, np.minimum(since, t_ms)), since)
        inside = np.where(beyond, 0, self.inside[rows] + 1)
        outside = before + beyond
        weight = np.maximum(1.0 / np.maximum(outside, 1), 1.0 / params.offset_window)
        held = np.where(before == 0, residual, held + beyond * weight * (residual - held))
        lasting: Bool = beyond & (t_ms - since >= params.relearn_ms) & (outside >= params.min_points)
        self.since_ms[rows], self.inside[rows], self.held[rows] = since, inside, held
        self.outside[rows] = np.where(lasting | (inside >= params.close_after), 0, outside)
        return lasting
