"""A world made from a seed: devices, what they measure and when the platform shows it, and the settings.

Times are milliseconds since the start of the simulation. The devices:

``dev-*``  punctual: visible soon, some irregular, with exact repeats and rivals on one millisecond.
``van-*``  offline for up to an hour; then the buffer comes, oldest first, in several batches, then live data.
``bus-*``  sends many samples at once, long after they were measured.
``old-*``  now and then one of its samples comes after newer ones: late, or too late to be taken.
``new-*``  unknown until the middle of the run.

In half of the worlds samples are visible at once or within ``poll.settle``, and punctual devices are compared
with one another; in the others they come when they like, in order within a series, and there are no fleets.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim_loop import START_MS

from plexus_detect.config import Config

Row = tuple[str, str, int, float]

# By then a worker has seen the history; and so long before a moment that decides something, and after it,
# nothing disturbs the reading.
LIVE_MS = 60_000
LEAD_MS = 45_000
HISTORY = 70
SUFFIXES = ("zscore", "fleet_zscore", "zscore_raw", "fleet_zscore_raw", "zscore_late", "zscore_critical")


@dataclass
class World:
    """What a run is about. ``arrivals`` are the rows by the time at which the platform shows them; ``calm``
    the spans in which the outcome depends on when the worker reads, so that it has to be able to. ``loose``
    are samples (source, time) that may be read or not."""

    seed: int
    step_ms: int
    interval_ms: int
    settle_ms: int
    overlap_ms: int
    fleet: bool
    detector: str
    batch: int
    samples: int
    history: list[Row] = field(default_factory=list)
    arrivals: dict[int, list[Row]] = field(default_factory=lambda: defaultdict(list))
    calm: list[tuple[int, int]] = field(default_factory=list)
    loose: set[tuple[str, int]] = field(default_factory=set)

    @property
    def begin_ms(self) -> int:
        """When the live samples begin. After a pause, what is posted does not depend on when a worker has
        started, so that may fail; but fleets need devices that were not silent."""
        return 0 if self.fleet else LIVE_MS

    @property
    def live_ms(self) -> int:
        """How long the live part lasts."""
        return self.samples * self.step_ms

    @property
    def end_ms(self) -> int:
        """When the last row is there."""
        return max(self.arrivals)

    @property
    def timeout_s(self) -> float:
        """How long a request may take."""
        return 5.0

    def show(self, source: str, metric: str, t_ms: int, value: float, at_ms: int) -> None:
        """A sample of ``t_ms`` that can be read from ``at_ms`` on."""
        self.arrivals[at_ms].append((source, metric, START_MS + t_ms, value))

    def quiet(self, from_ms: int, to_ms: int) -> None:
        """Nothing may keep the worker from reading in this span."""
        self.calm.append((from_ms - LEAD_MS, to_ms + 2 * self.interval_ms + 5_000))

    def config(self, path: Path) -> Config:
        """The settings of the worker, whose state file is ``path``."""
        given: dict[str, Any] = {
            "plexus": {"timeout": "5s"},
            "poll": {
                "interval": f"{self.interval_ms}ms",
                "settle": f"{self.settle_ms}ms",
                "overlap": f"{self.overlap_ms}ms",
                "discovery_interval": f"{max(60_000, 5 * self.interval_ms)}ms",
            },
            "series": [
                {"name": "fixed", "sources": ["dev-*"], "exclude_metrics": ["debug"], "fleet": self.fleet},
                {"name": "moving", "exclude_metrics": ["debug"], "fleet": False},
            ],
            "detect": {"detector": self.detector, "min_points": 20},
            "fleet": {"enabled": self.fleet, "group_min": 3, "min_points": 10},
            "post": {"series": list(SUFFIXES), "max_alert_age": "3650d", "batch_points_max": self.batch},
            "state": {"path": str(path), "snapshot_interval": f"{15 * self.interval_ms}ms"},
        }
        return Config.model_validate(given)


def make_world(seed: int) -> World:
    """The world of a seed."""
    rng = random.Random(f"world {seed}")
    fleet = rng.random() < 0.5
    samples = rng.choice([45, 50, 60, 120])
    step_ms = rng.choice([2_000, 5_000, 10_000, 30_000, 60_000])
    interval_ms = step_ms * rng.choice([1, 1, 2])
    settle_ms = rng.choice([1_000, min(5_000, step_ms)]) if fleet else 0
    detector = rng.choice(["auto", "auto", "robust", "zscore", "ewma"])
    batch = rng.choice([30, 1_000])
    overlap_ms = 6 * interval_ms + 2 * step_ms
    world = World(seed, step_ms, interval_ms, settle_ms, overlap_ms, fleet, detector, batch, samples)
    metrics = ["temp", "load"][: rng.choice([1, 2])]
    event = _fleet_event(rng, world) if fleet else None
    for i in range(rng.choice([4, 5, 6] if fleet else [2, 3])):
        for metric in metrics if i < 4 else metrics[:1]:
            _punctual(world, f"dev-{i}", metric, event)
    extras = [_van, _bus, _straggler, _newcomer]
    rng.shuffle(extras)
    for number, extra in enumerate(extras[: rng.choice([1, 2, 2] if fleet else [2, 3, 4])]):
        extra(world, rng, number)
    _unwanted(world, rng)
    world.calm.sort()
    return world


class _Sensor:
    """What a device measures: a slow wave with noise, steps and spikes."""

    def __init__(self, world: World, source: str, metric: str) -> None:
        self.rng = rng = random.Random(f"sensor {world.seed} {source} {metric}")
        self.level, self.sigma = rng.uniform(-50, 50), rng.choice([0.01, 0.1, 1.0])
        self.wave, self.period = rng.uniform(0, 2) * self.sigma, rng.uniform(40, 90)
        self.digits = rng.choice([2, 4, 12])
        self.steps = [
            (start, start + rng.randrange(8, 26), rng.choice([-1, 1]) * rng.uniform(8, 40))
            for start in (rng.randrange(10, world.samples) for _ in range(rng.choice([0, 1, 2])))
        ]
        self.spikes = {rng.randrange(5, world.samples): rng.uniform(-60, 60) for _ in range(rng.randrange(4))}

    def value(self, k: int, lift: float = 0.0) -> float:
        """Sample ``k``, counted from the first live one; ``lift`` in deviations of the noise."""
        odd = lift + self.spikes.get(k, 0.0) + sum(size for a, b, size in self.steps if a <= k < b)
        noise = self.rng.gauss(0, 1)
        wave = self.wave * math.sin(k / self.period * math.tau)
        return round(self.level + wave + self.sigma * (noise + odd), self.digits)


def _past(world: World, source: str, metric: str, sensor: _Sensor) -> None:
    for k in range(-HISTORY, 0):
        # Without fleets older than a poll: what is younger is posted, and how old it is depends on the start.
        pause_ms = 0 if world.fleet else 5_000 + world.interval_ms
        t_ms = START_MS - pause_ms + k * world.step_ms
        world.history.append((source, metric, t_ms, sensor.value(k)))


def _fleet_event(rng: random.Random, world: World) -> tuple[int, int, float] | None:
    """In some worlds all punctual devices are lifted together for a while."""
    start = rng.randrange(20, world.samples - 15)
    return (start, start + rng.randrange(6, 25), rng.uniform(10, 30)) if rng.random() < 0.4 else None


def _punctual(world: World, source: str, metric: str, event: tuple[int, int, float] | None) -> None:
    sensor = _Sensor(world, source, metric)
    rng = sensor.rng
    _past(world, source, metric, sensor)
    phase = rng.randrange(world.step_ms // 2)
    # After more than a minute of silence a first sample is held back for a poll: too long for a fleet.
    lost = rng.choice([0.0, 0.0, 0.02, 0.3]) if world.step_ms <= 5_000 or not world.fleet else 0.0
    slowest = 0.8 * world.settle_ms if world.fleet else 3_000.0
    at_ms = 0
    for k in range(world.samples):
        jitter = round(rng.uniform(-0.1, 0.1) * world.step_ms)
        value = sensor.value(k, event[2] if event and event[0] <= k < event[1] else 0.0)
        if rng.random() < lost:
            continue
        t_ms = world.begin_ms + phase + k * world.step_ms + jitter
        delayed_ms = t_ms + round(rng.uniform(0, slowest))
        at_ms = delayed_ms if world.settle_ms else max(delayed_ms, at_ms)
        world.show(source, metric, t_ms, value, at_ms)
        if rng.random() < 0.03:  # a rival on the same millisecond: there is no order between them
            world.show(source, metric, t_ms, value + sensor.sigma, at_ms)
        if rng.random() < 0.03:  # the same row again, at once or a while later
            world.show(source, metric, t_ms, value, at_ms + rng.choice([0, 1, world.step_ms * 3]))


def _van(world: World, rng: random.Random, number: int) -> None:
    """A device that is offline, once or twice, and then sends what it kept."""
    source, metric = f"van-{number}", "temp"
    sensor = _Sensor(world, source, metric)
    _past(world, source, metric, sensor)
    holes = []
    start = rng.randrange(5, 30)
    while start < world.samples - 25:
        long = min(rng.choice([rng.randrange(2, 12), rng.randrange(12, 90)]), world.samples - 15 - start)
        holes.append((start, start + long))
        start += long + rng.randrange(10, 60)
    flush_ms = 0
    for k in range(world.samples):
        t_ms = world.begin_ms + k * world.step_ms + rng.randrange(world.step_ms // 4)
        hole = next(((a, b) for a, b in holes if a <= k < b), None)
        if hole is None:
            at_ms = max(flush_ms, t_ms)
        else:
            a, b = hole
            batches = min(5, b - a)
            batch = (k - a) * batches // (b - a)
            at_ms = flush_ms = world.begin_ms + b * world.step_ms + batch * 1_500
        world.show(source, metric, t_ms, sensor.value(k), at_ms)


def _bus(world: World, rng: random.Random, number: int) -> None:
    """A device that sends many samples together, no older than ``poll.overlap``."""
    source, metric = f"bus-{number}", "temp"
    sensor = _Sensor(world, source, metric)
    _past(world, source, metric, sensor)
    longest = 1 + (world.overlap_ms - 2 * world.interval_ms - 1_000) // world.step_ms
    size = rng.randrange(3, min(12, longest) + 1)
    for k in range(world.samples):
        t_ms = world.begin_ms + k * world.step_ms
        last = min(k - k % size + size - 1, world.samples - 1)
        world.show(source, metric, t_ms, sensor.value(k), world.begin_ms + last * world.step_ms + 700)


def _straggler(world: World, rng: random.Random, number: int) -> None:
    """A device of which a sample comes after newer ones: within the overlap it is late.

    Whether it is in order or late is decided by what was read when it came. What comes later than the overlap
    is read only if some query reaches back to it for another series; it must not disturb the others.
    """
    source, metric = f"old-{number}", "temp"
    sensor = _Sensor(world, source, metric)
    _past(world, source, metric, sensor)
    usual_ms = world.step_ms + world.settle_ms + 2 * world.interval_ms + 3_000
    long_ms = world.overlap_ms + world.step_ms + usual_ms
    delays: dict[int, int] = {}
    silent_ms = 0
    for k in rng.sample(range(12, world.samples - 25), 2):
        if all(abs(k - other) * world.step_ms > 2 * long_ms for other in delays):
            delays[k] = usual_ms if rng.random() < 0.7 else long_ms
    for k in range(world.samples):
        t_ms = world.begin_ms + k * world.step_ms
        at_ms = t_ms + delays.get(k, 0)
        value = sensor.value(k)
        # What else there is when a late sample is scored decides its score: one newer sample, and no more.
        if t_ms < silent_ms and k not in delays:
            continue
        if delays.get(k - 1) == usual_ms:
            silent_ms = world.begin_ms + (k - 1) * world.step_ms + delays[k - 1]
        world.show(source, metric, t_ms, value, at_ms)
        if k in delays:
            world.quiet(t_ms, at_ms)
            if delays[k] == long_ms:
                world.loose.add((source, START_MS + t_ms))


def _newcomer(world: World, rng: random.Random, number: int) -> None:
    """A device that is met in the middle of the run: what it has sent before only warms it up."""
    source, metric = f"new-{number}", "temp"
    sensor = _Sensor(world, source, metric)
    first = rng.randrange(15, world.samples // 2)
    for k in range(first, world.samples):
        t_ms = world.begin_ms + k * world.step_ms
        world.show(source, metric, t_ms, sensor.value(k), t_ms)
    world.quiet(world.begin_ms + first * world.step_ms, world.begin_ms + first * world.step_ms)


def _unwanted(world: World, rng: random.Random) -> None:
    """Rows of a metric that no rule selects, and that nobody knew of before."""
    for k in rng.sample(range(10, world.samples), 3):
        t_ms = world.begin_ms + k * world.step_ms
        world.show("dev-0", "debug", t_ms, float(k), t_ms)


def is_calm(spans: Sequence[tuple[int, int]], from_ms: int, to_ms: int) -> bool:
    """Whether a span touches one in which nothing may go wrong."""
    return any(a < to_ms and from_ms < b for a, b in spans)
