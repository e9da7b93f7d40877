"""The whole job through the whole pipe: samples in the sandbox, scores and alerts out, over real HTTP."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

import httpx
import pytest
from fake_platform import START_MS, FakeClock, Row, settings
from pipe import DEVICES, QUIET, Pipe, noise, play, quiet_room

from plexus_detect.client import Client, Endpoints
from plexus_detect.sandbox import Sandbox
from plexus_detect.store import Store
from plexus_detect.worker import open_worker

TUTORIAL = (22.41, 22.45, 23.18, 24.05, 24.92, 25.78, 26.43)


def monitor(box: Sandbox, source: str, metric: str) -> None:
    """A monitor of the kind that the tutorial makes."""
    body = {"source_id": source, "metric": metric, "threshold": {"max": 3, "severity": "critical"}}
    answer = httpx.post(f"{box.url}/api/monitors", json=body, headers={"x-api-key": box.key})
    assert answer.status_code == 201, answer.text


def test_the_tutorials_readings_fire_and_resolve(stopped: FakeClock) -> None:
    """The third anomalous reading, if not an earlier one, opens an alert and a Slack message; a minute after
    recovery it resolves."""
    past = [("dev-0", QUIET, START_MS - 1000 * k, 22.4 + noise("dev-0", k, 0.05)) for k in range(300, 0, -1)]

    async def room(pipe: Pipe) -> None:
        told = []
        for reading in TUTORIAL:
            await pipe.step([("dev-0", QUIET, pipe.now_ms, reading)])
            told.append(len(pipe.box.slack_messages()))
        # The first two readings belong to the quiet room.
        assert (told[:2], told[4:]) == ([0, 0], [1, 1, 1])
        assert pipe.posted()[:2] == [0, 0]
        assert min(pipe.posted()[4:]) > 3
        (alert,) = pipe.box.alerts()
        assert (alert["metric"], alert["is_alert_active"]) == ("temperature.zscore", True)
        await pipe.steps(60, lambda t: [("dev-0", QUIET, t, 22.4 + noise("dev-0", t, 0.05))])
        assert not pipe.box.alerts()[0]["is_alert_active"]

    pipe = play(stopped, room, past=past, before=lambda box: monitor(box, "dev-0", "temperature.zscore"))
    assert [sent.event for sent in pipe.box.slack_messages()] == ["alert.triggered", "alert.resolved"]
    rows = pipe.rows("dev-0", "temperature.zscore")
    assert [row.t_ms for row in rows] == [START_MS + 1000 * k for k in range(67)]
    assert [row.value for row in rows][-50:] == [0] * 50


@pytest.mark.parametrize("sigmas", [5, -5, 8, 100])
def test_a_step_of_five_sigma_fires(stopped: FakeClock, sigmas: int) -> None:
    """On its third sample at the latest, upwards and downwards, after five minutes of habit."""
    past = [quiet_room(s, START_MS - 1000 * k) for s in DEVICES for k in range(300, 0, -1)]

    async def room(pipe: Pipe) -> None:
        await pipe.steps(5)
        before = quiet_room("dev-0", 0)[3] - noise("dev-0", 0)
        await pipe.steps(6, lambda t: [("dev-0", QUIET, t, before + sigmas * 0.1)])

    values = play(stopped, room, past=past).posted(source="dev-0")
    assert values[:5] == [0] * 5
    assert min(values[7:]) > 3


def test_one_odd_device_of_eight(stopped: FakeClock) -> None:
    """Devices with one weather warm up together and one does not: that one has a fleet score, the others
    have zeros."""

    def sample(source: str, t_ms: int) -> Row:
        seconds = (t_ms - START_MS) / 1000
        weather = 0.5 * math.sin(seconds / 25) + 0.02 * max(0.0, seconds)
        _source, metric, _t_ms, value = quiet_room(source, t_ms)
        return source, metric, t_ms, value + (0.0 if source == "dev-3" and seconds >= 0 else weather)

    async def room(pipe: Pipe) -> None:
        await pipe.steps(50, lambda t_ms: [sample(source, t_ms) for source in DEVICES])
        await pipe.drain()

    pipe = play(
        stopped, room, past=[sample(s, START_MS - 1000 * k) for s in DEVICES for k in range(300, 0, -1)]
    )
    worst = {s: max(pipe.posted(suffix=".fleet_zscore", source=s)) for s in DEVICES}
    assert worst["dev-3"] > 3
    assert {s for s, value in worst.items() if value > 0} == {"dev-3"}
    assert len(pipe.posted(suffix=".fleet_zscore")) == 50 * len(DEVICES)


def test_our_own_scores_are_never_scored(stopped: FakeClock) -> None:
    """Neither they nor internal rows become series, however long the worker runs beside them."""

    async def room(pipe: Pipe) -> None:
        pipe.box.load([("dev-0", m, START_MS - 3000, 1.0) for m in ("_frame", "temperature.drift")])
        await pipe.steps(10)
        await pipe.worker.discover()
        await pipe.steps(10)
        assert pipe.worker.running.series_count() == len(DEVICES)

    pipe = play(stopped, room)
    ours = {row.metric for row in pipe.rows()} - {QUIET, "_frame", "temperature.drift"}
    assert ours == {"temperature.zscore", "temperature.fleet_zscore"}


def test_a_new_source_is_picked_up_without_restart(tmp_path: Path) -> None:
    """By the running loops: a device that was never seen, with a metric that was never seen."""

    async def body(box: Sandbox) -> None:
        config = settings(poll__interval="100ms", poll__discovery_interval="1s")
        async with Client(Endpoints(box.url, box.url, box.url), box.key) as client:
            store = Store(tmp_path / "s.db")
            worker = await open_worker(config, client, store)
            stop = asyncio.Event()
            running = asyncio.ensure_future(worker.run(stop))
            start = time.time_ns() // 1_000_000
            box.load([("new", "humidity", start - 1000 * k, 40.0 + k % 5) for k in range(60, 1, -1)])
            async with asyncio.timeout(10):
                while not box.rows("new", "humidity.zscore"):
                    box.load([("new", "humidity", time.time_ns() // 1_000_000, 41.0)])
                    await asyncio.sleep(0.1)
            stop.set()
            await running
            store.close()

    with Sandbox() as box:
        now = time.time_ns() // 1_000_000
        box.load([("old", QUIET, now - 1000 * k, 20.0 + k % 3) for k in range(60, 1, -1)])
        asyncio.run(body(box))


def test_requests_a_tick_for_a_thousand_series(stopped: FakeClock) -> None:
    """One or two, also when only some of the series have something new."""
    names = [(f"s{k:03d}", f"m{k % 4}") for k in range(1000)]
    past = [(s, m, START_MS - 1000 * k, float(k % 7)) for s, m in names for k in range(12, 0, -1)]

    async def room(pipe: Pipe) -> None:
        await pipe.step([])
        for part in (names, names[::7], names):
            pipe.box.requests.clear()
            report = await pipe.step([(s, m, pipe.now_ms, 3.0) for s, m in part])
            counts = pipe.box.requests.counts
            assert report.points == len(part)
            assert 1 <= counts["GET /api/v1/telemetry"] <= 2
            assert report.requests == counts["GET /api/v1/telemetry"]

    play(stopped, room, past=past)


def test_old_samples_page_nobody(stopped: FakeClock) -> None:
    """After an outage of ten minutes only the last two go where monitors look; the others are on record."""

    async def room(pipe: Pipe) -> None:
        await pipe.steps(3)
        behind = [quiet_room(s, pipe.now_ms + 1000 * k) for s in DEVICES for k in range(600)]
        pipe.number += 600
        await pipe.step(behind)
        await pipe.drain()

    pipe = play(stopped, room)
    assert pipe.tally["points"] == len(DEVICES) * (70 + 603)
    late = pipe.rows("dev-0", "temperature.zscore_late")
    assert [row.t_ms for row in late] == [START_MS + 3000 + 1000 * k for k in range(len(late))]
    assert pipe.tally["late_scores"] == len(late) * len(DEVICES) > 450 * len(DEVICES)
    assert pipe.tally["expired"] > 450 * len(DEVICES)
    times = [row.t_ms for row in pipe.rows("dev-0", "temperature.zscore")]
    assert times[:3] == [START_MS, START_MS + 1000, START_MS + 2000]
    assert times[3] > START_MS + 603_000 - 122_000
    assert times[3:] == list(range(times[3], START_MS + 603_000, 1000))
