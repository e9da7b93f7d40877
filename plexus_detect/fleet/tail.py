"""How far out is odd: each measure of each source against the largest of its own past.

Time is cut into blocks (20 buckets at first, doubled up to 2.5 hours as the past grows longer); the largest
value of each measure in each of the last 24 blocks is kept as a logarithm. The distance of a value above
their median, in their deviations, is how odd it is; what was reached in three blocks is never more than
mildly odd, however rare it is. The deviation of one source is pooled with that of its group (an empirical
Bayes shrinkage: Efron and Morris, JASA 70, 1975), so a few blocks suffice. Block maxima: Gumbel, Statistics
of Extremes, 1958.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Column, Columns
from plexus_detect.fleet.checks import FLOORS, N_CHECKS
from plexus_detect.series import F64, I64, Bool, Rows
from plexus_detect.stats import cross_section

# At this oddness a device is odd: the alert line. From the lower one on nothing is learned from it.
LINE, SUSPECT = 5.5, 5.0

BLOCKS, _BLOCK_BUCKETS, _BLOCK_MS = 24, 20, 9_000_000
_BLOCKS_MIN, _RANK, _RANK_ODDNESS = 4, 3, 3.5
_DEVIATION_MIN, _DEVIATION_YOUNG, _DEVIATION_COLD, _POOLED_BLOCKS = 0.15, 0.22, 0.3, 4.0

# A suspicion fills one block; when it has lasted this many, those that follow count again.
_SKIPPED_MAX = 10

_LOG_FLOORS = np.log(FLOORS)


class TailGroups(Columns):
    """Of a group: buckets in a block, buckets of this one so far, and blocks of this width so far."""

    width: I64
    age: I64
    number: I64

    COLUMNS: ClassVar = {
        "width": Column(_BLOCK_BUCKETS, dtype=np.int64),
        "age": Column(dtype=np.int64),
        "number": Column(dtype=np.int64),
    }


class Tail(Columns):
    """``kept`` (n, 5, 24) log maxima, ``blocks`` how many there were, ``most`` of the block so far (-1: no
    point); ``base`` and ``deviation`` (n, 5) come from them. ``hot``: suspected in this block, ``was`` in the
    one before, ``skipped`` blocks in a row that were not kept for it."""

    base: F64
    deviation: F64
    most: F64
    kept: npt.NDArray[np.float32]
    blocks: I64
    hot: Bool
    was: Bool
    skipped: I64

    COLUMNS: ClassVar = {
        "base": Column(np.nan, (N_CHECKS,)),
        "deviation": Column(_DEVIATION_COLD, (N_CHECKS,)),
        "most": Column(-1, (N_CHECKS,)),
        "kept": Column(np.nan, (N_CHECKS, BLOCKS), np.float32),
        "blocks": Column(dtype=np.int64),
        "hot": Column(dtype=np.bool_),
        "was": Column(dtype=np.bool_),
        "skipped": Column(dtype=np.int64),
    }

    def __init__(self) -> None:
        super().__init__()
        self.groups = TailGroups()

    def oddness(self, rows: Rows, measure: F64) -> F64:
        """How odd each measure (m, 5) of ``rows`` is, in deviations of past maxima."""
        base = np.fmax(self.base[rows], _LOG_FLOORS)
        odd: F64 = (np.log(np.maximum(measure, 1e-9)) - base) / self.deviation[rows]
        return odd

    def reach(self, rows: Rows, check: int, oddness: F64) -> F64:
        """The measure of ``check`` that is so odd."""
        base = np.fmax(self.base[rows, check], _LOG_FLOORS[check])
        reach: F64 = np.exp(np.minimum(base + oddness * self.deviation[rows, check], 50.0))
        return reach

    def add(self, rows: Rows, measure: F64, ready: Bool, suspect: Bool) -> None:
        """Take the measures of ``ready`` rows into the block."""
        most = self.most[rows]
        self.most[rows] = np.where(ready[:, None], np.maximum(most, measure), most)
        self.hot[rows] |= suspect

    def turn(self, g: I64, members: tuple[I64, I64, I64], bucket_ms: I64) -> Bool:
        """A new bucket began in these groups; ``members`` are rows, position of the group and place in it of
        each. Returns where a block ended."""
        self.groups.age[g] += 1
        over: Bool = self.groups.age[g] >= self.groups.width[g]
        if over.any():
            mine = over[members[1]]
            rows, number, place = (column[mine] for column in members)
            self._push(rows)
            self.groups.age[g[over]] = 0
            self.groups.number[g[over]] += 1
            short = self.groups.width[g] * bucket_ms < _BLOCK_MS
            wider = over & (self.groups.number[g] >= BLOCKS) & short
            self._merge(rows[wider[number]])
            self.groups.width[g[wider]] *= 2
            self.groups.number[g[wider]] = BLOCKS // 2
            self._learn(rows, number, place, len(g))
        return over

    def _push(self, rows: I64) -> None:
        hot, most = self.hot[rows], self.most[rows]
        skipped = np.where(hot & self.was[rows], self.skipped[rows] + 1, 0)
        keep = (most[:, 0] >= 0.0) & ((skipped == 0) | (skipped > _SKIPPED_MAX))
        at = rows[keep]
        self.kept[at, :, self.blocks[at] % BLOCKS] = np.log(np.maximum(most[keep], FLOORS))
        self.blocks[at] += 1
        self.skipped[rows], self.was[rows], self.hot[rows], self.most[rows] = skipped, hot, False, -1.0

    def _merge(self, rows: I64) -> None:
        """Two blocks become one."""
        pairs = self.kept[rows]
        self.kept[rows] = np.nan
        self.kept[rows, :, : BLOCKS // 2] = np.fmax(pairs[:, :, 0::2], pairs[:, :, 1::2])
        self.blocks[rows] = -(-np.minimum(self.blocks[rows], BLOCKS) // 2)

    def _learn(self, rows: I64, number: I64, place: I64, n_groups: int) -> None:
        kept = self.kept[rows].astype(np.float64)
        n = np.minimum(self.blocks[rows], BLOCKS)
        known = np.isfinite(kept)
        ordered = np.sort(np.where(known, -kept, np.inf), axis=2)
        median = -ordered[np.arange(len(rows)), :, n // 2]
        median = np.where(n[:, None] > 0, median, _LOG_FLOORS)
        apart = np.where(known, np.abs(kept - median[:, :, None]), 0.0).sum(axis=2)
        own = 1.25 * apart / np.maximum(n, 1)[:, None]
        usual = np.empty_like(own)
        for check in range(N_CHECKS):
            column = np.where(n >= _BLOCKS_MIN, own[:, check], np.nan)
            usual[:, check] = cross_section(column, number, place, n_groups).median[number]
        usual = np.where(np.isfinite(usual), usual, _DEVIATION_COLD)
        weight = n[:, None]
        pooled = (weight * own + _POOLED_BLOCKS * usual) / (weight + _POOLED_BLOCKS)
        young = np.where(weight < BLOCKS // 2, _DEVIATION_YOUNG, _DEVIATION_MIN)
        least = np.where(weight < _BLOCKS_MIN, _DEVIATION_COLD, young)
        self.deviation[rows] = deviation = np.maximum(pooled, least)
        often = -ordered[:, :, _RANK - 1] - _RANK_ODDNESS * deviation
        self.base[rows] = np.maximum(median, np.where(np.isfinite(often), often, -np.inf))
