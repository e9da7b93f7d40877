"""Checks against the time of day and of the week: what is usual at this hour, learned online.

The expected value is a slow level plus a profile of half hours, one for working days and one for weekends, in
local time (so that a clock change moves the profile with people's habits). ``season`` compares a value with
the level of the last 512 points plus the profile, where the profile earns its place; ``daily drift`` the last
hour with the level of three days plus the profile: it sees what creeps in over hours, which no shorter
baseline can. Both are learned by bounded steps, so that one bad night does not become the habit. The profile
is that of seasonal exponential smoothing with additive season (Winters, Management Science 6, 1960), its
error bounded as in its robust form (Gelper, Fried, Croux, Journal of Forecasting 29, 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar
from zoneinfo import ZoneInfo

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.detectors.checks import PANE, Block, Pane, Part, Reading, clipped
from plexus_detect.series import F64, I64, Reason, Rows

HOUR_MS, DAY_MS = 3_600_000.0, 86_400_000
SLOTS, SLOT_MS = 48, 1_800_000

# The fast level and its distance, in panes; the slow level, and how fast a slot follows, in days.
LEVEL_PANES, DISTANCE_PANES = 32.0, 512.0
SLOW_DAYS, SLOT_RATE = 3.0, 0.15

# Steps are bounded by that many distances, once there were so many panes.
STEP_MAX, DISTANCE_MAX, FIRST_PANES = 3.0, 6.0, 8

# The profile is used when it explains this much of the distance. The size of an hour's drift is learned from
# the one age on and scored from the other, and counts no less than a part of the typical residual.
WORTH, HOURS_FROM_MS, HOURS_SCORED_MS, HOUR_LEAST = 1.3, 2 * DAY_MS, 3 * DAY_MS, 0.5

# A value counts in its hour as at most this many typical residuals.
HOUR_MOST = 50.0


class Season(Columns):
    """The checks season and daily drift."""

    COLUMNS: ClassVar[Mapping[str, Column]] = {
        "level": Column(),
        "distance": Column(),
        "profile": Column(shape=(2 * SLOTS,)),
        "slot_seen": Column(shape=(2 * SLOTS,)),
        "slow": Column(),
        "slow_distance": Column(),
        "plain_distance": Column(),
        "hour": Column(),
        "hour_distance": Column(),
        "hours_seen": Column(),
        "begin_ms": Column(fill=-1, dtype=np.int64),
        "last_ms": Column(dtype=np.int64),
        "useful": Column(),
        "scale": Column(fill=np.inf),
        "hour_scale": Column(fill=np.inf),
        "anew": Column(),
    }
    parts = (
        Part(
            Reason.SEASON,
            "the value against the level of the last 512 points and the time of day",
            floor=4.0,
            weight=1.0,
            fades=True,
        ),
        Part(
            Reason.DRIFT,
            "the last hour against the level of three days and the time of day",
            floor=5.0,
            weight=1.0,
            fades=False,
        ),
    )
    level: F64
    distance: F64
    profile: F64
    slot_seen: F64
    slow: F64
    slow_distance: F64
    plain_distance: F64
    hour: F64
    hour_distance: F64
    hours_seen: F64
    begin_ms: I64
    last_ms: I64
    useful: F64
    scale: F64
    hour_scale: F64
    anew: F64

    def __init__(self, timezone: str = "UTC") -> None:
        super().__init__()
        self._zone = ZoneInfo(timezone)
        self._offset_of: dict[int, int] = {}

    def _slots(self, t_ms: I64) -> I64:
        """The slot of each time: 0 to 47 on working days, 48 to 95 on Saturday and Sunday, in local time."""
        quarter = t_ms // 900_000
        low, high = int(quarter.min(initial=0)), int(quarter.max(initial=0))
        if low == high:
            local = t_ms + self._offset(low)
        else:
            each, place = np.unique(quarter, return_inverse=True)
            local = t_ms + np.array([self._offset(q) for q in each.tolist()])[place].reshape(t_ms.shape)
        day = local // DAY_MS
        # 1 January 1970 was a Thursday.
        weekend = (day + 3) % 7 >= 5
        slot: I64 = (local - day * DAY_MS) // SLOT_MS + SLOTS * weekend
        return slot

    def _offset(self, quarter: int) -> int:
        """Milliseconds of local time ahead of UTC in this quarter of an hour."""
        offset = self._offset_of.get(quarter)
        if offset is None:
            if len(self._offset_of) > 4096:
                self._offset_of.clear()
            offset = self._offset_of[quarter] = _utc_offset_ms(self._zone, quarter * 900_000)
        return offset

    def _seasonal(self, rows: I64, slot: I64) -> F64:
        """The profile at the slots, (m, w); a weekend that was never seen is like a working day."""
        at = rows[:, None]
        return self.profile[at, np.where(self.slot_seen[at, slot] > 0.0, slot, slot % SLOTS)]

    def expected(self, rows: I64, at: Rows, t_ms: I64) -> F64:
        """The level plus the profile where it is useful, (m, w) or (m, 1)."""
        centre = self.level[at][:, None]
        useful = self.useful[at]
        if useful.any():
            centre = centre + useful[:, None] * self._seasonal(rows, self._slots(t_ms))
        return centre

    def read(self, block: Block) -> list[Reading]:
        """Season and daily drift of each point."""
        rows, at = block.rows, block.at
        centre = self.expected(rows, at, block.t_ms)
        hour = self.hour[at][:, None]
        return [
            Reading(block.x, centre, np.maximum(self.scale[at][:, None], block.floor)),
            Reading(hour, np.zeros_like(hour), self.hour_scale[at][:, None]),
        ]

    def learn(self, pane: Pane) -> None:
        """Level, profile and hour from the pane."""
        rows = pane.rows
        self.begin_ms[rows] = np.where(self.begin_ms[rows] < 0, pane.t_ms[:, 0], self.begin_ms[rows])
        self.last_ms[rows] = pane.t_ms[:, -1]
        slot = self._slots(pane.t_ms)
        seasonal = self._seasonal(rows, slot)
        self._learn_level(pane, seasonal)
        residual = pane.smooth - self.slow[rows][:, None] - seasonal
        plain = np.abs(pane.x - self.slow[rows][:, None]).sum(axis=1) / PANE
        self._learn_hour(pane, residual)
        self._learn_profile(pane, slot, residual, plain)
        self.scale[rows] = np.where(pane.panes >= 2, self.distance[rows], np.inf)
        hour = np.maximum(
            self.hour_distance[rows], np.maximum(pane.floor, HOUR_LEAST * self.slow_distance[rows])
        )
        old = self.last_ms[rows] - self.begin_ms[rows] >= HOURS_SCORED_MS
        known = old & (self.hours_seen[rows] >= FIRST_PANES) & (hour > 0.0)
        self.hour_scale[rows] = np.where(known, hour, np.inf)

    def accept(self, pane: Pane) -> None:
        """Take the level of the pane as the new normal, with the profile as it is."""
        rows = pane.rows
        seasonal = self._seasonal(rows, self._slots(pane.t_ms)).sum(axis=1) / PANE
        self.level[rows] = pane.mean - self.useful[rows] * seasonal
        self.slow[rows] = pane.mean - seasonal
        self.hour[rows] = 0.0

    def _learn_level(self, pane: Pane, seasonal: F64) -> None:
        rows, panes = pane.rows, pane.panes
        level, distance = self.level[rows], self.distance[rows]
        off = pane.x - level[:, None] - self.useful[rows][:, None] * seasonal
        most = np.where(distance > 0.0, DISTANCE_MAX * distance, np.inf)
        apart = np.minimum(np.abs(off), most[:, None]).sum(axis=1) / PANE
        limit = np.where(panes > FIRST_PANES, STEP_MAX * np.maximum(distance, pane.floor), np.inf)
        mean = off.sum(axis=1) / PANE
        anew = self.anew[rows] > 0.0
        step = clipped(mean, limit) / np.minimum(panes, LEVEL_PANES)
        self.level[rows] = level + np.where(anew, mean, step)
        learned = distance + (apart - distance) / np.minimum(panes, DISTANCE_PANES)
        self.distance[rows] = np.where(anew, distance, learned)
        self.anew[rows] = 0.0

    def _learn_hour(self, pane: Pane, residual: F64) -> None:
        """The mean of about an hour of what level and profile leave, and its typical size."""
        rows = pane.rows
        span = PANE * pane.cadence_ms
        usual = np.maximum(self.slow_distance[rows], pane.floor)
        most = np.where(pane.panes > FIRST_PANES, HOUR_MOST * usual, np.inf)
        mean = clipped(residual, most[:, None]).sum(axis=1) / PANE
        hour = self.hour[rows] + np.minimum(1.0, span / HOUR_MS) * (mean - self.hour[rows])
        ready = self.last_ms[rows] - self.begin_ms[rows] >= HOURS_FROM_MS
        seen, usual = self.hours_seen[rows] + ready, self.hour_distance[rows]
        most = np.where(seen > FIRST_PANES, DISTANCE_MAX * usual, np.inf)
        apart = np.minimum(np.abs(hour), most)
        rate = np.maximum(1.0 / np.maximum(seen, 1.0), np.minimum(1.0, span / (5.0 * DAY_MS)))
        self.hour[rows], self.hours_seen[rows] = hour, seen
        self.hour_distance[rows] = np.where(ready, usual + rate * (apart - usual), usual)

    def _learn_profile(self, pane: Pane, slot: I64, residual: F64, plain: F64) -> None:
        """Slow level and profile from what they leave, each by a bounded part of it."""
        rows, panes = pane.rows, pane.panes
        usual, span = self.slow_distance[rows], PANE * pane.cadence_ms
        limit = np.where(panes > FIRST_PANES, STEP_MAX * np.maximum(usual, pane.floor), np.inf)
        bounded = clipped(residual, limit[:, None])
        memory = np.minimum(panes, np.maximum(SLOW_DAYS * DAY_MS / span, 4.0))
        apart = np.minimum(np.abs(residual), np.where(panes > 1, DISTANCE_MAX * usual, np.inf)[:, None])
        apart = np.where(usual[:, None] > 0.0, apart, np.abs(residual)).sum(axis=1) / PANE
        self.slow_distance[rows] = usual + (apart - usual) / memory
        self.plain_distance[rows] += (plain - self.plain_distance[rows]) / memory
        self.slow[rows] += bounded.sum(axis=1) / PANE / memory
        self._fill_slots(pane, slot, bounded)
        old = self.useful[rows]
        aged = self.last_ms[rows] - self.begin_ms[rows] >= DAY_MS
        worth = aged & (self.plain_distance[rows] > WORTH * self.slow_distance[rows])
        self.useful[rows] = worth
        # The fast level is what the profile leaves: it changes with the use of the profile.
        change = (old - worth) * self._seasonal(rows, slot[:, -1:])[:, 0]
        self.level[rows] += change

    def _fill_slots(self, pane: Pane, slot: I64, bounded: F64) -> None:
        """Move each slot that the pane touched towards the mean of its residuals there."""
        flat = slot.ravel()
        begins = np.ones(flat.shape, np.bool_)
        np.not_equal(flat[1:], flat[:-1], out=begins[1:])
        begins[::PANE] = True
        start = np.flatnonzero(begins)
        count = np.diff(np.append(start, len(flat))).astype(np.float64)
        mean = np.add.reduceat(bounded.ravel(), start) / count
        row, place = pane.rows[start // PANE], flat[start]
        seen = self.slot_seen[row, place]
        first = (seen == 0.0) & (place >= SLOTS)
        self.profile[row[first], place[first]] = self.profile[row[first], place[first] - SLOTS]
        least = SLOT_RATE * pane.cadence_ms[start // PANE] / SLOT_MS
        rate = np.minimum(1.0, np.maximum(count * least, count / (seen + count)))
        np.add.at(self.profile, (row, place), rate * mean)
        np.add.at(self.slot_seen, (row, place), count)

    def resume(self, rows: I64, gap_panes: F64) -> None:
        """After a long silence the fast level begins anew: nothing is compared with it for a pane."""
        at = rows[gap_panes > LEVEL_PANES]
        self.anew[at], self.scale[at] = 1.0, np.inf


def _utc_offset_ms(zone: ZoneInfo, t_ms: int) -> int:
    """Local time minus UTC at ``t_ms``; 0 for years that the calendar does not know."""
    from datetime import UTC, datetime

    try:
        offset = datetime.fromtimestamp(t_ms / 1000, UTC).astimezone(zone).utcoffset()
    except (OverflowError, ValueError, OSError):
        return 0
    return round(offset.total_seconds() * 1000) if offset else 0
