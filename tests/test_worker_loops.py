"""worker: loops that end when told to, whatever the platform is doing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_platform import FakePlatform, Row
from worker_desk import events, history, opened, quick

from plexus_detect import worker as worker_module
from plexus_detect.config import Config
from plexus_detect.errors import AuthError, StoreError
from plexus_detect.report import TickReport
from plexus_detect.store import Store
from plexus_detect.worker import Worker, open_worker


def now_ms() -> int:
    """The real clock: these tests run the real loops, for a few tenths of a second."""
    return time.time_ns() // 1_000_000


def run(platform: FakePlatform, config: Config, store: Store, until: Callable[[Worker], bool]) -> Worker:
    """Run a worker until a tick finds ``until`` true."""

    async def body() -> Worker:
        stop = asyncio.Event()

        def look(report: TickReport) -> None:
            if until(worker):
                stop.set()

        worker = await open_worker(config, platform, store, look)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            await worker.run(stop)
        return worker

    return asyncio.run(body())


def test_a_run_that_is_stopped_delivers_and_saves(tmp_path: Path) -> None:
    """At the end the outbox is empty and a new worker has nothing to replay."""
    platform = FakePlatform(history(now_ms()))
    store = Store(tmp_path / "s.db")

    def until(worker: Worker) -> bool:
        platform.rows.append(("dev-0", "t", now_ms() - 1, 20.1))
        return worker.report.tick >= 2

    run(platform, quick(), store, until)
    assert store.outbox_points() == 0
    assert len(platform.stored(".zscore")) >= 2
    newest = next(store.snapshots())
    assert list(store.journal(newest.journal_id)) == []


@pytest.mark.parametrize("error", [StoreError("no room"), ZeroDivisionError("a bug")])
def test_an_error_ends_the_run_as_itself(error: Exception) -> None:
    """Not as a group of errors: the caller's exit code depends on its class."""

    def until(worker: Worker) -> bool:
        raise error

    with pytest.raises(type(error)) as caught:
        run(FakePlatform(history(now_ms())), quick(), Store(":memory:"), until)
    assert caught.value is error


class Hanging(FakePlatform):
    """A platform that stops answering calls of one method after the first ``answers`` of them."""

    def __init__(self, rows: list[Row], method: str, answers: int) -> None:
        super().__init__(rows)
        self.left = answers
        ordinary = getattr(self, method)

        async def call(*given: Any) -> Any:
            self.left -= 1
            result = await ordinary(*given)
            if self.left < 0:
                await asyncio.Event().wait()
            return result

        setattr(self, method, call)


@pytest.mark.parametrize("method", ["telemetry", "ingest", "fleet_health"])
def test_a_platform_that_hangs_does_not_hold_up_the_end(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop is obeyed in bounded time; a post cut short is read back by the next start, not repeated."""
    monkeypatch.setattr(worker_module, "STOP_SHARE", 0.01)
    platform = Hanging(history(now_ms()), method, 2 if method == "telemetry" else 1)
    platform.rows.append(("dev-0", "t", now_ms(), 20.1))
    store = Store(tmp_path / "s.db")

    async def body() -> None:
        worker = await open_worker(quick(poll__interval="30s"), platform, store)  # type: ignore[arg-type]
        stop = asyncio.Event()
        running = asyncio.ensure_future(worker.run(stop))
        await asyncio.wait([running], timeout=0.5)
        began = time.monotonic()
        stop.set()
        await running
        assert time.monotonic() - began < 1.0

    asyncio.run(body())
    calm = FakePlatform(platform.rows)
    worker = opened(calm, quick(poll__interval="30s"), store)
    asyncio.run(worker.once())
    posted = [row[2] for row in calm.stored(".zscore")]
    assert len(posted) == len(set(posted)) > 0


def test_slow_discovery_does_not_hold_up_the_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for new series has a loop of its own."""
    monkeypatch.setattr(worker_module, "STOP_SHARE", 0.01)
    platform = Hanging(history(now_ms()), "fleet_health", 1)
    worker_config = quick(poll__discovery_interval="1s")
    began = time.monotonic()
    worker = run(
        platform,
        worker_config,
        Store(":memory:"),
        lambda w: time.monotonic() - began > 1.4 and w.report.tick > 8,
    )
    assert platform.left < 0
    assert worker.report.tick > 8


def test_a_failing_discovery_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and the polls go on; while nothing is known it is repeated soon."""
    monkeypatch.setattr(worker_module, "EMPTY_DISCOVERY_MS", 20)
    platform = FakePlatform()

    def until(worker: Worker) -> bool:
        if worker.report.tick == 1:
            platform.script["fleet_health"] = [AuthError("401")]
            platform.rows += history(now_ms())
        return worker.running.series_count() > 0

    run(platform, quick(), Store(":memory:"), until)
    assert events(caplog, "discovery_failed") == [{"err": "401"}]
