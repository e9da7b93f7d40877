"""The points of several metrics of a source joined into rows, by their times.

A row holds one value of each metric, the first of its bucket of time. It is closed as soon as every metric
has come as far, and goes without those that are missing once the others are a few steps ahead. All of that
is decided by the times of the points, so that it does not matter which poll brought which point, as long as
no metric lags behind the others by more than that wait.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Column, Columns, Snapshot
from plexus_detect.series import F64, I64, Bool, Points
from plexus_detect.stats import usable

# A missing metric is waited for so many of the usual steps between rows, within these bounds.
WAIT_STEPS, WAIT_MS_LEAST, WAIT_MS_MAX = 3, 3_000, 3_600_000

# The usual step is the median of so many.
STEPS = 8

# Rows of a source that may wait for a missing metric: should a clock go wild, the oldest go without it.
ROWS_MAX = 256

# A row of fewer values says nothing about how metrics move together.
VALUES_LEAST = 2


class Rows(NamedTuple):
    """n rows: the feed (source) of each, the time of its newest value, and one column for each metric,
    (n, k), NaN for what is missing."""

    feed: I64
    t_ms: I64
    x: F64

    def take(self, index: I64 | Bool) -> Rows:
        """The rows at ``index`` (positions or a mask), in that order."""
        return Rows(self.feed[index], self.t_ms[index], self.x[index])

    def and_then(self, more: Rows) -> Rows:
        """These rows and more of them."""
        if not len(self.feed):
            return more
        return Rows(*(np.concatenate(pair) for pair in zip(self, more, strict=True)))


def no_rows(k: int) -> Rows:
    """No rows of ``k`` metrics."""
    return Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, k)))


class Cells(Columns):
    """Of a metric of a feed: the bucket of its newest point (-1: it has none)."""

    newest: I64

    COLUMNS: ClassVar = {"newest": Column(-1, dtype=np.int64)}


class Feeds(Columns):
    """Of a feed: the time of its newest point, its last closed bucket, the time of its last row (-1: none),
    the last steps between rows (0: unknown), how many points came too late for their row, and how many rows
    had too few values to be judged."""

    newest_ms: I64
    closed: I64
    last_ms: I64
    steps: I64
    left_out: I64
    alone: I64

    COLUMNS: ClassVar = {
        "newest_ms": Column(-1, dtype=np.int64),
        "closed": Column(-1, dtype=np.int64),
        "last_ms": Column(-1, dtype=np.int64),
        "steps": Column(0, (STEPS,), np.int64),
        "left_out": Column(0, dtype=np.int64),
        "alone": Column(0, dtype=np.int64),
    }


class Join:
    """Joins the points of ``k`` metrics into rows, for a bank of feeds. Cell ``feed * k + column`` is a
    metric of a feed. A bucket is ``align_ms`` around its middle, so that times just before and just after a
    full second meet."""

    def __init__(self, k: int, align_ms: int) -> None:
        self.k = k
        self.align_ms = max(1, align_ms)
        self.feeds = Feeds()
        self.cells = Cells()
        self._put(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

    def _put(self, cell: I64, t_ms: I64, value: F64) -> None:
        """Keep these values for rows that are not closed."""
        self.cell, self.t_ms, self.value = cell, t_ms, value

    def __len__(self) -> int:
        return len(self.feeds.closed)

    def grow(self, n: int) -> None:
        """Room for ``n`` feeds."""
        self.feeds.grow(n)
        self.cells.grow(n * self.k)

    def step(self, cell: I64, points: Points) -> Rows:
        """Take points of ``cell``, those of each in order of time; the rows that are closed by them, in order
        of feed and time."""
        self._keep(cell, points)
        if not len(self.cell):
            return no_rows(self.k)
        bucket = self._bucket(self.t_ms)
        order = np.lexsort((bucket, self.cell // self.k))
        cell, t_ms, value, bucket = self.cell[order], self.t_ms[order], self.value[order], bucket[order]
        feed = cell // self.k
        begins = (np.diff(feed, prepend=-1) != 0) | (np.diff(bucket, prepend=-1) != 0)
        starts, row = np.flatnonzero(begins), np.cumsum(begins) - 1
        rows = Rows(feed[starts], np.maximum.reduceat(t_ms, starts), np.full((len(starts), self.k), np.nan))
        rows.x[row, cell % self.k] = value
        closed = self._closed(rows, bucket[starts])
        left = ~closed[row]
        self._put(cell[left], t_ms[left], value[left])
        many = np.isfinite(rows.x).sum(axis=1) >= VALUES_LEAST
        np.add.at(self.feeds.alone, rows.feed[closed & ~many], 1)
        return rows.take(closed & many)

    def _bucket(self, t_ms: I64) -> I64:
        return (t_ms + self.align_ms // 2) // self.align_ms

    def _end_ms(self, bucket: int) -> int:
        """The last millisecond of a bucket."""
        return (bucket + 1) * self.align_ms - self.align_ms // 2 - 1

    def _keep(self, cell: I64, points: Points) -> None:
        """Keep the first value of each metric in each bucket that is not closed."""
        feeds, newest = self.feeds, self.cells.newest
        np.add.at(feeds.left_out, cell[points.late] // self.k, 1)
        at = np.flatnonzero(~points.late)
        at = at[np.argsort(cell[at], kind="stable")]
        if not len(at):
            return
        cell, t_ms, value = cell[at], points.t_ms[at], points.value[at]
        feed, bucket = cell // self.k, self._bucket(t_ms)
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        before = np.roll(bucket, 1)
        before[starts] = newest[cell[starts]]
        ends = np.append(starts[1:], len(cell)) - 1
        newest[cell[ends]] = np.maximum(newest[cell[ends]], bucket[ends])
        np.maximum.at(feeds.newest_ms, feed, t_ms)
        first, behind = bucket > before, bucket <= feeds.closed[feed]
        np.add.at(feeds.left_out, feed[first & behind], 1)
        kept = first & ~behind & usable(value)
        self._put(
            np.concatenate([self.cell, cell[kept]]),
            np.concatenate([self.t_ms, t_ms[kept]]),
            np.concatenate([self.value, value[kept]]),
        )

    def _closed(self, rows: Rows, bucket: I64) -> Bool:
        """Which rows, in order of feed and bucket, nothing can be added to any more."""
        closed = np.zeros(len(bucket), np.bool_)
        starts = np.flatnonzero(np.diff(rows.feed, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(bucket)], strict=True):
            n = self._close(int(rows.feed[start]), bucket[start:end], rows.t_ms[start:end])
            closed[start : start + n] = True
        return closed

    def _close(self, feed: int, bucket: I64, t_ms: I64) -> int:
        """Close the oldest rows of a feed; returns how many."""
        feeds = self.feeds
        reached = self.cells.newest[feed * self.k : (feed + 1) * self.k].min()
        n = int(np.searchsorted(bucket, reached, side="right"))
        self._pace(feed, t_ms[:n])
        while n < len(bucket):
            waited = int(feeds.newest_ms[feed]) - self._end_ms(int(bucket[n]))
            if waited < self._wait_ms(feed) and len(bucket) - n <= ROWS_MAX:
                break
            self._pace(feed, t_ms[n : n + 1])
            n += 1
        if n:
            feeds.closed[feed] = bucket[n - 1]
        return n

    def _pace(self, feed: int, t_ms: I64) -> None:
        """Learn the steps between rows."""
        feeds = self.feeds
        if not len(t_ms):
            return
        times = t_ms[-STEPS - 1 :]
        if feeds.last_ms[feed] >= 0 and len(t_ms) <= STEPS:
            times = np.append(feeds.last_ms[feed], times)
        feeds.steps[feed] = np.append(feeds.steps[feed], np.diff(times))[-STEPS:]
        feeds.last_ms[feed] = t_ms[-1]

    def _wait_ms(self, feed: int) -> int:
        step = int(np.sort(self.feeds.steps[feed])[STEPS // 2])
        least = max(WAIT_MS_LEAST, WAIT_STEPS * self.align_ms)
        return min(max(WAIT_STEPS * step, least), WAIT_MS_MAX)

    def dump(self, n: int) -> dict[str, npt.NDArray[np.generic]]:
        """The state of the first ``n`` feeds as named columns."""
        held = {"cell": self.cell, "t_ms": self.t_ms, "value": self.value}
        return held | self.feeds.save("feeds.", n) | self.cells.save("cells.", n * self.k)

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave."""
        self._put(*(columns[name].copy() for name in ("cell", "t_ms", "value")))  # type: ignore[arg-type]
        self.feeds.restore(columns, "feeds.")
        self.cells.restore(columns, "cells.")
