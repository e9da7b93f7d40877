"""Cross-section of one metric over many sources: median and MAD, with each device's own offset removed.

Time is cut into buckets of about the sources' cadence. At the start of a bucket the newest value of every
source that is not stale, less the offset that source has shown so far, gives centre (median) and scale
(1.4826 x MAD, the consistent estimator for a normal distribution: Rousseeuw and Croux, JASA 88, 1993; the
mean absolute deviation x 1.2533 where MAD is 0). The points of the bucket are scored against that: a score
needs no later point, and one bucket costs one selection however many sources there are.
A device that always reads 2 degrees more than the others is *always different*, not *odd now*: its offset
is learned from the points that are not themselves flagged, and a new offset that lasts becomes normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64, I64, Points, Scores, rounds
from plexus_detect.stats import Z_MAX, grown, usable

MAD_TO_STD = 1.4826
MEAN_DEVIATION_TO_STD = 1.2533

# A source is stale when nothing of it arrived for this many buckets; freshness goes by arrival, because
# judging it by the device's clock would silence every device whose clock is wrong.
STALE_SLOTS = 3

# A point this many buckets ahead of the fleet has a wrong clock, unless the other sources follow.
CLOCK_SLOTS_MAX = 3

# Widths a bucket may have when it follows the cadence, in milliseconds.
_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
LADDER_MS = np.array([round(1000 * s) for s in _SECONDS])


@dataclass(frozen=True)
class FleetParams:
    """``group_min`` fresh sources make a group; ``bucket_ms`` and ``stale_ms`` of None follow the cadence
    (a source is stale after 3 buckets); ``offset_window`` points is the memory of a device's offset."""

    threshold: float = 3.0
    group_min: int = 5
    min_points: int = 30
    offset_window: int = 300
    bucket_ms: int | None = None
    stale_ms: int | None = None
    scale_floor: float = 0.0
    relearn_ms: int = 3_600_000

    def fingerprint(self) -> str:
        """All settings as one stable text."""
        return ",".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))


