"""What fixed thresholds miss, found by the default settings and the monitors that ship with them, and what
must stay silent: weeks of readings through the sandbox, the worker and Slack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, settings
from pipe import Pipe, play

from plexus_detect.client import Client, Endpoints
from plexus_detect.demo.story import TRIGGERED, SlackMessage, read_slack
from plexus_detect.evaluate import Event
from plexus_detect.provision.applying import apply_plan
from plexus_detect.provision.files import load_specs
from plexus_detect.provision.reading import make_plan
from plexus_detect.series import F64, Kind

MONITORS = Path(__file__).parent.parent / "monitors"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

# The worker starts with a day of history and runs for DAYS; then comes the day that is looked at. Before
# that day it polls as rarely as it may without skipping any, during it every ten minutes.
DAYS = 10
BEFORE_MS, DURING_MS = 5 * HOUR, 10 * MINUTE
THE_DAY = START_MS + DAYS * DAY

# A series' values at times in ms since the worker's start, the same times whatever the series.
Readings = dict[tuple[str, str], F64]


@dataclass
class Outcome:
    """What the day brought: episodes that opened, and the alerts in Slack; ``sent`` are those of all days."""

    opened: list[Event]
    keys: list[tuple[str, str]]
    sent: list[SlackMessage]

    @property
    def alerts(self) -> list[SlackMessage]:
        """The alerts of the day."""
        return [m for m in self.sent if m.t_ms >= THE_DAY]

    def about(self, source: str, metric: str) -> list[SlackMessage]:
        """The alerts on one series against its own past."""
        return [m for m in self.alerts if (m.source, m.metric) == (source, f"{metric}.zscore")]

    def series(self, kind: Kind) -> set[tuple[str, str]]:
        """The series that had an episode of a kind."""
        return {self.keys[e.series] for e in self.opened if e.kind is kind}


def times(cadence_ms: int) -> np.ndarray:
    """From a day before the worker's start to the end of the day that is looked at."""
    return np.arange(-DAY, (DAYS + 1) * DAY, cadence_ms)


def weather(seed: int, t_ms: np.ndarray) -> F64:
    """A slow wander of deviation 1 that forgets itself in two days and does not move within the hour."""
    step = (t_ms[1] - t_ms[0]) / (2 * DAY)
    rng = np.random.default_rng(seed)
    out = np.zeros(len(t_ms))
    for i, push in enumerate(rng.normal(0.0, np.sqrt(2 * step), len(t_ms))[1:], 1):
        out[i] = out[i - 1] * (1.0 - step) + push
    width = 2 * HOUR // int(t_ms[1] - t_ms[0])
    smooth: F64 = np.convolve(out, np.full(width, 1.0 / width), "same")
    return smooth


def habit(t_ms: np.ndarray, size: float) -> F64:
    """What every day brings: highest in the afternoon."""
    hours: F64 = ((t_ms + START_MS) % DAY) / HOUR
    return size * np.cos(2 * np.pi * (hours - 15.0) / 24.0)


def measured(seed: int, value: F64, sigma: float) -> F64:
    """With the sensor's noise, in its steps of a hundredth."""
    noisy: F64 = np.round(value + np.random.default_rng(seed).normal(0.0, sigma, len(value)), 2)
    return noisy


def room(seed: int, t_ms: np.ndarray) -> F64:
    """A room's temperature: habit of 3 °C between night and afternoon, weather."""
    return 21.5 + habit(t_ms, 1.5) + 0.8 * weather(seed, t_ms)


def air(seed: int, t_ms: np.ndarray) -> F64:
    """A room's relative humidity: dry in the afternoon."""
    return 46.0 - habit(t_ms, 3.0) + 2.0 * weather(seed, t_ms)


def ramp(t_ms: np.ndarray, begin_h: float, lasts_h: float) -> F64:
    """From 0 to 1 within ``lasts_h`` hours of the day, and 1 from then on."""
    since: F64 = (t_ms - DAYS * DAY) / HOUR - begin_h
    return np.clip(since / lasts_h, 0.0, 1.0)


