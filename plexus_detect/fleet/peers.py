"""Whom a source is compared with: the members of its group that moved most like it so far.

Every hour the mean deviation of every source from its own level is kept; every 24 kept hours the eight
sources whose last week correlates best are chosen. What they say is the median of their deviations: a peer
that is odd itself moves it little. Until peers are known, all of the group are.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Column, Columns
from plexus_detect.series import F64, I64

PEERS = 8
HOUR_MS = 3_600_000
HOURS = 168
_LEARN_HOURS = 24

# Correlations are taken among so many sources at once at most: the work does not grow with its square.
_POOL_MAX = 256

_DEVIATION_MAX = 1e30


class PeerGroups(Columns):
    """Of a group: the hour that is being added up, and how many were kept."""

    hour: I64
    kept: I64

    COLUMNS: ClassVar = {"hour": Column(-1, dtype=np.int64), "kept": Column(dtype=np.int64)}


class Peers(Columns):
    """``history`` (n, 168) of hourly means, ``chosen`` (n, 8) rows of the peers, -1 where there is none."""

    history: npt.NDArray[np.float32]
    chosen: npt.NDArray[np.int32]
    total: F64
    samples: I64

    COLUMNS: ClassVar = {
        "history": Column(0, (HOURS,), np.float32),
        "chosen": Column(-1, (PEERS,), np.int32),
        "total": Column(),
        "samples": Column(dtype=np.int64),
    }

    def __init__(self) -> None:
        super().__init__()
        self.groups = PeerGroups()

    def consensus(self, rows: I64, deviation: F64, otherwise: F64) -> F64:
        """What the peers of ``rows`` say: the median of their ``deviation`` (of all rows, NaN for none)."""
        chosen = self.chosen[rows]
        said = np.where(chosen >= 0, deviation[chosen], np.nan)
        said.sort(axis=1)
        n, at = np.isfinite(said).sum(axis=1), np.arange(len(rows))
        median = 0.5 * (said[at, np.maximum(n - 1, 0) // 2] + said[at, np.minimum(n // 2, PEERS - 1)])
        return np.where(n > 0, median, otherwise)

    def third_oddest(self, rows: I64, oddness: F64) -> F64:
        """What a quarter of the peers of ``rows`` exceed in ``oddness`` (of all rows, NaN for none)."""
        chosen = self.chosen[rows]
        theirs = np.where(chosen >= 0, oddness[chosen], np.nan)
        n = np.isfinite(theirs).sum(axis=1)
        theirs.sort(axis=1)
        at = np.minimum(np.maximum(-(-3 * n // 4) - 1, 0), PEERS - 1)
        return np.where(n > 2, theirs[np.arange(len(rows)), at], 0.0)

    def sample(self, groups: tuple[I64, I64], members: tuple[I64, I64], deviation: F64) -> None:
        """Add up deviations of the ``members`` (rows, position of the group of each); ``groups`` are numbers
        of groups and their hours now. Where an hour is over it is kept, and peers are chosen anew in time."""
        g, hour = groups
        rows, number = members
        was = self.groups.hour[g]
        # A little back is a clock that is not quite right, far back is one that was set right.
        over = (hour > was) | (hour < was - 1)
        if over.any():
            self._keep(g, np.flatnonzero(over & (was >= 0)), rows, number)
            self.groups.hour[g[over]] = hour[over]
        known = np.isfinite(deviation)
        self.total[rows] += np.where(known, deviation, 0.0)
        self.samples[rows] += known

    def _keep(self, g: I64, over: I64, rows: I64, number: I64) -> None:
        ends = np.zeros(len(g), np.bool_)
        ends[over] = True
        mine = rows[ends[number]]
        mean = self.total[mine] / np.maximum(self.samples[mine], 1)
        at = self.groups.kept[g][number[ends[number]]] % HOURS
        self.history[mine, at] = np.minimum(np.maximum(mean, -_DEVIATION_MAX), _DEVIATION_MAX)
        self.total[mine], self.samples[mine] = 0.0, 0
        self.groups.kept[g[over]] += 1
        for i in over[self.groups.kept[g[over]] % _LEARN_HOURS == 0].tolist():
            self._choose(rows[number == i], int(self.groups.kept[g[i]]))

    def _choose(self, rows: I64, kept: int) -> None:
        """Choose the peers of the members of one group."""
        for start in range(0, len(rows), _POOL_MAX):
            pool = rows[start : start + _POOL_MAX]
            if len(pool) < 2:
                continue
            past = self.history[pool, : min(kept, HOURS)].astype(np.float64)
            past -= past.mean(axis=1)[:, None]
            past /= np.maximum(np.abs(past).max(axis=1), 1e-300)[:, None]
            past /= np.maximum(np.sqrt(np.square(past).sum(axis=1)), 1e-300)[:, None]
            likeness = np.nan_to_num(past @ past.T)
            np.fill_diagonal(likeness, -2.0)
            k = min(PEERS, len(pool) - 1)
            # Rounded, so that the order of summation decides no choice.
            order = np.argsort(-np.round(likeness, 9), axis=1, kind="stable")[:, :k]
            self.chosen[pool] = -1
            self.chosen[pool[:, None], np.arange(k)] = pool[order]
