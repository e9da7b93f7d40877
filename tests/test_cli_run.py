"""cli: run and run --once as real processes, and the signals that end them."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from subprocess_worker import environment, finished, said, started, wait_for_state

from plexus_detect.sandbox import Sandbox

# --- run --------------------------------------------------------------------------------------------------


def test_once_twice_posts_nothing_twice(tmp_path: Path) -> None:
    """The form for cron: every new sample's score, each once, exit 0, and no key in the log."""
    with Sandbox() as box:
        now = time.time_ns() // 1_000_000
        box.load([("dev-1", "t", now - 1000 * k, 20 + k % 5 / 10) for k in range(60, 1, -1)])
        env = environment(box.url, box.key, poll__interval="20s")
        done = [finished(["run", "--once"], env, tmp_path) for _ in range(2)]
        box.load([("dev-1", "t", time.time_ns() // 1_000_000, 20.1)])
        done.append(finished(["run", "--once"], env, tmp_path))
        times = [row.t_ms for row in box.rows("dev-1", "t.zscore")]
    assert [d.returncode for d in done] == [0, 0, 0]
    assert len(times) == len(set(times)) > 10
    assert max(times) > now
    for d in done:
        assert box.key not in d.stderr
        assert d.stdout == ""
        assert d.stderr.count("event=tick") >= 1


def test_once_on_a_platform_that_fails_ends_with_75(tmp_path: Path) -> None:
    """What could not be read or posted is for the next run; the exit code says so."""
    with Sandbox() as failing:
        now = time.time_ns() // 1_000_000
        failing.load([("dev-1", "t", now - 1000 * k, 20 + k % 5 / 10) for k in range(60, 1, -1)])
        failing.faults.add("status", route="/ingest", status=429, retry_after_s=90)
        env = environment(failing.url, failing.key, poll__interval="20s")
        # The empty post of the check is refused first: nothing works, so the run does not begin.
        assert "429" in said(finished(["run", "--once"], env, tmp_path), 75)
        failing.faults.clear()
        failing.requests.clear()
        process = started(["run", "--once"], env, tmp_path)
        while not failing.requests.counts["POST /ingest"]:
            time.sleep(0.005)
        # The check has passed; now the gateway wants to be left alone for longer than a run may wait.
        failing.faults.add("status", route="/ingest", status=429, retry_after_s=90)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 75, log
    assert "delivery_failed" in log


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("stuck", [False, True], ids=["idle", "in a request"])
def test_a_signal_ends_the_run_cleanly(tmp_path: Path, number: int, code: int, *, stuck: bool) -> None:
    """Within a few seconds, also in the middle of a request; what was read is saved and goes on later."""
    with Sandbox() as box:
        now = time.time_ns() // 1_000_000
        box.load([("dev-1", "t", now - 1000 * k, 20 + k % 5 / 10) for k in range(60, 1, -1)])
        env = environment(box.url, box.key, poll__interval="200ms")
        process = started(["run"], env, tmp_path)
        wait_for_ticks(box, 4)
        if stuck:
            box.faults.add("latency", route="/api", latency_ms=20_000)
            wait_for_ticks(box, box.requests.counts["GET /api/v1/telemetry"] + 1, patience_s=0.5)
        began = time.monotonic()
        process.send_signal(number)
        _, log = process.communicate(timeout=20)
        assert time.monotonic() - began < 6
        box.faults.clear()
    assert process.returncode == code, log
    assert "Traceback" not in log
    assert box.key not in log


def wait_for_ticks(box: Sandbox, n: int, patience_s: float = 15.0) -> None:
    """Wait until the worker has asked ``n`` times, or for so long."""
    deadline = time.monotonic() + patience_s
    while box.requests.counts["GET /api/v1/telemetry"] < n and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_signal_before_the_platform_answers(tmp_path: Path) -> None:
    """Also while the key is still being checked."""
    with Sandbox() as box:
        box.faults.add("latency", route="/api", latency_ms=20_000)
        process = started(["run"], environment(box.url, box.key), tmp_path)
        wait_for_state(tmp_path)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=10)
    assert process.returncode == 143, log
    assert "Traceback" not in log
