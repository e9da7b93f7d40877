"""The devices and series of a partition: who is new, who is left out, who has been silent for too long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plexus_detect.running import Running
from plexus_detect.series import I64, Bool, SeriesKey, is_own_metric

# Combinations of a device and the names of its sensors that are remembered; after so many, all anew.
LAYOUTS_MAX = 100_000

# A name of a metric is no longer.
METRIC_CHARS_MAX = 256

# Names that are known may be so many times the series that are watched.
NAMES_PER_SERIES = 4

# A series that nobody wants, and one for which there is no room.
UNWANTED, REFUSED = -1, -2

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
        self._n_layouts = self._admitted = 0

    def series(self, device: Sequence[str], names: Sequence[tuple[str, ...]]) -> tuple[I64, Bool]:
        """The numbers of the series of messages, one after another, and which messages brought a new one."""
        rows: list[I64] = []
        new: list[int] = []
        layouts = self._layouts
        for i, (source, sensors) in enumerate(zip(device, names, strict=True)):
            try:
                rows.append(layouts[source][sensors])
            except KeyError:
                known = self._admitted
                rows.append(self._layout(source, sensors))
                if self._admitted > known:
                    new.append(i)
        newcomer = np.zeros(len(rows), np.bool_)
        newcomer[new] = True
        return np.concatenate([np.zeros(0, np.int64), *rows]), newcomer

    def device(self, name: str) -> int:
        """The number of a device."""
        return self.devices.setdefault(name, len(self.devices))

    def _layout(self, source: str, sensors: tuple[str, ...]) -> I64:
        row = np.array([self._number(source, name) for name in sensors], np.int64)
        if not (row == REFUSED).any():
            if self._n_layouts >= LAYOUTS_MAX:
                self.forget_layouts()
            self._layouts.setdefault(source, {})[sensors] = row
            self._n_layouts += 1
        return row

    def _number(self, source: str, metric: str) -> int:
        running, key = self.running, SeriesKey(source, metric)
        index = running.table.by_source.get(source, {}).get(metric)
        if index is not None and running.cursors.selected[index]:
            return index
        unfit = not metric or len(metric) > METRIC_CHARS_MAX or is_own_metric(metric)
        if unfit or running.policy.is_score(key) or not running.wants(key):
            return UNWANTED
        most = running.series_max
        if running.series_count() >= most or (
            index is None and len(running.table) >= NAMES_PER_SERIES * most
        ):
            return REFUSED
        index = running.table.add(*key)
        running.wake([index], 0)
        running.admit_new(0)
        self.number_all()
        self._admitted += 1
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
