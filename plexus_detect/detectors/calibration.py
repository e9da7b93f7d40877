"""The alert line of each check, from the largest values it has shown on the series itself.

One line cannot fit every series: what is wild for one is daily life for another. So the line of a check is
the second largest maximum of a block of its own past: a record that one incident does not set. With n equal
blocks behind it a record is broken with probability about 1/n a block, whatever the distribution (Renyi
1962; block maxima: Gumbel, "Statistics of extremes", 1958), so lines are equally rare over series and checks.
The blocks, 32 of them, double in length as the series grows older; an incident counts as one block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.detectors.checks import Part
from plexus_detect.series import F64, I64, Bool, Rows

# Blocks kept; panes of the shortest and of the longest; before so many the largest counts, and more.
BLOCKS, BLOCK_PANES, BLOCK_PANES_MAX, BLOCKS_MIN = 32, 2, 256, 4
YOUNG = 1.25

# From so many blocks on a series can have an incident; before, everything is its past.
INCIDENTS_FROM = 2

# A block raises the line to at most this times itself; an incident of more blocks than this counts again.
RAISE_MAX, INCIDENT_BLOCKS = 2.0, 2

# What was alarmed is discounted: the height to beat is a part above it, grows by at most so much a point
# where it fades, and falls by half in so many panes.
ABOVE, ABOVE_FADING, GROWTH = 1.5, 1.3, 1.5
HALF_PANES = 37.5


class Lines(Columns):
    """The lines of ``parts`` for a bank of series, matrices (parts, series); those that fade come first.

    ``line`` is what a value is measured by; ``height`` the same, or what was alarmed lately if that is more.
    """

    line: F64
    height: F64
    blocks: F64
    top: F64
    second: F64
    count: F64
    length: F64
    alarm: F64
    block_max: F64
    pane_count: F64
    largest: F64
    gathered: F64
    incident: F64

    def __init__(self, parts: Sequence[Part]) -> None:
        k = len(parts)
        self.floor = np.array([part.floor for part in parts])[:, None]
        self.fading = sum(part.fades for part in parts)
        self.decay = 0.5 ** (1.0 / HALF_PANES)
        wide, ones = Column(shape=(k,), wide=True), Column(fill=1.0, shape=(k,), wide=True)
        self.COLUMNS = {  # type: ignore[misc]
            "line": ones,
            "height": ones,
            "blocks": Column(shape=(k, BLOCKS)),
            "top": wide,
            "second": wide,
            "count": wide,
            "length": ones,
            "alarm": wide,
            "block_max": wide,
            "pane_count": Column(),
            "largest": wide,
            "gathered": wide,
            "incident": wide,
        }
        super().__init__()

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the line of a new one is the floor."""
        old = self.line.shape[1]
        super().grow(n)
        self.line[:, old:] = self.height[:, old:] = self.floor

    def fade(self, at: Rows, value: F64) -> F64:
        """The heights (parts, m, 1 or w) that values (parts, m, w) meet; fading parts follow an alarm."""
        height = self.height[:, at]
        f = self.fading
        if not (value[:f] > height[:f, :, None]).any():
            return height[:, :, None]
        out = np.empty_like(value)
        out[f:] = height[f:, :, None]
        now = height[:f]
        for j in range(value.shape[2]):
            out[:f, :, j] = now
            new = value[:f, :, j]
            now = np.where(new > now, np.minimum(ABOVE_FADING * new, GROWTH * now), now)
        self.height[:f, at] = now
        return out

    def learn(self, rows: I64, most: F64) -> None:
        """Take in the largest values (parts, m) of a pane of each of ``rows``."""
        line, height, f = self.line[:, rows], self.height[:, rows], self.fading
        before = self.alarm[:, rows]
        alarm = before * self.decay
        alarm[f:] = np.where(most[f:] > height[f:], np.maximum(alarm[f:], ABOVE * most[f:]), alarm[f:])
        # The height of a fading part carries its own alarm, if it was raised in this pane.
        raised = height[:f] > np.maximum(line[:f], before[:f])
        alarm[:f] = np.where(raised, height[:f] * self.decay, alarm[:f])
        self.alarm[:, rows] = alarm
        self.block_max[:, rows] = np.maximum(self.block_max[:, rows], most)
        panes = self.pane_count[rows] + 1.0
        self.pane_count[rows] = panes
        ends = panes >= BLOCK_PANES
        if ends.any():
            self._end_block(rows[ends])
        self.height[:, rows] = np.maximum(self.line[:, rows], alarm)

    def _end_block(self, rows: I64) -> None:
        """Sort the block's maximum into an incident, or into the blocks of the past."""
        line, most = self.line[:, rows], np.maximum(self.block_max[:, rows], self.floor)
        self.block_max[:, rows], self.pane_count[rows] = 0.0, 0.0
        beyond = (most > line) & (self.count[:, rows] >= INCIDENTS_FROM)
        before, gathered, length = self.incident[:, rows], self.gathered[:, rows], self.length[:, rows]
        bounded = np.where(beyond, np.minimum(most, RAISE_MAX * line), most)
        largest = np.maximum(self.largest[:, rows], bounded)
        incident = np.where(beyond, before + 1.0, 0.0)
        again = beyond & (incident >= INCIDENT_BLOCKS * length)
        over = ~beyond & (before > 0.0)
        gathered = np.where(beyond | over, 0.0, gathered + 1.0)
        keep = again | over | (~beyond & (gathered >= length))
        if keep.any():
            self._keep(rows, largest, keep)
        self.largest[:, rows] = np.where(keep, 0.0, largest)
        self.gathered[:, rows] = np.where(keep, 0.0, gathered)
        self.incident[:, rows] = np.where(again, 1.0, incident)

    def _keep(self, rows: I64, value: F64, keep: Bool) -> None:
        """Add a block maximum to those of the past; full ones are joined in pairs, or the oldest goes."""
        part, at = np.nonzero(keep)
        row, new = rows[at], value[part, at]
        full = self.count[part, row] >= BLOCKS
        if full.any():
            self._make_room(row[full], part[full])
        count = self.count[part, row].astype(np.int64)
        self.blocks[row, part, count] = new
        self.count[part, row] = count + 1.0
        top, second = self.top[part, row], self.second[part, row]
        self.top[part, row] = now = np.maximum(top, new)
        self.second[part, row] = second = np.maximum(second, np.minimum(top, new))
        line = np.where(count + 1 < BLOCKS_MIN, YOUNG * now, second)
        self.line[part, row] = np.maximum(line, self.floor[part, 0])

    def _make_room(self, row: I64, part: I64) -> None:
        """Join full blocks in pairs, twice as long; the longest only lose the oldest."""
        joins = self.length[part, row] * BLOCK_PANES < BLOCK_PANES_MAX
        held = self.blocks[row, part]
        half = BLOCKS // 2
        joined, shorter = np.zeros_like(held), np.zeros_like(held)
        joined[:, :half] = held.reshape(-1, half, 2).max(axis=2)
        shorter[:, :-1] = held[:, 1:]
        held = np.where(joins[:, None], joined, shorter)
        self.blocks[row, part] = held
        self.count[part, row] = np.where(joins, half, BLOCKS - 1)
        self.length[part, row] *= np.where(joins, 2.0, 1.0)
        largest = np.partition(held, BLOCKS - 2, axis=1)
        self.top[part, row], self.second[part, row] = largest[:, -1], largest[:, -2]
