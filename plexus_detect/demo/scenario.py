"""What is replayed and what goes wrong: the readings of every device, one of which has a faulty sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plexus_detect.demo.recording import Recording, calm_starts, spaced
from plexus_detect.series import F64

METRIC = "temperature"
SCORE = f"{METRIC}.zscore"
RAW_SCORE = f"{METRIC}.zscore_raw"

# The platform's own wait before an alert resolves (contract section 5); the sandbox divides it.
RECOVERY_S = 30.0


@dataclass(frozen=True)
class Scenario:
    """How many devices, how fast, and the fault: ``fault_samples`` live readings from ``fault_from`` on are
    ``fault_deviations`` standard deviations of that sensor's own history too high.

    ``time_scale`` is how much faster the platform's clocks run; ``elapsed_s_max`` ends the replay early on a
    machine that cannot keep the pace.
    """

    devices: int = 20
    history_samples: int = 336
    live_samples: int = 72
    sample_ms: int = 500
    time_scale: float = 20.0
    fault_device: int = 6
    fault_from: int = 24
    fault_samples: int = 16
    fault_deviations: float = 8.0
    elapsed_s_max: float = 52.0

    @property
    def recovery_s(self) -> float:
        """How long the sandbox wants to see good values before an alert resolves."""
        return RECOVERY_S / self.time_scale


@dataclass(frozen=True)
class Replay:
    """The readings: ``history`` (devices, history_samples) and ``live`` (devices, live_samples) as recorded,
    and ``offset``, by which the faulty sensor then reads too high."""

    scenario: Scenario
    sources: Sequence[str]
    history: F64
    live: F64
    offset: float

    @property
    def faulty(self) -> str:
        """The source whose sensor fails for a while."""
        return self.sources[self.scenario.fault_device]

    def reading(self, index: int) -> F64:
        """Live reading ``index`` of every device (devices,); after the last comes the first again."""
        at = index % self.scenario.live_samples
        values = self.live[:, at].copy()
        if self.is_faulty(index):
            values[self.scenario.fault_device] += self.offset
        return values

    def is_faulty(self, index: int) -> bool:
        """True when the fault is on at live reading ``index``."""
        since = index % self.scenario.live_samples - self.scenario.fault_from
        return 0 <= since < self.scenario.fault_samples


def make_replay(recording: Recording, scenario: Scenario) -> Replay:
    """The same readings every time: calm stretches of the record and the fault."""
    calm = calm_starts(recording, scenario.history_samples, scenario.live_samples)
    starts = spaced(calm, scenario.devices)
    length = scenario.history_samples + scenario.live_samples
    values = recording.value[starts[:, None] + np.arange(length)]
    history, live = np.split(values, [scenario.history_samples], axis=1)
    offset = scenario.fault_deviations * float(history[scenario.fault_device].std())
    sources = [f"room-{number:02d}" for number in range(1, scenario.devices + 1)]
    return Replay(scenario, sources, history, live, offset)
