"""A real worker, seen from outside while the platform fails in one way after the other."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fake_platform import settings
from subprocess_worker import environment, started
from test_notify import Manager

from plexus_detect.bucket import RetryBudget
from plexus_detect.client import Client, Endpoints
from plexus_detect.outside import Outside
from plexus_detect.sandbox import Sandbox

DEVICES = 6
HTTP = httpx.Client(verify=False, trust_env=False)


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as room:
        return int(room.getsockname()[1])


class Scene:
    """A sandbox with devices that send, a worker beside it, and somebody who looks at both."""

    def __init__(self, box: Sandbox, folder: Path, manager: Manager) -> None:
        self.box, self.manager = box, manager
        now = time.time_ns() // 1_000_000
        box.load(
            [
                (f"dev-{d}", "t", now - 1000 * k, 20 + k % 5 / 10)
                for d in range(DEVICES)
                for k in range(60, 1, -1)
            ]
        )
        self.port = free_port()
        env = environment(
            box.url,
            box.key,
            poll__interval="200ms",
            state__outbox_points_max="60",
            health__listen=f"127.0.0.1:{self.port}",
        )
        env |= manager.environ | {"WATCHDOG_USEC": "500000"}
        self.log = (folder / "log").open("w+")
        self.process = started(["run"], env, folder, self.log)

    def look(self, path: str = "/readyz") -> httpx.Response | None:
        """What the worker says, while its devices send."""
        now = time.time_ns() // 1_000_000
        self.box.load([(f"dev-{d}", "t", now, 20.1) for d in range(DEVICES)])
        try:
            return HTTP.get(f"http://127.0.0.1:{self.port}{path}")
        except httpx.TransportError:
            return None

    def until(self, seen: Callable[[dict[str, str]], bool], patience_s: float = 15.0) -> dict[str, str]:
        """The checks that fail and why, as soon as they are as wanted."""
        deadline, reasons = time.monotonic() + patience_s, {}
        while time.monotonic() < deadline:
            answer = self.look()
            if answer is not None:
                reasons = {reason["check"]: reason["what"] for reason in answer.json()["reasons"]}
                assert answer.status_code == (503 if reasons else 200)
                if seen(reasons):
                    return reasons
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        raise AssertionError(f"it still says {reasons}")

    def green(self) -> None:
        """Wait until it is ready."""
        self.until(lambda reasons: not reasons)

    def told_status(self, words: str) -> list[str]:
        """What the manager was told until it had a status with these words; one comes every second."""
        told = [self.manager.heard()]
        while not told[-1].startswith(f"STATUS={words}"):
            told.append(self.manager.heard())
        return told

    def said(self) -> str:
        """The log."""
        self.log.seek(0)
        return self.log.read()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A worker under a service manager."""
    manager = Manager(str(tmp_path / "notify"))
    with Sandbox() as box:
        scene = Scene(box, tmp_path, manager)
        try:
            yield scene
        finally:
            scene.process.kill()
            scene.process.wait()
            scene.log.close()
            manager.close()


def test_every_cause_turns_it_red_and_its_end_green(scene: Scene) -> None:
    """Starting, the platform away, the key refused, the gateway away with a small outbox: each is told with
    its reason, none makes the process look dead, and each ends by itself."""
    first = scene.until(bool)
    assert first["starting"].startswith("no successful poll since the start")
    scene.green()

    scene.box.faults.add("status", route="/api/v1/telemetry", status=503)
    assert "503" in scene.until(lambda reasons: "platform" in reasons)["platform"]
    told = scene.told_status("the platform is ill")
    scene.box.faults.clear()
    scene.green()

    scene.box.faults.add("status", route="/api/v1/telemetry", status=401)
    assert "401" in scene.until(lambda reasons: "key" in reasons)["key"]
    live = scene.look("/livez")
    assert live is not None
    assert live.json() == {"ok": True, "reasons": []}
    scene.box.faults.clear()
    scene.green()

    scene.box.faults.add("status", route="/ingest", status=503)
    assert "60)" in scene.until(lambda reasons: "outbox" in reasons)["outbox"]
    scene.box.faults.clear()
    scene.green()

    metrics = scene.look("/metrics")
    assert metrics is not None
    assert 'plexus_detect_platform_verdict{verdict="ok"} 1.0' in metrics.text
    assert 'plexus_detect_http_requests_total{code="401"} 0.0' not in metrics.text
    told += scene.manager.all()
    assert "READY=1" in told
    assert told.count("WATCHDOG=1") > 3
    scene.process.send_signal(signal.SIGTERM)
    assert scene.process.wait(15) == 143
    assert "STOPPING=1" in scene.manager.all()
    assert "Traceback" not in scene.said()
    assert scene.box.key not in scene.said() + "".join(told) + metrics.text


def test_a_taken_port_stops_no_detection(tmp_path: Path) -> None:
    """The worker says so and goes on; a run for cron does not even try."""
    with Sandbox() as box, socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        env = environment(box.url, box.key, poll__interval="200ms", health__listen=listen)
        process = started(["run"], env, tmp_path, subprocess.PIPE)
        deadline = time.monotonic() + 15
        while box.requests.counts["GET /api/v1/telemetry"] < 3 and time.monotonic() < deadline:
            box.load([("dev", "t", time.time_ns() // 1_000_000, 20.0)])
            time.sleep(0.05)
        process.terminate()
        _, log = process.communicate(timeout=15)
        assert process.returncode == 143, log
        assert "event=health_unavailable" in log
        assert "event=tick" in log
        once = started(["run", "--once"], env, tmp_path, subprocess.PIPE)
        _, log = once.communicate(timeout=30)
        assert "health" not in log


def test_the_loop_turns_and_the_manager_hears_of_it(tmp_path: Path) -> None:
    """Within the time that the watchdog gives; when the loop stands still, no sign is sent."""
    manager = Manager(str(tmp_path / "notify"))

    async def watched() -> None:
        config = settings(health__listen="off", state__path=str(tmp_path / "s.db"))
        environ = manager.environ | {"WATCHDOG_USEC": "40000"}
        async with Outside(config, asyncio.Event(), environ) as outside:
            async with Client(Endpoints("http://a", "http://a", "http://a"), "plx_" + "1" * 32) as client:
                outside.ready(client, RetryBudget())
            await asyncio.sleep(0.2)
            turned_s = outside.vitals.turned_s
            time.sleep(0.1)  # noqa: ASYNC251  the loop stands still
            assert outside.vitals.turned_s == turned_s

    asyncio.run(watched())
    told = manager.close()
    assert "READY=1" in told
    assert 4 <= told.count("WATCHDOG=1") <= 14
    assert told[-1] == "STOPPING=1"


def test_the_state_file_is_measured(tmp_path: Path) -> None:
    """Its size with the log beside it; nothing while there is none."""
    path = tmp_path / "s.db"

    async def measured() -> int:
        config = settings(health__listen="off", state__path=str(path))
        async with Outside(config, asyncio.Event(), {}) as outside:
            await asyncio.sleep(0)
            return outside.vitals.state_bytes

    assert asyncio.run(measured()) == 0
    path.write_bytes(b"x" * 100)
    Path(f"{path}-wal").write_bytes(b"x" * 20)
    assert asyncio.run(measured()) == 120
