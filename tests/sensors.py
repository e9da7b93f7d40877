"""Six sensors of one machine that move together, with labelled anomalies of four kinds: seeded.

Two things drive them all: the load (working hours and a fast random part, minutes) and the weather (a day's
cycle and a slow random part, hours). Every sensor follows both in its own way and has noise of its own, about
a tenth of its deviation.

- spike: one or two rows are four to eight deviations away;
- drift: the level creeps two to three deviations away in four to eight hours and comes back at once;
- stuck: the sensor repeats one value for one to four hours;
- break: for three to six hours the sensor follows another machine of the same make. It keeps its
  distribution and its daily cycle, and is faded over and back in half an hour, so that the sensor alone looks
  as ever: only what it has in common with the other five is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

NAMES = ("temperature", "humidity", "pressure", "vibration", "power", "airflow")
KINDS = ("spike", "drift", "stuck", "break")
START_MS = 1_700_006_400_000  # a midnight, UTC
# By sensor: level, what a unit of load and of weather add, own noise; in the sensor's unit.
LEVEL = np.array([22.0, 50.0, 101.3, 2.0, 5.0, 30.0])
BY_LOAD = np.array([2.0, -2.0, -0.30, 1.0, 3.0, 8.0])
BY_WEATHER = np.array([2.5, -5.0, 0.35, 0.15, 0.5, -3.0])
# What the square of the load adds: machines are not linear.
BY_LOAD_SQUARED = np.array([0.3, 0.0, 0.0, 0.25, 0.5, -1.0])
NOISE = 0.1


@dataclass(frozen=True)
class Anomaly:
    """Rows ``start`` to ``end`` (not in it) of ``sensor`` (a column) are wrong in the way ``kind`` says."""

    kind: str
    sensor: int
    start: int
    end: int


@dataclass(frozen=True)
class Recording:
    """Times (n,) in milliseconds, values (n, 6), and what is wrong with them."""

    t_ms: np.ndarray
    x: np.ndarray
    anomalies: list[Anomaly] = field(default_factory=list)


def wander(rng: np.random.Generator, n: int, rows: float) -> np.ndarray:
    """Noise of deviation 1 that forgets itself in so many rows (first-order autoregression)."""
    keep = np.exp(-1.0 / rows)
    out, last = np.empty(n), rng.normal()
    for i, push in enumerate(rng.normal(0.0, np.sqrt(1.0 - keep * keep), n).tolist()):
        out[i] = last
        last = keep * last + push
    return out


def machine(rng: np.random.Generator, t_ms: np.ndarray, step_s: int) -> np.ndarray:
    """The six sensors of one healthy machine: (n, 6)."""
    day = 2.0 * np.pi * (t_ms - START_MS) / 86_400_000
    n, minute = len(t_ms), 60.0 / step_s
    load = 0.8 * np.sin(day - 1.2) + 0.3 * np.sin(2.0 * day) + 0.6 * wander(rng, n, 20.0 * minute)
    weather = np.sin(day - 2.2) + 0.6 * wander(rng, n, 360.0 * minute)
    clean = (
        LEVEL + np.outer(load, BY_LOAD) + np.outer(load**2, BY_LOAD_SQUARED) + np.outer(weather, BY_WEATHER)
    )
    return clean + rng.normal(size=(n, 6)) * NOISE * spread()


def spread() -> np.ndarray:
    """The deviation of each sensor, roughly: what an anomaly's size is measured in."""
    return np.hypot(0.85 * BY_LOAD, 0.92 * BY_WEATHER)


def recording(
    days: float, seed: int, per_kind: int = 0, healthy_days: float = 0.0, step_s: int = 60
) -> Recording:
    """``days`` of the six sensors, a row every ``step_s``; after ``healthy_days``, ``per_kind`` anomalies of
    each kind in random order, each in a slot of its own. Healthy values are the same whatever is wrong."""
    n = round(days * 86_400 / step_s)
    t_ms = START_MS + 1000 * step_s * np.arange(n)
    x = machine(np.random.default_rng([seed, 0]), t_ms, step_s)
    if per_kind == 0:
        return Recording(t_ms, x)
    other = machine(np.random.default_rng([seed, 1]), t_ms, step_s)
    rng = np.random.default_rng([seed, 2])
    kinds = rng.permutation(np.repeat(KINDS, per_kind))
    bounds = np.linspace(healthy_days * 86_400 / step_s, n, len(kinds) + 1).astype(int)
    anomalies = []
    for kind, start, end in zip(kinds.tolist(), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        hour = min(3600.0 / step_s, (end - start) / 12.0)
        anomalies.append(spoil(rng, x, other, kind, (start, end, hour)))
    return Recording(t_ms, x, anomalies)


def spoil(
    rng: np.random.Generator, x: np.ndarray, other: np.ndarray, kind: str, slot: tuple[int, int, float]
) -> Anomaly:
    """Put one anomaly into the first half of a slot (first row, end, rows an hour) of ``x``, in place."""
    start, end, hour = slot
    sensor, sign = int(rng.integers(6)), float(rng.choice([-1.0, 1.0]))
    low, high = {"spike": (0.0, 0.0), "drift": (4.0, 8.0), "stuck": (1.0, 4.0), "break": (3.0, 6.0)}[kind]
    rows = int(rng.integers(1, 3)) if kind == "spike" else round(hour * rng.uniform(low, high))
    first = int(rng.integers(start + (end - start) // 8, start + (end - start) // 3))
    here = slice(first, first + rows)
    column, size = x[:, sensor], sign * spread()[sensor]
    if kind == "spike":
        column[here] += size * rng.uniform(4.0, 8.0)
    elif kind == "drift":
        column[here] += size * rng.uniform(2.0, 3.0) * np.arange(1, rows + 1) / rows
    elif kind == "stuck":
        column[here] = column[first]
    else:
        edge = np.minimum(np.arange(1, rows + 1), np.arange(rows, 0, -1)) / (0.5 * hour)
        weight = np.clip(edge, 0.0, 1.0)
        column[here] = (1.0 - weight) * column[here] + weight * other[here, sensor]
    return Anomaly(kind, sensor, first, first + rows)
