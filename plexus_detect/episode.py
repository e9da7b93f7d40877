"""Scores to debounced anomaly episodes, and the value to post.

An episode opens when M of the last N known scores of a series were beyond the line, and closes after
``close_after`` known scores inside it. While it is open the magnitude of the score is posted, otherwise
0, for every new point: the platform opens an alert on a single value above a monitor's bound and closes
it only while in-bounds values keep coming (platform fact, contract section 5.1), so the debouncing is
ours and the zeros are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64, I64, Bool
from plexus_detect.stats import grown


@dataclass(frozen=True)
class EpisodeParams:
    """``m`` of the last ``n`` scores beyond ``threshold`` open, ``close_after`` inside close; m <= n <= 64."""

    threshold: float = 3.0
    m: int = 3
    n: int = 3
    close_after: int = 3


@dataclass(frozen=True)
class Transitions:
    """Positions (into the stepped points) at which an episode opened or closed, and since when it lasts."""

    opened: I64
    closed: I64
    since_ms: I64


class Episodes:
    """The episode state of a bank of series, one row each."""

    def __init__(self, params: EpisodeParams) -> None:
        self.params = params
        self.history = np.zeros(0, np.uint64)
        self.is_open = np.zeros(0, np.bool_)
        self.inside = np.zeros(0, np.int64)
        self.since_ms = np.zeros(0, np.int64)
        self.peak = np.zeros(0)

    def __len__(self) -> int:
        return len(self.history)

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones have no episode."""
        for name, column in self.dump().items():
            setattr(self, name, grown(column, n))

    def step(self, rows: I64, t_ms: I64, z: F64) -> tuple[F64, Transitions]:
        """Take one score of each (distinct) row; NaN leaves a row as it is.

        Returns the value to post for each (|z| in an open episode, else 0; NaN where z is NaN) and the
        transitions.
        """
        p = self.params
        known = ~np.isnan(z)
        beyond = np.abs(z) > p.threshold
        mask = np.uint64((1 << p.n) - 1)
        before = self.history[rows]
        shifted = ((before << np.uint64(1)) | beyond.astype(np.uint64)) & mask
        history = np.where(known, shifted, before)
        was_open = self.is_open[rows]
        starts = known & beyond & (before == 0) & ~was_open
        since = np.where(starts, t_ms, self.since_ms[rows])
        inside = np.where(known, np.where(beyond, 0, self.inside[rows] + 1), self.inside[rows])
        opens = known & beyond & ~was_open & (np.bitwise_count(history) >= p.m)
        closes = was_open & known & (inside >= p.close_after)
        is_open = (was_open | opens) & ~closes
        magnitude = np.abs(z)
        peak = np.where(starts, 0.0, self.peak[rows])
        self.peak[rows] = np.fmax(peak, np.where(beyond, magnitude, 0.0))
        self.history[rows] = np.where(closes, np.uint64(0), history)
        self.is_open[rows] = is_open
        self.inside[rows] = inside
        self.since_ms[rows] = since
        emit = np.where(known, np.where(is_open, magnitude, 0.0), np.nan)
        return emit, Transitions(np.flatnonzero(opens), np.flatnonzero(closes), since)

    def emit_late(self, rows: I64, z: F64) -> F64:
        """The value to post for late points, which change no episode."""
        return np.where(np.isnan(z), np.nan, np.where(self.is_open[rows], np.abs(z), 0.0))

    def suspected(self, rows: I64) -> Bool:
        """Rows with a score beyond the line that has not (yet) opened an episode."""
        waiting: Bool = (self.history[rows] != 0) & ~self.is_open[rows]
        return waiting

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every column by name, for a snapshot."""
        return {k: getattr(self, k) for k in ("history", "is_open", "inside", "since_ms", "peak")}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over what ``dump`` gave."""
        for name, column in columns.items():
            setattr(self, name, column.copy())