class Fleet:
    """The sources of one metric; one row a source."""

    def __init__(self, params: FleetParams) -> None:
        self.params = params
        self.bucket_ms = params.bucket_ms or 0
        self.slot = -1
        self.centre = np.nan
        self.scale = np.nan
        self.fresh = 0
        self.step_min = np.inf
        self.value = np.zeros(0)
        self.t_ms = np.zeros(0, np.int64)
        self.seen_slot = np.zeros(0, np.int64)
        self.ahead = np.zeros(0, np.bool_)
        self.cadence_ms = np.zeros(0)
        self.offset = np.zeros(0)
        self.count = np.zeros(0, np.int64)
        self.outside = np.zeros(0, np.int64)
        self.since_ms = np.zeros(0, np.int64)
        self.held = np.zeros(0)

    def __len__(self) -> int:
        return len(self.value)

    def grow(self, n: int) -> None:
        """Room for ``n`` sources."""
        for name, column in self._columns().items():
            setattr(self, name, grown(column, n, np.nan if name == "value" else 0))

    def step(self, points: Points) -> Scores:
        """Score points in order of arrival (``series`` are rows of this fleet), then learn them.

        NaN while the source has fewer than ``min_points`` comparable points or the group is too small.
        """
        z = np.full(len(points), np.nan)
        centre, scale = z.copy(), z.copy()
        start = 0
        while start < len(points):
            stop = self._advance(points, start)
            for at in rounds(points.series[start:stop]):
                z[at + start], centre[at + start] = self._step(points.take(at + start))
            scale[start:stop] = self.scale
            start = stop
        return Scores(z, centre, scale)

    def _advance(self, points: Points, start: int) -> int:
        """Bring the current bucket to that of the point at ``start``; returns where its run of points ends.

        A device whose clock is far ahead must not carry the fleet with it: its points count as of now, until
        more than half of the sources agree that so much time has passed. One behind counts as of now too.
        """
        slot = self._slot_of(int(points.t_ms[start]))
        if slot > self.slot and self.params.bucket_ms is None:
            self._follow_cadence()
            slot = self._slot_of(int(points.t_ms[start]))
        if self.slot >= 0 and slot > self.slot + CLOCK_SLOTS_MAX:
            self.ahead[points.series[start]] = True
            if 2 * int(self.ahead.sum()) <= int(np.isfinite(self.value).sum()):
                return start + 1
        if slot > self.slot:
            self.slot = slot
            self.ahead[:] = False
            self._take_cross_section()
        slots = points.t_ms[start:] // max(self.bucket_ms, 1)
        other = np.flatnonzero(slots != slots[0])
        stop = start + int(other[0]) if len(other) else len(points)
        self.ahead[points.series[start:stop]] = False
        return stop

    def _slot_of(self, t_ms: int) -> int:
        return t_ms // max(self.bucket_ms, 1)

    def _follow_cadence(self) -> None:
        """Keep the bucket near the median cadence; it changes only when clearly wrong, so that it rests."""
        known = self.cadence_ms[self.cadence_ms > 0]
        if len(known) == 0:
            return
        cadence = float(np.median(known))
        if self.bucket_ms and self.bucket_ms / 2 <= cadence <= self.bucket_ms * 3:
            return
        fits = LADDER_MS[cadence * 1.1 >= LADDER_MS]
        bucket = int(fits[-1]) if len(fits) else int(LADDER_MS[0])
        if bucket != self.bucket_ms:
            width = max(self.bucket_ms, 1)
            self.slot = self.slot * width // bucket
            self.seen_slot = self.seen_slot * width // bucket
            self.bucket_ms = bucket

    def _take_cross_section(self) -> None:
        """Centre and scale from the newest value of every source that arrived lately."""
        width = max(self.bucket_ms, 1)
        stale = -(-self.params.stale_ms // width) if self.params.stale_ms else STALE_SLOTS
        fresh = np.isfinite(self.value) & (self.seen_slot >= self.slot - stale)
        self.fresh = int(fresh.sum())
        if self.fresh < self.params.group_min:
            self.centre = self.scale = np.nan
            return
        level = self.value[fresh] - self.offset[fresh]
        self.centre = float(np.median(level))
        deviation = np.abs(level - self.centre)
        scale = MAD_TO_STD * float(np.median(deviation))
        if scale <= 0.0:
            scale = MEAN_DEVIATION_TO_STD * float(np.mean(deviation))
        resolution = self.step_min if np.isfinite(self.step_min) else 0.0
        self.scale = max(scale, resolution, self.params.scale_floor)

    def _step(self, points: Points) -> tuple[F64, F64]:
        rows, x = points.series, points.value
        ok = usable(x)
        difference = x - self.centre
        deviation = difference - self.offset[rows]
        scale = self.scale if self.scale > 0.0 else np.maximum(np.abs(deviation), np.finfo(np.float64).tiny)
        with np.errstate(invalid="ignore", over="ignore"):
            z = np.clip(deviation / scale, -Z_MAX, Z_MAX)
        z[~ok | (self.count[rows] < self.params.min_points)] = np.nan
        self._learn_offset(rows[ok], points.t_ms[ok], difference[ok], np.abs(z[ok]) > self.params.threshold)
        self._learn_value(rows[ok], points.t_ms[ok], x[ok])
        return z, self.centre + self.offset[rows]

    def _learn_value(self, rows: I64, t_ms: I64, x: F64) -> None:
        gap = (t_ms - self.t_ms[rows]).astype(np.float64)
        moved = np.isfinite(self.value[rows]) & (gap > 0)
        cadence = self.cadence_ms[rows]
        gap = np.where(cadence > 0, np.minimum(gap, 10 * cadence), gap)
        rate = np.where(cadence > 0, 0.1, 1.0)
        self.cadence_ms[rows] = np.where(moved, cadence + rate * (gap - cadence), cadence)
        step = np.abs(x - self.value[rows])
        step = step[moved & (step > 0)]
        if len(step):
            self.step_min = min(self.step_min, float(step.min()))
        self.value[rows], self.t_ms[rows], self.seen_slot[rows] = x, t_ms, self.slot

    def _learn_offset(self, rows: I64, t_ms: I64, difference: F64, beyond: npt.NDArray[np.bool_]) -> None:
        if not np.isfinite(self.centre):
            return
        calm, d = rows[~beyond], difference[~beyond]
        self.count[calm] += 1
        rate = np.maximum(1.0 / self.count[calm], 1.0 / self.params.offset_window)
        self.offset[calm] += rate * (d - self.offset[calm])
        self.outside[calm] = 0
        odd, t, d = rows[beyond], t_ms[beyond], difference[beyond]
        self.since_ms[odd] = np.where(self.outside[odd] == 0, t, self.since_ms[odd])
        self.outside[odd] += 1
        self.held[odd] += (d - self.held[odd]) / self.outside[odd]
        lasting = (t - self.since_ms[odd] >= self.params.relearn_ms) & (
            self.outside[odd] >= self.params.min_points
        )
        renewed = odd[lasting]
        self.offset[renewed] = self.held[renewed]
        self.outside[renewed] = 0

    def _columns(self) -> dict[str, npt.NDArray[np.generic]]:
        names = (
            "value",
            "t_ms",
            "seen_slot",
            "ahead",
            "cadence_ms",
            "offset",
            "count",
            "outside",
            "since_ms",
            "held",
        )
        return {name: getattr(self, name) for name in names}

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns, for a snapshot."""
        scalars = (self.bucket_ms, self.slot, self.centre, self.scale, self.fresh, self.step_min)
        return {**self._columns(), "scalars": np.array(scalars, np.float64)}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over what ``dump`` gave under the same parameters."""
        for name in self._columns():
            setattr(self, name, columns[name].copy())
        bucket, slot, self.centre, self.scale, fresh, self.step_min = (float(v) for v in columns["scalars"])
        self.bucket_ms, self.slot, self.fresh = int(bucket), int(slot), int(fresh)
