"""Who became odd in the same bucket: a step of the whole fleet is seen before the next cross-section.

The first point of every source in a bucket is counted, in order of arrival; where a tenth of those before
it (and three) have just become odd, a point's oddness counts only as far as it exceeds theirs.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.series import F64, I64, Bool, Rows

# Devices seldom become odd in one bucket by chance: a smaller share than of lasting oddness says enough.
SHARE, LEAST = 0.1, 3.0


class OnsetGroups(Columns):
    """Of a group: sources met in this bucket, how many became odd, the largest oddness of those, and the
    bucket."""

    met: F64
    odd: F64
    most: F64
    turn: I64

    COLUMNS: ClassVar = {
        "met": Column(),
        "odd": Column(),
        "most": Column(),
        "turn": Column(-1, dtype=np.int64),
    }


class Onsets(Columns):
    """Of a source: the bucket in which it was ``met`` last, and what was ``common`` then."""

    met: I64
    common: F64

    COLUMNS: ClassVar = {"met": Column(-1, dtype=np.int64), "common": Column()}

    def __init__(self) -> None:
        super().__init__()
        self.groups = OnsetGroups()

    def meet(self, rows: Rows, group: I64, turn: I64, at: I64, odd: tuple[Bool, F64]) -> F64:
        """How odd those are that became odd before each of ``rows``, in the bucket ``turn`` of its ``group``,
        in the order ``at``; ``odd``: whether each just became odd, and how odd it is."""
        first = np.flatnonzero(self.met[rows] != turn)
        common = self.common[rows].copy()
        if len(first):
            order = first[np.lexsort((at[first], group[first]))]
            common[order] = self._count(group[order], turn[order], odd[0][order], odd[1][order])
            self.met[rows], self.common[rows] = turn, common
        return common

    def _count(self, group: I64, turn: I64, new: Bool, oddness: F64) -> F64:
        """Count first points that stand in order of group; returns what was common before each."""
        of, starts = self.groups, np.flatnonzero(np.diff(group, prepend=-1))
        g = group[starts]
        begins = g[of.turn[g] != turn[starts]]
        of.met[begins] = of.odd[begins] = of.most[begins] = 0.0
        of.turn[g] = turn[starts]
        if not new.any() and not of.odd[g].any():
            of.met[g] += np.diff(starts, append=len(group))
            return np.zeros(len(group))
        before = np.empty((3, len(group)))
        sizes = np.diff(starts, append=len(group))
        for start, size, i in zip(starts.tolist(), sizes.tolist(), g.tolist(), strict=True):
            part = slice(start, start + size)
            odd = np.append(of.odd[i], new[part]).cumsum()
            most = np.maximum.accumulate(np.append(of.most[i], np.where(new[part], oddness[part], 0.0)))
            before[:, part] = of.met[i] + np.arange(size), odd[:-1], most[:-1]
            of.met[i], of.odd[i], of.most[i] = of.met[i] + size, odd[-1], most[-1]
        met, odd, most = before
        return np.where(odd >= np.maximum(LEAST, SHARE * met), most, 0.0)
