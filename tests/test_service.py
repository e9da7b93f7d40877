"""service: new settings while running. Staged, without a gap, and never worse than before."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from subprocess_worker import environment, started, wait_for_state
from worker_desk import events

from plexus_detect.config import Config, load_config
from plexus_detect.logs import PACKAGE
from plexus_detect.outside import Outside
from plexus_detect.sandbox import Sandbox
from plexus_detect.service import Service
from plexus_detect.store import Store

TELEMETRY = "GET /api/v1/telemetry"


class Station:
    """A sandbox that is fed, a configuration file, and a service under way."""

    def __init__(self, box: Sandbox, folder: Path) -> None:
        self.box, self.file = box, folder / "fleet.yaml"
        self.env = environment(box.url, box.key, health__listen="off", state__path=str(folder / "s.db"))
        self.write("poll: {interval: 100ms}")
        self.stop, self.reload = asyncio.Event(), asyncio.Event()
        self.outside = Outside(self.load(), self.stop, {})
        self.store = Store(folder / "s.db")
        self.service = Service(self.load(), self.load, self.store, self.outside, [self.file])

    def write(self, text: str) -> None:
        """Replace the configuration file."""
        self.file.write_text(f"version: 1\n{text}\n")

    def load(self) -> Config:
        """The settings as they are now."""
        return load_config([self.file], self.env)

    def feed(self) -> None:
        """A sample of two metrics."""
        now = time.time_ns() // 1_000_000
        self.box.load([("dev-0", "t", now, 20.1), ("dev-0", "h", now, 50.5)])

    async def until(self, metric: str, n: int = 1) -> None:
        """Until so many more scores of a metric are stored."""
        have = len(self.box.rows("dev-0", metric))
        async with asyncio.timeout(10):
            while len(self.box.rows("dev-0", metric)) < have + n:
                self.feed()
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def station(folder: Path) -> AsyncIterator[Station]:
    """One that watches ``t`` alone when the test begins."""
    now = time.time_ns() // 1_000_000
    with Sandbox() as box:
        box.load([("dev-0", m, now - 1000 * k, 20 + k % 5 / 10) for m in "th" for k in range(80, 0, -1)])
        one = Station(box, folder)
        one.write("poll: {interval: 100ms}\nseries: [{metrics: [t]}]\nfleet: {enabled: false}")
        one.service.config = one.load()
        running = asyncio.ensure_future(one.service.run(one.stop, one.reload))
        try:
            await one.until("t.zscore")
            yield one
            one.stop.set()
            await running
        finally:
            running.cancel()
            one.store.close()


def test_new_settings_take_the_place_of_the_old_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another metric is watched without a new process; what was scored before goes on, each sample once."""
    caplog.set_level(logging.INFO, PACKAGE)

    async def body() -> None:
        async with station(tmp_path) as one:
            one.write("poll: {interval: 200ms}\nfleet: {enabled: false}")
            one.reload.set()
            await one.until("h.zscore", 3)
            await one.until("t.zscore", 3)
            times = [row.t_ms for row in one.box.rows("dev-0", "t.zscore")]
            assert len(times) == len(set(times))
            assert (one.outside.vitals.interval_ms, one.outside.vitals.config_ok) == (200, True)
            assert len(events(caplog, "reloaded")) == 1

    asyncio.run(body())


@pytest.mark.skipif(os.name != "posix", reason="other systems have other rights")
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_reload_tells_of_a_key_that_others_may_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    """A key that came into the file while the worker ran is told as at a start; a private one is not."""
    key = "plx_0123456789abcdefABCDEF0123456789"

    async def body() -> None:
        async with station(tmp_path) as one:
            one.write(f"poll: {{interval: 200ms}}\nfleet: {{enabled: false}}\n# {key}")
            one.file.chmod(mode)
            one.reload.set()
            await one.until("h.zscore")

    asyncio.run(body())
    told = [e["msg"] for e in events(caplog, "config_warning") if "chmod 600" in e["msg"]]
    assert [str(tmp_path / "fleet.yaml") in line for line in told] == [True] * (mode == 0o644)
    assert key not in caplog.text


@pytest.mark.parametrize(
    ("text", "env", "words"),
    [
        ("poll: {interval: never}", {}, "poll.interval: 'never' is not a duration"),
        ("pol: {interval: 1s}", {}, "did you mean 'poll'?"),
        ("poll: [", {}, "fleet.yaml"),
        ("health: {listen: off}", {"PLEXUS_API_KEY": "plx_Bad"}, "401"),
        ("plexus: {endpoint: 'http://127.0.0.1:9'}", {"PLEXUS_ENDPOINT": ""}, "no answer"),
        ("", {"PLEXUS_DETECT_STATE__PATH": "other.db"}, "state.path: other.db cannot take the place of"),
        ("", {"PLEXUS_DETECT_HEALTH__LISTEN": "127.0.0.1:1"}, "restart the worker"),
    ],
    ids=[
        "bad value",
        "unknown key",
        "broken file",
        "refused key",
        "no platform",
        "other state",
        "other port",
    ],
)
def test_bad_settings_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, env: dict[str, str], words: str
) -> None:
    """The old ones stay in force, and that is said in the log and to whoever asks whether it is ready; good
    ones later make it well again."""

    async def body() -> None:
        async with station(tmp_path) as one:
            good, before = one.service.config, dict(one.env)
            one.write(text)
            one.env |= env
            one.reload.set()
            async with asyncio.timeout(10):
                while one.outside.vitals.config_ok:  # noqa: ASYNC110  it is set between two awaits
                    await asyncio.sleep(0.02)
            assert words in one.outside.vitals.config_error
            assert one.service.config is good
            await one.until("t.zscore", 2)
            one.env = before
            one.write("poll: {interval: 100ms}\nseries: [{metrics: [t]}]\nfleet: {enabled: false}")
            one.reload.set()
            async with asyncio.timeout(10):
                while not one.outside.vitals.config_ok:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await one.until("t.zscore", 2)

    asyncio.run(body())
    assert [e["kept"] for e in events(caplog, "reload_failed")] == ["the settings before"]


def test_a_process_reloads_on_sighup_and_leaves_in_time(tmp_path: Path) -> None:
    """SIGHUP ends nothing; SIGTERM flushes and leaves within the time set, although the platform hangs."""
    file = tmp_path / "fleet.yaml"
    file.write_text("version: 1\npoll: {interval: 100ms}\nhealth: {listen: off, stop_within: 3s}\n")
    with Sandbox() as box:
        now = time.time_ns() // 1_000_000
        box.load([("dev-0", "t", now - 1000 * k, 20 + k % 5 / 10) for k in range(80, 0, -1)])
        log = (tmp_path / "log").open("w+")
        process = started(["run", "-c", str(file)], environment(box.url, box.key), tmp_path, log)
        try:
            wait_for_state(tmp_path)
            deadline = time.monotonic() + 20
            while box.requests.counts[TELEMETRY] < 5:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGHUP)
            while "event=reloaded" not in (tmp_path / "log").read_text():
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
            box.faults.add("latency", route="/", latency_ms=60_000)
            time.sleep(0.5)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 128 + signal.SIGTERM
            assert time.monotonic() - began < 3.5
        finally:
            process.kill()
            process.wait()
            log.close()
    assert "Traceback" not in (tmp_path / "log").read_text()
