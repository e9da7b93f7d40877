"""The messages that may still be told of: those whose points wait in fleets or groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plexus_detect.series import I64
from plexus_detect.stream.messages import Readings

Sample = tuple[int | None, dict[str, float]]

NO_SAMPLE: Sample = (None, {})


class Recent:
    """Messages by the number of their device and their time, in order of arrival."""

    def __init__(self) -> None:
        self._held: list[Sample] = []
        self._device, self._t_ms = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._new: Readings | None = None
        self._rows = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._device)

    def add(self, readings: Readings, rows: I64, device: I64) -> None:
        """Messages that just came: these rows of the readings, with the number of the device of each."""
        self._settle()
        self._new, self._rows = readings, rows
        self._device = np.concatenate([self._device, device])
        self._t_ms = np.concatenate([self._t_ms, readings.t_ms[rows]])

    def sample(self, device: int, t_ms: int, metric: str | None) -> Sample:
        """Index and values of the first message of this time that has the metric, or of any without one."""
        for i in np.flatnonzero((self._device == device) & (self._t_ms == t_ms)).tolist():
            found = self._sample(i)
            if metric is None or metric in found[1]:
                return found
        return NO_SAMPLE

    def _sample(self, i: int) -> Sample:
        held = len(self._held)
        if i < held or self._new is None:
            return self._held[i]
        row = int(self._rows[i - held])
        return self._new.sample_index[row], self._new.values_of(row)

    def keep(self, oldest_ms: I64) -> None:
        """Forget what is older than the oldest time of its device that may be told of."""
        kept = np.flatnonzero(self._t_ms >= oldest_ms[self._device])
        self._held = [self._sample(i) for i in kept.tolist()]
        self._device, self._t_ms = self._device[kept], self._t_ms[kept]
        self._new = None

    def _settle(self) -> None:
        """Take the samples of the newest messages out of their readings."""
        if self._new is not None:
            self._held += [self._sample(i) for i in range(len(self._held), len(self))]
            self._new = None

    def dump(self) -> Sequence[Any]:
        """Everything that is kept, in JSON values."""
        return [self._device.tolist(), self._t_ms.tolist(), self._held]

    def load(self, held: Sequence[Any]) -> None:
        """Take over what ``dump`` gave."""
        self._device, self._t_ms = np.array(held[0], np.int64), np.array(held[1], np.int64)
        self._held = [(index, dict(values)) for index, values in held[2]]