def through_the_pipe(stopped: FakeClock, readings: Readings, cadence_ms: int) -> Outcome:
    """Everything by default: the worker's settings and the monitors of the repository."""
    at = START_MS + times(cadence_ms)

    def rows(from_ms: int, to_ms: int) -> Iterator[tuple[str, str, int, float]]:
        some = slice(*np.searchsorted(at, [from_ms, to_ms]))
        for (source, metric), values in readings.items():
            for t_ms, value in zip(at[some].tolist(), values[some].tolist(), strict=True):
                yield source, metric, t_ms, value

    # Every poll is just after a sample: scores that are older than post.max_alert_age page nobody.
    day: list[Event] = []

    async def poll(pipe: Pipe, to_ms: int) -> None:
        pipe.box.load(rows(stopped.t_ms, to_ms + 1))
        stopped.t_ms = to_ms + 1
        events = (await pipe.worker.tick()).events
        assert await pipe.worker.delivery.deliver_all()
        day.extend(e for e in events if e.what == "opened" and e.t_ms >= THE_DAY)

    async def weeks(pipe: Pipe) -> None:
        stopped.t_ms = START_MS
        async with Client(Endpoints(pipe.box.url, pipe.box.url, pipe.box.url), pipe.box.key) as api:
            plan = await make_plan(api, load_specs(MONITORS), "plexus-detect")
            result = await apply_plan(api, plan, lambda line: None)
            assert not result.failed
        for begin, end, step in (
            (START_MS, THE_DAY, BEFORE_MS),
            (THE_DAY, THE_DAY + DAY + 1, DURING_MS),
        ):
            for to_ms in range(begin + step, end, step):
                await poll(pipe, to_ms)

    pipe = play(stopped, weeks, past=rows(0, START_MS), given=settings())
    sent = [read_slack(m.t_ms, m.event, m.body) for m in pipe.box.slack_messages()]
    alerts = [m for m in sent if m.event == TRIGGERED]
    return Outcome(day, [(key.source, key.metric) for key in pipe.worker.running.table.keys], alerts)


@pytest.fixture(scope="module", name="rooms")
def _rooms() -> Outcome:
    """Three rooms, too few for a fleet: one's temperature creeps up by 5 °C from six in the morning on, one's
    humidity sinks by 12 points, and one has a day like any other."""
    cadence_ms = 2 * MINUTE
    t_ms = times(cadence_ms)
    readings: Readings = {}
    for i, source in enumerate(("drifting", "dry", "calm")):
        warmer = (5.0 if source == "drifting" else 0.0) * ramp(t_ms, 6, 8)
        drier = (12.0 if source == "dry" else 0.0) * ramp(t_ms, 6, 1)
        readings[source, "temperature"] = measured(10 + i, room(i, t_ms) + warmer, 0.05)
        readings[source, "humidity"] = measured(20 + i, air(30 + i, t_ms) - drier, 0.3)
    with pytest.MonkeyPatch.context() as patch:
        return through_the_pipe(FakeClock(patch), readings, cadence_ms)


def test_five_degrees_in_eight_hours(rooms: Outcome) -> None:
    """A drift of 0.01 °C a minute in a room with a daily cycle is an alert before it ends."""
    assert rooms.about("drifting", "temperature")[0].t_ms < THE_DAY + 14 * HOUR


def test_humidity_twelve_points_low(rooms: Outcome) -> None:
    """After a week of habit a dry day is an alert within the hours, although no limit is reached."""
    assert rooms.about("dry", "humidity")[0].t_ms < THE_DAY + 9 * HOUR


def test_a_normal_day_is_silent(rooms: Outcome) -> None:
    """Nothing opens on the room without a fault, nor on what is right in the other two."""
    faulty = {("drifting", "temperature"), ("dry", "humidity")}
    assert rooms.series(Kind.ZSCORE) == faulty
    assert rooms.series(Kind.FLEET_ZSCORE) == set()
    assert {(m.source, m.metric.removesuffix(".zscore")) for m in rooms.alerts} == faulty


@pytest.fixture(scope="module", name="site")
def _site() -> Outcome:
    """Nine devices under one sky, one of them 2 °C warmer than its peers for ever; on the day a heat wave of
    6 °C builds up until the afternoon for all."""
    cadence_ms = 5 * MINUTE
    t_ms = times(cadence_ms)
    sky = room(50, t_ms) + 6.0 * ramp(t_ms, 6, 6)
    readings: Readings = {
        (f"dev-{i}", "temperature"): measured(
            60 + i, sky + 0.3 * i + 0.2 * weather(70 + i, t_ms) + (2.0 if i == 4 else 0.0), 0.05
        )
        for i in range(9)
    }
    with pytest.MonkeyPatch.context() as patch:
        return through_the_pipe(FakeClock(patch), readings, cadence_ms)


def test_a_heat_wave_makes_no_odd_device(site: Outcome) -> None:
    """What the whole fleet sees pages nobody about one device against the others; it is one event, and after
    it was seen as one no further device is told to have left its own past while it lasts."""
    assert site.series(Kind.FLEET_ZSCORE) == set()
    assert [m for m in site.alerts if m.metric.endswith(".fleet_zscore")] == []
    (event,) = [e for e in site.opened if e.kind is Kind.FLEET_EVENT]
    alone = [e for e in site.opened if e.kind is Kind.ZSCORE and e.t_ms < THE_DAY + 18 * HOUR]
    assert max(e.t_ms for e in alone) <= event.t_ms < THE_DAY + 18 * HOUR
    assert len(alone) < 5  # as many make an event


def test_a_device_that_is_always_warmer_is_silent(site: Outcome) -> None:
    """Nor does the sensor that is 2 °C above its peers, on this or any day."""
    assert ("dev-4", "temperature.fleet_zscore") not in {(m.source, m.metric) for m in site.sent}
