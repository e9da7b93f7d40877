"""Points into blocks and panes: what the detector "auto" scores and learns at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.detectors.checks import PANE, Block, Pane
from plexus_detect.series import F64, I64, Bool, Points, Rows, rounds, together

# Values kept from before the pane: the mean of eight needs the one that leaves it.
BEFORE = 8

# A step below this many parts of the value is rounding, not the sensor's resolution.
ROUNDING = 8 * float(np.finfo(np.float64).eps)

# A silence of this many typical intervals begins a new pane; so rarely is the typical interval measured.
GAP_INTERVALS = 64.0

# Series that are scored at once: their columns fit into the processor's cache.
BLOCK_SERIES = 16384

# Fewer series than this with more points each are taken in blocks of more than one point a series.
FEW_SERIES, MANY_POINTS = 512, 3


class Panes(Columns):
    """The unfinished pane of each series, and what single points are described with."""

    COLUMNS: ClassVar[Mapping[str, Column]] = {
        "values": Column(shape=(BEFORE + PANE,)),
        "smooth": Column(shape=(BEFORE + PANE,)),
        "times": Column(shape=(PANE,), dtype=np.int64),
        "fill": Column(dtype=np.int64),
        "panes": Column(),
        "origin": Column(),
        "begun": Column(dtype=np.bool_),
        "resolution": Column(fill=np.inf),
        "run": Column(),
        "sum8": Column(),
        "last_ms": Column(dtype=np.int64),
        "cadence_ms": Column(),
    }
    values: F64
    smooth: F64
    times: I64
    fill: I64
    panes: F64
    origin: F64
    begun: Bool
    resolution: F64
    run: F64
    sum8: F64
    last_ms: I64
    cadence_ms: F64

    def cut(self, points: Points) -> Iterator[tuple[I64, I64, bool]]:
        """Blocks of points, as (rows (m,), positions (m, w), whether they are learned), in order of time.

        No series stands twice in a block, and none of its points crosses the end of a pane, follows a long
        silence unless it is the first, or is late: late points come alone. The generator reads the state of
        the panes, so a block has to be taken in before the next is asked for.
        """
        parts = rounds(points.series)
        wide = parts.n <= MANY_POINTS or len(points) > FEW_SERIES * parts.n
        if wide:
            for at in parts:
                late = points.late[at]
                for all_of, learned in ((at[~late], True), (at[late], False)):
                    for start in range(0, len(all_of), BLOCK_SERIES):
                        some = all_of[start : start + BLOCK_SERIES]
                        yield points.series[some], some[:, None], learned
            return
        order = np.argsort(points.series, kind="stable")
        series, t_ms, late = points.series[order], points.t_ms[order], points.late[order]
        begin = np.flatnonzero(np.diff(series, prepend=-1))
        end = np.append(begin[1:], len(series))
        at = begin.copy()
        while len(live := np.flatnonzero(at < end)):
            head = at[live]
            rows = series[head]
            alone = late[head] | ~self.begun[rows] | (self.silent(rows, t_ms[head]) > 0.0)
            phase = np.where(late[head], -2, np.where(alone, -1, self.fill[rows]))
            group = live[phase == phase[0]]
            head = at[group]
            width = 1 if phase[0] < 0 else self._width(series[head], head, end[group], (t_ms, late))
            yield series[head], order[head[:, None] + np.arange(width)], bool(phase[0] > -2)
            at[group] += width

    def _width(self, rows: I64, head: I64, end: I64, columns: tuple[I64, Bool]) -> int:
        """How many points of each of these series can be taken together."""
        t_ms, late = columns
        width = int(min(PANE - self.fill[rows[0]], (end - head).min()))
        if width > 1:
            at = head[:, None] + np.arange(width)
            gap = np.diff(t_ms[at], axis=1) > GAP_INTERVALS * self._interval(rows)[:, None]
            stop = np.flatnonzero((late[at[:, 1:]] | gap).any(axis=0))
            if len(stop):
                width = int(stop[0]) + 1
        return width

    def _interval(self, rows: Rows) -> F64:
        """The typical interval of these series, infinite while it is not known."""
        known: F64 = np.where(self.cadence_ms[rows] > 0.0, self.cadence_ms[rows], np.inf)
        return known

    def silent(self, rows: I64, t_ms: I64) -> F64:
        """For how many panes series were silent before ``t_ms``, 0 for those that were not."""
        at = together(rows)
        gap = t_ms - self.last_ms[at]
        interval = self._interval(at)
        return np.where(self.begun[at] & (gap > GAP_INTERVALS * interval), gap / (PANE * interval), 0.0)

    def begin(self, rows: I64, x: F64) -> None:
        """Take the first values of those that have none yet as their origin."""
        cold = ~self.begun[together(rows)]
        if cold.any():
            self.origin[rows[cold]] = x[cold]
            self.begun[rows[cold]] = True

    def resume(self, rows: I64, x: F64) -> None:
        """Begin a new pane after a silence: the value is its own past."""
        self.fill[rows], self.run[rows] = 0, 0.0
        self.values[rows, :BEFORE] = self.smooth[rows, :BEFORE] = x[:, None]
        self.sum8[rows] = BEFORE * x

    def describe(self, rows: I64, t_ms: I64, value: F64) -> Block:
        """The block of points of these rows, times and values (m, w)."""
        at, w = together(rows), value.shape[1]
        x = value - self.origin[at][:, None]
        if w == 1:
            place = (BEFORE + PANE) * rows + self.fill[at]
            values = self.values.reshape(-1)
            before, second = values[place + (BEFORE - 1)][:, None], values[place + (BEFORE - 2)][:, None]
            smooth = _median3(x, before, second)
            leaving = self.smooth.reshape(-1)[place][:, None]
        else:
            p = int(self.fill[rows[0]])
            past = np.concatenate([self.values[at, p + BEFORE - 2 : p + BEFORE], x], axis=1)
            before, second = past[:, 1:-1], past[:, :-2]
            smooth = _median3(x, before, second)
            leaving = np.concatenate([self.smooth[at, p : p + BEFORE], smooth], axis=1)[:, :w]
        step = np.abs(x - before)
        same = step <= ROUNDING * np.abs(value)
        step[same] = 0.0
        finest = np.where(same, np.inf, step)
        finest[:, 0] = np.minimum(finest[:, 0], self.resolution[at])
        step = np.minimum(step, np.abs(x - second))
        change = smooth - leaving
        change[:, 0] += self.sum8[at]
        if w > 1:
            finest = np.minimum.accumulate(finest, axis=1)
            change = np.add.accumulate(change, axis=1)
        run = _runs(same, self.run[at])
        return Block(rows, at, t_ms, x, smooth, step, same, run, change / BEFORE, finest)

    def take(self, block: Block) -> I64:
        """Add the points of a block to their panes; returns the positions of rows whose pane is now full."""
        rows, at, w = block.rows, block.at, block.x.shape[1]
        fill = self.fill[at]
        if w == 1:
            place = (BEFORE + PANE) * rows + fill + BEFORE
            self.values.reshape(-1)[place] = block.x[:, 0]
            self.smooth.reshape(-1)[place] = block.smooth[:, 0]
            self.times.reshape(-1)[PANE * rows + fill] = block.t_ms[:, 0]
        else:
            p = int(fill[0])
            self.values[at, BEFORE + p : BEFORE + p + w] = block.x
            self.smooth[at, BEFORE + p : BEFORE + p + w] = block.smooth
            self.times[at, p : p + w] = block.t_ms
        now = fill + w
        self.fill[at] = now
        self.run[at], self.sum8[at] = block.run[:, -1], BEFORE * block.mean8[:, -1]
        self.resolution[at] = block.floor[:, -1]
        self.last_ms[at] = block.t_ms[:, -1]
        full: I64 = np.flatnonzero(now == PANE)
        return full

    def close(self, rows: I64) -> Pane:
        """The full panes of these rows, which begin new ones."""
        held, times = self.values[rows], self.times[rows]
        x = held[:, BEFORE:].copy()
        step = np.abs(x - held[:, BEFORE - 1 : -1])
        step[step <= ROUNDING * np.abs(x + self.origin[rows][:, None])] = 0.0
        interval = np.sort(np.diff(times, axis=1), axis=1)[:, PANE // 2 - 1].astype(np.float64)
        interval = np.maximum(interval, 1.0)
        cadence = self.cadence_ms[rows]
        # A median of medians, taken step by step: it follows a new cadence within a few panes.
        cadence = np.where(cadence > 0.0, cadence + 0.25 * (interval - cadence), interval)
        self.cadence_ms[rows] = cadence
        self.panes[rows] += 1.0
        self.values[rows, :BEFORE] = held[:, PANE:]
        self.fill[rows] = 0
        smooth = self.smooth[rows]
        self.smooth[rows, :BEFORE] = smooth[:, PANE:]
        self.sum8[rows] = np.ascontiguousarray(smooth[:, PANE:]).sum(axis=1)
        resolution = self.resolution[rows]
        floor = np.where(resolution < np.inf, resolution, 0.0)
        lately = np.ascontiguousarray(smooth[:, BEFORE:])
        mean = lately.sum(axis=1) / PANE
        return Pane(rows, times, x, lately, step, floor, self.panes[rows], cadence, mean, np.sort(x, axis=1))


def _median3(a: F64, b: F64, c: F64) -> F64:
    """The median of three: what a single wild value cannot move."""
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _runs(same: Bool, before: F64) -> F64:
    """How many equal values in a row each point ends, (m, w), ``before`` being the run so far."""
    if same.shape[1] == 1:
        return np.where(same[:, 0], before + 1.0, 1.0)[:, None]
    place = np.arange(same.shape[1])
    changed = np.maximum.accumulate(np.where(same, -1, place), axis=1)
    return np.where(changed < 0, before[:, None] + place + 1.0, place - changed + 1.0)
