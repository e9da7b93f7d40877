"""What of a stream is new, what comes late, and what repeats: decided point by point in order of arrival."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.series import F64, I64, Bool

# Samples of a series that are remembered, to tell a repeat from a late one.
MEMORY = 16

# More bits than a time in ms has.
_TIME_BITS = 43


class Sorted(NamedTuple):
    """Aligned with the points: which are ``taken`` (the others repeat what is known), which of these are
    ``late``; and ``doubles``, the positions of late ones for whose time this call had a late one before."""

    taken: Bool
    late: Bool
    doubles: I64


def before(row: I64, t_ms: I64, last_ms: I64) -> I64:
    """The newest time of each row before each of these points in order of arrival; ``last_ms`` (a row each)
    is what it was before the first."""
    order = np.argsort(row, kind="stable")
    of, t = row[order], t_ms[order]
    first = np.diff(of, prepend=-1) != 0
    lift = np.cumsum(first) << _TIME_BITS
    highest = np.maximum.accumulate(t + lift) - lift
    prior = last_ms[of]
    prior[~first] = np.maximum(prior[~first], highest[:-1][~first[1:]])
    out = np.empty_like(prior)
    out[order] = prior
    return out


class Arrivals(Columns):
    """Of a series: the newest time so far (-1: none), its last samples in a ring with how many there were,
    and whether each of these was late."""

    last_ms: I64
    count: I64
    t_ms: I64
    value: F64
    was_late: Bool

    COLUMNS: ClassVar = {
        "last_ms": Column(-1, dtype=np.int64),
        "count": Column(dtype=np.int64),
        "t_ms": Column(-1, (MEMORY,), np.int64),
        "value": Column(0.0, (MEMORY,)),
        "was_late": Column(0, (MEMORY,), np.bool_),
    }

    def __len__(self) -> int:
        return len(self.last_ms)

    def take(self, series: I64, t_ms: I64, value: F64) -> Sorted:
        """Sort points in order of arrival and remember them.

        A point that is not newer than all before it of its series is late. One with the time and value of a
        remembered one repeats it, and so does a further late one of the same time: a time has one late score.
        """
        back = t_ms <= before(series, t_ms, self.last_ms)
        taken, late = np.ones(len(series), np.bool_), np.zeros(len(series), np.bool_)
        doubles: list[int] = []
        if back.any():
            slow = np.zeros(len(self), np.bool_)
            slow[series[back]] = True
            at = np.flatnonzero(slow[series])
            met: set[tuple[int, int]] = set()
            for i in at.tolist():
                s, t, x = int(series[i]), int(t_ms[i]), float(value[i])
                if back[i]:
                    if self._known(s, t, x):
                        taken[i] = False
                        continue
                    late[i] = True
                    if (s, t) in met:
                        doubles.append(i)
                    met.add((s, t))
                self._put(s, t, x, late=bool(back[i]))
            rest = np.flatnonzero(~slow[series])
            self._remember(series[rest], t_ms[rest], value[rest])
        else:
            self._remember(series, t_ms, value)
        np.maximum.at(self.last_ms, series, t_ms)
        return Sorted(taken, late, np.array(doubles, np.int64))

    def _known(self, s: int, t: int, x: float) -> bool:
        same = self.t_ms[s] == t
        return bool((same & ((self.value[s] == x) | self.was_late[s])).any())

    def _put(self, s: int, t: int, x: float, *, late: bool) -> None:
        at = int(self.count[s]) % MEMORY
        self.t_ms[s, at], self.value[s, at], self.was_late[s, at] = t, x, late
        self.count[s] += 1

    def _remember(self, series: I64, t_ms: I64, value: F64) -> None:
        """Remember the last ones of each series."""
        order = np.argsort(series, kind="stable")
        of = series[order]
        first = np.diff(of, prepend=-1) != 0
        place = np.arange(len(of))
        rank = place - np.maximum.accumulate(np.where(first, place, 0))
        starts = np.flatnonzero(first)
        sizes = np.diff(np.append(starts, len(of)))
        kept = rank >= np.repeat(sizes, sizes) - MEMORY
        rows, at = of[kept], (self.count[of[kept]] + rank[kept]) % MEMORY
        from_ = order[kept]
        self.t_ms[rows, at], self.value[rows, at] = t_ms[from_], value[from_]
        self.was_late[rows, at] = False
        self.count[of[starts]] += sizes
