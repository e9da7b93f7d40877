"""A fleet of simulated machines, from its first row to its last, in blocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from plexus_detect.series import F64, I64
from plexus_detect.simulate.anomalies import Fault, Faults, planned
from plexus_detect.simulate.draws import Draws, Stream
from plexus_detect.simulate.machine import BLOCK, DAY_MS, DECIMALS, NAMES, Machines

# Devices that are made together: enough that a call costs little a device, few enough for the cache.
_TOGETHER = 128


@dataclass(frozen=True)
class Plan:
    """What is simulated: rows of ``devices`` every ``interval_ms`` from ``start_ms`` up to ``end_ms``.

    ``anomalies`` is how many faults a day and device there are on average, from ``spoiled_ms`` on.
    ``missing`` is the part of the values that is lost, and a row comes up to ``jitter_ms`` late.
    """

    start_ms: int
    end_ms: int
    interval_ms: int = 60_000
    devices: int = 1
    seed: int = 42
    name: str = "machine"
    anomalies: float = 0.0
    spoiled_ms: int = 0
    missing: float = 0.0
    jitter_ms: int = 0

    @property
    def rows(self) -> range:
        """The rows, counted from the epoch: those whose time lies in the period."""
        return range(-(-self.start_ms // self.interval_ms), -(-self.end_ms // self.interval_ms))

    def source(self, device: int) -> str:
        """The name of a device, which are numbered from 1 on."""
        return f"{self.name}-{device:03d}"

    @property
    def sources(self) -> list[str]:
        """All names, in order."""
        return [self.source(device) for device in range(1, self.devices + 1)]


class Rows(NamedTuple):
    """n rows in order of time: ``t_ms``, the ``device`` (0 is the first), ``row``, how many rows of the
    device came before, and the six sensors ``x``, (n, 6), NaN for a value that is lost."""

    t_ms: I64
    device: I64
    row: I64
    x: F64

    def cut(self, start: int, end: int) -> Rows:
        """The rows from ``start`` up to ``end``."""
        return Rows(self.t_ms[start:end], self.device[start:end], self.row[start:end], self.x[start:end])


class Label(NamedTuple):
    """A fault as ``backtest --labels`` reads it; both ends are included."""

    source: str
    metric: str
    start_ms: int
    end_ms: int
    kind: str


def faults_of(plan: Plan) -> list[Fault]:
    """All faults of a plan, by device and time."""
    if plan.anomalies == 0:
        return []
    first = max(plan.rows.start, -(-plan.spoiled_ms // plan.interval_ms))
    rows = range(first, plan.rows.stop)
    every = range(1, plan.devices + 1)
    return [f for d in every for f in planned(plan.seed, d, plan.interval_ms, plan.anomalies, rows)]


def labels_of(plan: Plan) -> list[Label]:
    """The faults of a plan as labels, in order of time: each covers exactly the rows that are changed."""
    step, late = plan.interval_ms, max(0, plan.jitter_ms - 1)
    labels = [
        Label(
            plan.source(fault.device),
            NAMES[fault.sensor],
            fault.start * step,
            (min(fault.end, plan.rows.stop) - 1) * step + late,
            fault.kind,
        )
        for fault in faults_of(plan)
    ]
    return sorted(labels, key=lambda label: (label.start_ms, label.source))


def simulated(plan: Plan) -> Iterator[Rows]:
    """All rows of a plan, a block of times at once: nothing but that block is held."""
    numbers = range(1, plan.devices + 1)
    parts = [numbers[i : i + _TOGETHER] for i in range(0, plan.devices, _TOGETHER)]
    groups = [Machines(plan.seed, part, plan.interval_ms) for part in parts]
    faults = Faults(plan.seed, plan.interval_ms, faults_of(plan))
    draws, rows = Draws(plan.seed), plan.rows
    for block in range(rows.start // BLOCK, -(-rows.stop // BLOCK)):
        x = np.concatenate([group.block(block) for group in groups])
        faults.spoil(x, block, numbers)
        for sensor, places in enumerate(DECIMALS):
            x[..., sensor] = np.round(x[..., sensor], places)
        if plan.missing:
            for device in numbers:
                lost = draws.uniforms(device, Stream.MISSING, block, (BLOCK, len(NAMES))) < plan.missing
                x[device - 1][lost] = np.nan
        late = np.zeros((plan.devices, BLOCK), np.int64)
        if plan.jitter_ms:
            shares = [draws.uniforms(device, Stream.JITTER, block, (BLOCK,)) for device in numbers]
            late[:] = np.floor(plan.jitter_ms * np.stack(shares))
        yield _in_time(plan, block, x, late)


def _in_time(plan: Plan, block: int, x: F64, late: I64) -> Rows:
    """A block, without the rows outside the period, one time after the other."""
    numbers = np.arange(block * BLOCK, (block + 1) * BLOCK)
    here = (numbers >= plan.rows.start) & (numbers < plan.rows.stop)
    numbers, devices = numbers[here], plan.devices
    t_ms = (numbers[:, None] * plan.interval_ms + late.T[here]).ravel()
    device = np.tile(np.arange(devices), len(numbers))
    row = np.repeat(numbers - plan.rows.start, devices)
    return Rows(t_ms, device, row, x[:, here].transpose(1, 0, 2).reshape(-1, len(NAMES)))


def days_ms(days: float) -> int:
    """So many days in milliseconds."""
    return round(days * DAY_MS)
