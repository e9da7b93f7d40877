"""Faults of the simulated machines: what is planned, what a plan does to the rows, and its labels. Pure.

Half a day of a device holds at most one fault, of one sensor, sized in deviations of that sensor's own noise:

- spike: one to three rows lie 20 to 60 deviations away;
- drift: within four to eight hours the level creeps 15 to 30 deviations away and, in the last quarter, back;
- stuck: the sensor repeats one value for one to four hours;
- break: for three to six hours, faded over and back, the sensor says what it would on another machine of the
  same make. Its distribution, its daily cycle and its noise are the usual ones, only what it has in common
  with the other sensors is gone. Pressure never breaks: its weather is slower than a break, so that the
  pressure alone would give it away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from plexus_detect.series import F64
from plexus_detect.simulate.draws import Draws, Stream
from plexus_detect.simulate.machine import BLOCK, NAMES, NOISE, PRESSURE, Machines

KINDS = ("spike", "drift", "stuck", "break")
HOUR_MS = 3_600_000
SLOT_MS = 12 * HOUR_MS

# The most faults a day and device: one a slot. A row longer than this would leave a fault hardly any.
RATE_MAX, INTERVAL_MS_MAX = 86_400_000 / SLOT_MS, 15 * 60_000

_HOURS = {"drift": (4.0, 8.0), "stuck": (1.0, 4.0), "break": (3.0, 6.0)}
_ROWS_LEAST, _SPIKE_ROWS = 4, 3
_SIZES = {"spike": (20.0, 60.0), "drift": (15.0, 30.0)}
_APART_MS, _FADE_MS = HOUR_MS, HOUR_MS // 2
# The part of a drift at which it is furthest away.
_CREST = 0.75
_BREAKABLE = tuple(i for i in range(len(NAMES)) if i != PRESSURE)


@dataclass(frozen=True)
class Fault:
    """Rows ``start`` to ``end`` (not in it), counted from the epoch, of a device's sensor (a column)."""

    kind: str
    device: int
    sensor: int
    start: int
    end: int
    size: float = 0.0


def planned(seed: int, device: int, interval_ms: int, rate: float, rows: range) -> Iterator[Fault]:
    """The faults of a device that begin in these rows: on average ``rate`` a day, in order of time.

    The four kinds take turns in random order, so that no one is rare.
    """
    draws = Draws(seed)
    group_ms = SLOT_MS * len(KINDS)
    begin_ms, end_ms = rows.start * interval_ms, rows.stop * interval_ms
    for group in range(begin_ms // group_ms, -(-end_ms // group_ms)):
        chances = draws.uniforms(device, Stream.PLAN, group, (len(KINDS), 7))
        order = np.argsort(chances[:, 0], kind="stable").tolist()
        for slot, (kind, chance) in enumerate(zip(order, chances.tolist(), strict=True)):
            if chance[1] < rate / RATE_MAX:
                slot_ms = group * group_ms + slot * SLOT_MS
                fault = _fault(KINDS[kind], device, slot_ms, interval_ms, chance[2:])
                if rows.start <= fault.start < rows.stop:
                    yield fault


def _fault(kind: str, device: int, slot_ms: int, interval_ms: int, chance: list[float]) -> Fault:
    which, side, length, place, far = chance
    if kind == "spike":
        rows = 1 + int(_SPIKE_ROWS * length)
    else:
        low, high = _HOURS[kind]
        rows = max(_ROWS_LEAST, round((low + (high - low) * length) * HOUR_MS / interval_ms))
    room_ms = SLOT_MS - _APART_MS - rows * interval_ms
    start = math.ceil((slot_ms + place * room_ms) / interval_ms)
    sensor = _BREAKABLE[int(len(_BREAKABLE) * which)] if kind == "break" else int(len(NAMES) * which)
    low, high = _SIZES.get(kind, (0.0, 0.0))
    size = math.copysign(low + (high - low) * far, side - 0.5)
    return Fault(kind, device, sensor, start, start + rows, size)


class Faults:
    """Puts faults into the rows of a fleet, block after block. ``interval_ms`` is that of the rows."""

    def __init__(self, seed: int, interval_ms: int, faults: Iterable[Fault]) -> None:
        self._seed, self._interval_ms = seed, interval_ms
        self._in_block: dict[int, list[Fault]] = {}
        for fault in faults:
            for block in range(fault.start // BLOCK, (fault.end - 1) // BLOCK + 1):
                self._in_block.setdefault(block, []).append(fault)
        # What a sensor repeats while it is stuck, and the machines that broken ones follow.
        self._held: dict[Fault, float] = {}
        self._others: dict[Fault, Machines] = {}

    def spoil(self, x: F64, block: int, devices: Sequence[int]) -> None:
        """Change a block of all devices, (devices, BLOCK, 6), in place. Blocks come in order of time."""
        row_of = {device: row for row, device in enumerate(devices)}
        for fault in self._in_block.pop(block, ()):
            first = block * BLOCK
            here = slice(max(fault.start - first, 0), min(fault.end - first, BLOCK))
            self._change(x[row_of[fault.device], here, fault.sensor], fault, block, here)

    def _change(self, column: F64, fault: Fault, block: int, here: slice) -> None:
        rows = np.arange(here.start, here.stop) + block * BLOCK
        count, done = fault.end - fault.start, rows - fault.start
        if fault.kind == "spike":
            column += fault.size * NOISE[fault.sensor]
        elif fault.kind == "drift":
            part = (done + 0.5) / count
            away = np.minimum(part / _CREST, (1.0 - part) / (1.0 - _CREST))
            column += fault.size * NOISE[fault.sensor] * away
        elif fault.kind == "stuck":
            column[:] = self._held.setdefault(fault, float(column[0]))
        else:
            fade = max(1.0, min(_FADE_MS / self._interval_ms, count / 4))
            weight = np.minimum(np.minimum(done + 1, count - done) / fade, 1.0)
            column += weight * (self._other(fault).block(block)[0, here, fault.sensor] - column)

    def _other(self, fault: Fault) -> Machines:
        if fault not in self._others:
            machines = Machines(self._seed, [fault.device], self._interval_ms, other=True)
            self._others[fault] = machines
        return self._others[fault]
