"""Healthy machines: six sensors that follow a load, an airflow and the weather. Pure.

What drives what, and so the signs that a correlation has:

- the load of the machine has a daily cycle and wanders within minutes and hours; ``power_draw`` and
  ``vibration`` rise with it, and so does ``temperature``, partly ten minutes later;
- ``airflow`` wanders by itself and cools: ``temperature`` falls with it;
- ``humidity`` falls with the temperature, and in fair weather;
- ``pressure`` is the weather, which all machines share, and has next to nothing to do with the load.

Every sensor has noise of its own that remembers about two rows (first-order autoregression). Every device has
its own offsets, gains and hours of work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from plexus_detect.series import F64, I64
from plexus_detect.simulate.draws import SITE, Draws, Stream

NAMES = ("temperature", "humidity", "pressure", "vibration", "power_draw", "airflow")
TEMPERATURE, HUMIDITY, PRESSURE, VIBRATION, POWER, AIRFLOW = range(6)

# The usual level of each sensor (°C, % of relative humidity, hPa, mm/s, kW, m³/h), the deviation of its own
# noise, and how many decimal places it tells.
LEVEL = np.array([24.0, 48.0, 1013.0, 2.0, 4.5, 320.0])
NOISE = np.array([0.2, 0.4, 0.3, 0.05, 0.12, 2.5])
DECIMALS = (2, 2, 2, 3, 3, 1)

# Rows of a block: what is made at once, and always as a whole, so that bits do not depend on a cut.
BLOCK = 64

# How much of a row's noise is in the next one's, in how many steps of doubling that is followed back, and the
# rows that these need of the block before.
MEMORY, DOUBLINGS = 0.5, 4
BEFORE = 1 << DOUBLINGS

# Devices differ by so many noise deviations in level, by this part in gain, and by so many radians of a day.
OFFSET, GAIN, PHASE = 2.0, 0.03, 0.15

MINUTE_MS, DAY_MS = 60_000, 86_400_000
# Time between two knots of what wanders, and how much later half of the heat comes.
LOAD_MS, SHIFT_MS, AIR_MS, WEATHER_MS = 15 * MINUTE_MS, 180 * MINUTE_MS, 30 * MINUTE_MS, 480 * MINUTE_MS
LAG_MS = 10 * MINUTE_MS
KNOTS = 64
# The deviation of a cubic B-spline with knots of deviation 1, on average over its length.
SPLINE = math.sqrt(151.0 / 315.0)


class Wander:
    """Smooth random functions of time with deviation 1, one a device: cubic B-splines over random knots."""

    def __init__(self, draws: Draws, devices: Sequence[int], stream: Stream, knot_ms: int) -> None:
        self._draws, self._devices, self._stream, self._knot_ms = draws, devices, stream, knot_ms
        self._known: dict[int, F64] = {}

    def at(self, t_ms: I64) -> F64:
        """The functions at ascending times: (devices, times)."""
        knot = t_ms // self._knot_ms
        first, last = (int(knot[0]) - 1) // KNOTS, (int(knot[-1]) + 2) // KNOTS
        knots = np.concatenate([self._block(b) for b in range(first, last + 1)], axis=1)
        for gone in [b for b in self._known if b < first - 1]:
            del self._known[gone]
        at = knot - 1 - first * KNOTS
        u = (t_ms - knot * self._knot_ms) / self._knot_ms
        v = 1.0 - u
        pulls = v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3
        out = np.zeros((len(self._devices), len(t_ms)))
        for k, pull in enumerate(pulls):
            out += knots[:, at + k] * (pull / (6.0 * SPLINE))
        return out

    def _block(self, block: int) -> F64:
        if block not in self._known:
            rows = [self._draws.normals(d, self._stream, block, (KNOTS,)) for d in self._devices]
            self._known[block] = np.stack(rows)
        return self._known[block]


class Machines:
    """Some devices of a seed, by their numbers from 1 on, with a row every ``interval_ms``.

    With ``other`` load and airflow wander as they would on another machine of the same make; whatever
    else there is of these devices, their noise included, is the same.
    """

    def __init__(self, seed: int, devices: Sequence[int], interval_ms: int, *, other: bool = False) -> None:
        draws = self._draws = Draws(seed)
        self._devices, self._interval_ms = devices, interval_ms
        load, air = (Stream.OTHER_LOAD, Stream.OTHER_AIR) if other else (Stream.LOAD, Stream.AIR)
        self._load = Wander(draws, devices, load, LOAD_MS)
        self._shift = Wander(draws, devices, Stream.SHIFT, SHIFT_MS)
        self._air = Wander(draws, devices, air, AIR_MS)
        self._weather = Wander(draws, [SITE], Stream.WEATHER, WEATHER_MS)
        traits = np.stack([draws.normals(d, Stream.TRAITS, 0, (13,)) for d in devices])
        self._offset = OFFSET * NOISE * traits[:, None, :6]
        self._gain = 1.0 + GAIN * traits[:, None, 6:12]
        phase = (PHASE * traits[:, 12]).tolist()
        self._turn = np.array([[[math.cos(p)], [math.sin(p)]] for p in phase])
        self._pushes: dict[int, F64] = {}

    def block(self, block: int) -> F64:
        """Rows ``block`` times BLOCK and on, counted from the epoch: (devices, BLOCK, 6)."""
        t_ms = self._interval_ms * np.arange(block * BLOCK, (block + 1) * BLOCK)
        return LEVEL + self._away(t_ms) * self._gain + self._offset + NOISE * self._noise(block)

    def _away(self, t_ms: I64) -> F64:
        """How far the sensors are from their level, were all devices the same."""
        day = (2.0 * math.pi / DAY_MS) * (t_ms % DAY_MS)
        # The height of a day is at noon for the load, in the afternoon for the air outside.
        sine, cosine = np.sin(day - 0.5 * math.pi), np.cos(day - 0.5 * math.pi)
        outside = np.sin(day - 0.7 * math.pi)
        mine = sine * self._turn[:, 0] - cosine * self._turn[:, 1]
        across = cosine * self._turn[:, 0] + sine * self._turn[:, 1]
        cycle = 0.28 * mine + 0.16 * mine * across + 0.06 * self._shift.at(t_ms)
        fast = 0.14 * self._load.at(t_ms)
        load, heat = cycle + fast, cycle + 0.5 * (fast + 0.14 * self._load.at(t_ms - LAG_MS))
        air, weather = self._air.at(t_ms) - 0.3 * mine, self._weather.at(t_ms)
        out = np.empty((len(self._devices), len(t_ms), 6))
        warmth = 9.0 * heat - 1.5 * air + 2.0 * outside + weather
        out[..., TEMPERATURE] = warmth
        out[..., HUMIDITY] = -1.4 * warmth - 3.0 * weather
        out[..., PRESSURE] = 5.0 * weather - 0.3 * outside
        out[..., VIBRATION] = 2.2 * load + 1.2 * load * load
        out[..., POWER] = 6.0 * load + 2.0 * load * load
        out[..., AIRFLOW] = 28.0 * air
        return out

    def _noise(self, block: int) -> F64:
        pushes = {b: self._pushed(b) for b in (block - 1, block)}
        self._pushes = pushes
        whole = np.concatenate([pushes[block - 1][:, -BEFORE:], pushes[block]], axis=1)
        # The sum over k of MEMORY**k of the push k rows ago, as a product: (1 + m)(1 + m²)(1 + m⁴)...
        for i in range(DOUBLINGS):
            back = 1 << i
            later = whole.copy()
            later[:, back:] += MEMORY**back * whole[:, :-back]
            whole = later
        return math.sqrt(1.0 - MEMORY * MEMORY) * whole[:, BEFORE:]

    def _pushed(self, block: int) -> F64:
        if block in self._pushes:
            return self._pushes[block]
        rows = [self._draws.normals(d, Stream.NOISE, block, (BLOCK, 6)) for d in self._devices]
        return np.stack(rows)
