"""What the screen's table shows: read back from the platform, and from the worker's own state."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan, nan

import numpy as np

from plexus_detect.demo.scenario import METRIC, RAW_SCORE
from plexus_detect.evaluate import State
from plexus_detect.series import Points, SeriesTable


@dataclass(frozen=True)
class Mood:
    """What the worker thinks of a device: ``word`` is normal, suspected, ANOMALY or warming; while it warms
    up it has ``known`` of the ``needed`` points."""

    word: str
    known: int = 0
    needed: int = 0


@dataclass
class Device:
    """One row of the table: its newest readings, the newest raw score (NaN before the first) and the mood."""

    source: str
    values: deque[float]
    z: float = nan
    mood: Mood = field(default_factory=lambda: Mood("waiting"))


class Board:
    """The devices by source; ``take`` feeds it what the platform's telemetry answers."""

    def __init__(self, sources: Sequence[str], points_max: int) -> None:
        self.table = SeriesTable()
        self.devices = {source: Device(source, deque(maxlen=points_max)) for source in sources}
        self._seen_ms: dict[int, int] = {}

    def newest_ms(self) -> int | None:
        """The newest time of which anything is known."""
        return max(self._seen_ms.values(), default=None)

    def take(self, points: Points) -> None:
        """Rows of a telemetry answer, in the order of time; those already known are skipped."""
        for series, t_ms, value in zip(
            points.series.tolist(), points.t_ms.tolist(), points.value.tolist(), strict=True
        ):
            source, metric = self.table.keys[series]
            device = self.devices.get(source)
            if device is None or t_ms <= self._seen_ms.get(series, -1):
                continue
            self._seen_ms[series] = t_ms
            if metric == METRIC:
                device.values.append(value)
            elif metric == RAW_SCORE:
                device.z = value

    def feel(self, state: State) -> None:
        """The worker's present opinion of every device."""
        for source, device in self.devices.items():
            series = state.table.by_source.get(source, {}).get(METRIC)
            if series is not None:
                device.mood = mood_of(state, series, warm=not isnan(device.z))


def mood_of(state: State, series: int, *, warm: bool) -> Mood:
    """What the detector and its episodes say of ``series``, which is ``warm`` once it had a score."""
    if series >= len(state.rule_of) or state.rule_of[series] < 0:
        return Mood("waiting")
    lane = state.lanes[state.rule_of[series]]
    row = state.row_of[series : series + 1]
    if not warm:
        receipt = lane.detector.receipt(Points(row, np.zeros(1, np.int64), np.zeros(1)))
        if receipt.learned < receipt.needed:
            return Mood("warming", receipt.learned, receipt.needed)
    if lane.line.episodes.is_open[row][0]:
        return Mood("ANOMALY")
    return Mood("suspected" if lane.line.episodes.suspected(row)[0] else "normal")
