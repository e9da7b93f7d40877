"""Exact medians and median deviations of the last ``window`` values of many series.

Beside the ring of a series stands the same ring in ascending order. A push replaces the value that leaves
and sorts again, which for a row with one value out of place costs O(window) moves (a merge of sorted runs).
The median is then read off, and the median deviation found by bisection: the k values nearest to the median
are neighbours in that order. Both are order statistics, so they carry no rounding from push to push.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from plexus_detect.columns import Snapshot
from plexus_detect.series import F64, I64, Bool, Rows
from plexus_detect.stats import grown

# The median, and the mean deviation, of normal noise times these are its standard deviation: Rousseeuw and
# Croux, "Alternatives to the Median Absolute Deviation", JASA 88 (1993); sqrt(pi / 2).
_MEDIAN_DEVIATION, _MEAN_DEVIATION = 1.4826, 1.2533

# Values more than a ring holds: a stretch may always be as long as the caller likes.
_NEVER = 1 << 40


class Ordered(NamedTuple):
    """Rings in ascending order: ``n`` values in each row of ``values`` (k, window), the rest infinite."""

    n: F64
    values: F64

    def take(self, at: Rows) -> Ordered:
        """The rings at these positions."""
        return Ordered(self.n[at], self.values[at])

    def median(self) -> F64:
        """The median of each ring; NaN where it is empty."""
        n, row = self.n.astype(np.int64), np.arange(len(self.n))
        middle = 0.5 * (self.values[row, np.maximum(n - 1, 0) // 2] + self.values[row, n // 2])
        return np.where(n > 0, middle, np.nan)

    def place(self) -> tuple[F64, F64]:
        """(0, median)."""
        return np.zeros(len(self.n)), self.median()

    def deviation(self, x: F64) -> tuple[F64, F64, F64]:
        """(x - median, median, spread); spread estimates the standard deviation from the median deviation
        from the median or, where more than half of the values are one, from the mean deviation."""
        median = self.median()
        spread = _MEDIAN_DEVIATION * _median_deviation(self.values, self.n.astype(np.int64), median)
        flat = np.flatnonzero(spread == 0.0)
        if len(flat):
            away = np.abs(self.values[flat] - median[flat, None])
            away[np.arange(away.shape[1]) >= self.n[flat, None]] = 0.0
            spread[flat] = _MEAN_DEVIATION * (away.sum(axis=1) / self.n[flat])
        return x - median, median, spread


def _median_deviation(ordered: F64, n: I64, median: F64) -> F64:
    """Median distance from ``median`` of the first ``n`` values of each row of ``ordered`` (k, window)."""
    width = ordered.shape[1]
    flat, start = ordered.reshape(-1), np.arange(len(n)) * width
    nearest = (n + 1) // 2
    # The first i of which the upper end of the values i to i + nearest is further away than the lower end.
    low, high = np.zeros_like(n), n - nearest
    for _ in range(width.bit_length()):
        i = (low + high) // 2
        further = flat[start + np.minimum(i + nearest - 1, width - 1)] - median >= median - flat[start + i]
        open_ = low < high
        high = np.where(open_ & further, i, high)
        low = np.where(open_ & ~further, i + 1, low)
    begin = np.maximum(low - 1, 0)
    above = flat[start + np.maximum(low + nearest - 1, 0)] - median
    below = median - flat[start + begin]
    # Either that i is the best, or the one before.
    farther_above, farther_below = np.maximum(above, median - flat[start + low]), below
    best = np.where((low > 0) & (farther_below < farther_above), begin, low)
    inner = np.minimum(np.where(low > 0, farther_below, np.inf), farther_above)
    after = best + nearest
    outer = np.minimum(
        np.where(best > 0, median - flat[start + np.maximum(best - 1, 0)], np.inf),
        np.where(after < n, flat[start + np.minimum(after, width - 1)] - median, np.inf),
    )
    deviation: F64 = np.where(n % 2 == 0, 0.5 * (inner + outer), inner)
    return deviation


class AheadOrdered(NamedTuple):
    """What pushing the values ``x`` to one ring would do; no push is a loss."""

    x: F64
    before: Ordered
    lost: Bool


class MedianBank:
    """Rings of the last ``window`` values of each of ``n`` series, beside them the same in order; ``limit``
    is how many values the ring of a series holds, at most and at first ``window``."""

    def __init__(self, n: int, window: int) -> None:
        self.window = window
        self.values = np.full((n, window), np.inf)
        self.head = np.zeros(n, np.int64)
        self.count = np.zeros(n)
        self.limit = np.full(n, window)
        self._ordered = self.values.copy()

    def __len__(self) -> int:
        return len(self.count)

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones are empty."""
        fill = {"values": np.inf, "limit": self.window}
        self.load({name: grown(column, n, fill.get(name, 0)) for name, column in self.dump().items()})

    def resize(self, rows: I64, limit: I64) -> None:
        """Let the rings of these rows hold ``limit`` values; they must not have held more since they were
        empty."""
        self.limit[rows] = limit
        self.head[rows] %= limit

    def sums(self, rows: Rows) -> Ordered:
        """The rings of these rows as they are now."""
        return Ordered(self.count[rows], self._ordered[rows])

    def push(self, rows: Rows, x: F64, accept: Bool) -> None:
        """Add a finite value to each of the (distinct) rows that accept it; the oldest leaves a full ring."""
        if not accept.all():
            at = np.flatnonzero(accept)
            rows, x = (at + rows.start if isinstance(rows, slice) else rows[at]), x[at]
        if len(x) == 0:
            return
        head, limit = self.head[rows], self.limit[rows]
        # Beyond the longest of these rings there is nothing to sort.
        width = int(limit.max())
        ordered = self._ordered[rows, :width]
        flat = self.values.reshape(-1)
        at = np.arange(len(self.head))[rows] * self.window + head
        leaving = flat[at]
        # Adding 0 makes one of the two zeros, whose order is not defined.
        flat[at] = x = x + 0.0
        ordered[np.arange(len(x)), (ordered < leaving[:, None]).sum(axis=1)] = x
        ordered.sort(axis=1, kind="stable")
        if not isinstance(rows, slice):
            self._ordered[rows, :width] = ordered
        self.head[rows] = np.where(head + 1 == limit, 0, head + 1)
        self.count[rows] = np.minimum(self.count[rows] + 1.0, limit)

    def ahead(self, row: int, x: F64) -> AheadOrdered:
        """What pushing the values ``x`` one after another to a ring would do."""
        head, limit, m = self.head[row], int(self.limit[row]), len(x)
        ring = np.concatenate([self.values[row, head:limit], self.values[row, :head], x + 0.0])
        values = np.sort(sliding_window_view(ring, limit), axis=1)
        if limit < self.window:
            # As wide as for any series: how sums round depends on it.
            values = np.pad(values, ((0, 0), (0, self.window - limit)), constant_values=np.inf)
        n = np.minimum(self.count[row] + np.arange(m + 1), limit)
        return AheadOrdered(x, Ordered(n, values), np.zeros(m, np.bool_))

    def until_rebase(self, row: int) -> int:  # noqa: ARG002
        """Any number of values may be looked at ahead."""
        return _NEVER

    def commit(self, row: int, ahead: AheadOrdered, m: int) -> None:
        """Make the first ``m`` pushes true."""
        limit = int(self.limit[row])
        keep = min(m, limit)
        slots = (self.head[row] + np.arange(m - keep, m)) % limit
        self.values[row, slots] = ahead.x[m - keep : m] + 0.0
        self.head[row] = (self.head[row] + m) % limit
        self.count[row], self._ordered[row] = ahead.before.n[m], ahead.before.values[m]

    def clear(self, rows: I64) -> None:
        """Forget everything of these rows."""
        self.head[rows], self.count[rows], self.limit[rows] = 0, 0.0, self.window
        self.values[rows] = self._ordered[rows] = np.inf

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The rings, for a snapshot; their order is found again from them."""
        return {name: getattr(self, name) for name in ("values", "head", "count", "limit")}

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave for a bank of the same window."""
        for name in ("values", "head", "count", "limit"):
            setattr(self, name, columns[name].copy())
        self._ordered = np.sort(self.values, axis=1)
