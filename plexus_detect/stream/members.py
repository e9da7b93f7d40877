"""The devices and series of a partition: who is new, who is left out, who has been silent for too long."""

from __future__ import annotations

import numpy as np

from plexus_detect.running import Running
from plexus_detect.series import I64, SeriesKey, is_own_metric
from plexus_detect.stream.messages import Readings

# Combinations of a device and the names of its sensors that are remembered; after so many, all anew.
LAYOUTS_MAX = 100_000

# A name of a metric is no longer.
METRIC_CHARS_MAX = 256

# Names that are known may be so many times the series that are watched.
NAMES_PER_SERIES = 4

# A series that nobody wants, one for which there is no room, and one that is to be admitted.
UNWANTED, REFUSED, NEW = -1, -2, -3

# The age of a partition grows by no more than this from one message to the next: a broker's timestamp far
# ahead, which a producer may have set, must not make everybody seem silent.
AGE_STEP_MS_MAX = 3_600_000


class Members:
    """Gives every device and series of messages its number, and forgets those that are silent.

    The cursor of a series here is the age of the partition at its last sample.
    """

    def __init__(self, running: Running) -> None:
        self.running = running
        self.devices: dict[str, int] = {}
        self.of_series: I64 = np.zeros(0, np.int64)
        self.age_ms = 0
        self._layouts: dict[str, dict[tuple[str, ...], I64]] = {}
        self._n_layouts = 0

    def series(self, readings: Readings, start: int, *, alone: bool) -> tuple[I64, int]:
        """The numbers of the series of messages from ``start`` on, one after another, and the message before
        which it ended: with ``alone`` a message that brings a new series is the first of its call."""
        rows: list[I64] = []
        layouts, names = self._layouts, readings.names
        for i in range(start, len(names)):
            source = readings.device[i]
            try:
                rows.append(layouts[source][names[i]])
            except KeyError:
                if alone and i > start and any(self._number(source, name) == NEW for name in names[i]):
                    break
                rows.append(self._layout(source, names[i]))
        return np.concatenate([np.zeros(0, np.int64), *rows]), start + len(rows)

    def device(self, name: str) -> int:
        """The number of a device."""
        return self.devices.setdefault(name, len(self.devices))

    def _layout(self, source: str, sensors: tuple[str, ...]) -> I64:
        """The series of a combination that is not remembered; new ones are admitted."""
        numbers = [self._number(source, name) for name in sensors]
        row = np.array(
            [self._admit(source, name) if n == NEW else n for n, name in zip(numbers, sensors, strict=True)],
            np.int64,
        )
        if not (row == REFUSED).any():
            if self._n_layouts >= LAYOUTS_MAX:
                self.forget_layouts()
            self._layouts.setdefault(source, {})[sensors] = row
            self._n_layouts += 1
        return row

    def _number(self, source: str, metric: str) -> int:
        """The number of a series that is watched; or that it is new, unwanted or refused."""
        running, key = self.running, SeriesKey(source, metric)
        index = running.table.by_source.get(source, {}).get(metric)
        if index is not None and running.cursors.selected[index]:
            return index
        unfit = not metric or len(metric) > METRIC_CHARS_MAX or is_own_metric(metric)
        if unfit or running.policy.is_score(key) or not running.wants(key):
            return UNWANTED
        most = running.series_max
        full = running.series_count() >= most
        return REFUSED if full or (index is None and len(running.table) >= NAMES_PER_SERIES * most) else NEW

    def _admit(self, source: str, metric: str) -> int:
        running = self.running
        if running.series_count() >= running.series_max:
            return REFUSED
        index = running.table.add(source, metric)
        running.wake([index], 0)
        running.admit_new(0)
        self.number_all()
        return index

    def number_all(self) -> None:
        """Know the device of every series of the table."""
        keys, n = self.running.table.keys, len(self.of_series)
        if len(keys) > n:
            more = [self.device(key.source) for key in keys[n:]]
            self.of_series = np.append(self.of_series, np.array(more, np.int64))

    def forget_layouts(self) -> None:
        """Look everything up anew."""
        self._layouts.clear()
        self._n_layouts = 0

    def expire(self, after_ms: int) -> set[int]:
        """Forget the series that were silent for so long; returns which."""
        running, n = self.running, len(self.running.table)
        before = running.cursors.selected[:n].copy()
        if running.expire(self.age_ms - after_ms):
            self.forget_layouts()
        return set(np.flatnonzero(before & ~running.cursors.selected[:n]).tolist())
