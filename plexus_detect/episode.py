"""Scores to debounced anomaly episodes, and the value to post.

An episode opens when M of the last N known scores of a series were beyond the line, or one was far beyond
it (``at_once``), and closes after ``close_after`` known scores inside it. While it is open the magnitude of
the score is posted, otherwise 0, for every new point: the platform opens an alert on a single value above
a monitor's bound and closes it only while in-bounds values keep coming (platform fact, contract section
5.1), so the debouncing is ours and the zeros are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64, I8, I64, Bool, aftermath, rounds
from plexus_detect.stats import grown

_COLUMNS = ("history", "is_open", "inside", "since_ms", "peak", "reason")


@dataclass(frozen=True)
class EpisodeParams:
    """``m`` of ``n`` scores beyond ``threshold`` open, ``close_after`` inside close; m <= n <= 64. A single
    score of ``at_once`` x ``threshold`` or more opens too, unless that is 0."""

    threshold: float = 3.0
    m: int = 3
    n: int = 3
    close_after: int = 3
    at_once: float = 0.0


@dataclass(frozen=True)
class Transition:
    """An episode opened or closed at position ``at`` of the stepped points; it lasts since ``since_ms``,
    ``peak`` is the largest magnitude of its scores so far and ``reason`` the ``Reason`` code of that one."""

    opened: bool
    at: int
    since_ms: int
    peak: float
    reason: int = 0


class Episodes:
    """The episode state of a bank of series, one row each."""

    def __init__(self, params: EpisodeParams) -> None:
        self.params = params
        self.history = np.zeros(0, np.uint64)
        self.is_open = np.zeros(0, np.bool_)
        self.inside = np.zeros(0, np.int64)
        self.since_ms = np.zeros(0, np.int64)
        self.peak = np.zeros(0)
        self.reason = np.zeros(0, np.int8)

    def __len__(self) -> int:
        return len(self.history)

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones have no episode."""
        for name, column in self.dump().items():
            setattr(self, name, grown(column, n))

    def step(self, rows: I64, t_ms: I64, z: F64, late: Bool, reason: I8) -> tuple[F64, list[Transition]]:
        """Take scores in order of time; NaN leaves a row as it is, and so does the score of a late point.

        Returns the value to post for each (|z| in an open episode, else 0; NaN where z is NaN) and the
        transitions in order of position.
        """
        magnitude = np.abs(z)
        value = np.where(np.isnan(z), np.nan, 0.0)
        moves: list[Transition] = []
        touched = self._touched(rows, magnitude, late)
        for part in rounds(rows[touched]):
            at = touched[part]
            live = at[~late[at]]
            moves += self._step(live, rows[live], t_ms[live], magnitude[live], reason[live])
            in_episode = at[self.is_open[rows[at]]]
            value[in_episode] = magnitude[in_episode]
        return value, sorted(moves, key=lambda move: move.at)

    def _touched(self, rows: I64, magnitude: F64, late: Bool) -> I64:
        """Positions that can change or show anything. A row without history and without a score beyond the
        line stays as it is, and nearly all do; of a long run, what comes soon after such a score."""
        active = self.is_open | (self.history > 0)
        beyond = magnitude > self.params.threshold
        busy = active.copy()
        busy[rows[beyond]] = True
        touched = np.flatnonzero(busy[rows])
        touched = touched[np.argsort(rows[touched], kind="stable")]
        first = np.diff(rows[touched], prepend=-1) != 0
        if first.all():
            return np.sort(touched)
        counts = ~late[touched] & ~np.isnan(magnitude[touched])
        begins = (beyond[touched] & counts) | (first & active[rows[touched]])
        memory = max(self.params.n, self.params.close_after)
        return np.sort(touched[aftermath(first, begins, counts, memory)])

    def _step(self, at: I64, rows: I64, t_ms: I64, magnitude: F64, reason: I8) -> list[Transition]:
        """One score of each of several (distinct) rows."""
        p = self.params
        known = ~np.isnan(magnitude)
        beyond = magnitude > p.threshold
        before, was_open = self.history[rows], self.is_open[rows]
        history = ((before << np.uint64(1)) | beyond) & np.uint64((1 << p.n) - 1)
        # An opening window has room for n - m scores inside the line: more in a row end what was before.
        recent = np.uint64((1 << (p.n - p.m + 1)) - 1)
        starts = beyond & ((before & recent) == 0) & ~was_open
        since = np.where(starts, t_ms, self.since_ms[rows])
        peak = np.where(starts, 0.0, self.peak[rows])
        higher = beyond & (magnitude > peak)
        peak = np.where(higher, magnitude, peak)
        why = np.where(higher, reason, self.reason[rows])
        inside = np.where(beyond | ~was_open, 0, self.inside[rows] + known)
        enough = np.bitwise_count(history) >= p.m
        if p.at_once > 0.0:
            enough |= magnitude >= p.at_once * p.threshold
        opens = beyond & ~was_open & enough
        closes = was_open & known & (inside >= p.close_after)
        self.history[rows] = np.where(closes, np.uint64(0), np.where(known, history, before))
        self.is_open[rows] = (was_open | opens) & ~closes
        self.inside[rows], self.since_ms[rows], self.peak[rows], self.reason[rows] = inside, since, peak, why
        return [
            Transition(bool(opens[i]), int(at[i]), int(since[i]), float(peak[i]), int(why[i]))
            for i in np.flatnonzero(opens | closes).tolist()
        ]

    def suspected(self, rows: I64) -> Bool:
        """Rows with a score beyond the line that has not (yet) opened an episode."""
        waiting: Bool = (self.history[rows] > 0) & ~self.is_open[rows]
        return waiting

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every column by name, for a snapshot."""
        return {k: getattr(self, k) for k in _COLUMNS}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over what ``dump`` gave."""
        for name in self.dump():
            setattr(self, name, columns[name].copy())
