"""The deployment configs under examples/ run as they stand, against the sandbox."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve.serve_room import listening

from plexus_detect.sandbox import Sandbox, Settings

ROOT = Path(__file__).parents[1]
FLEET = [f"greenhouse-{i:02d}" for i in range(1, 9)]
# The autoencoder of machine_fleet.yaml has to be trained before: tests/test_simulate_command.py.
CONFIGS = sorted(
    p
    for p in (ROOT / "examples").iterdir()
    if p.suffix in (".yaml", ".toml") and p.name != "machine_fleet.yaml"
)

# Rows of a motor's past, one every five minutes: the first model, asked for after a day, takes over
# a hundred rows later.
MOTOR_ROWS, MOTOR_STEP_MS = 460, 300_000


def environment(box: Sandbox, state: Path) -> dict[str, str]:
    """Variables that point the program at a sandbox."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PLEXUS_API_KEY": box.key,
        "PLEXUS_ENDPOINT": box.url,
        "PLEXUS_GATEWAY_URL": box.url,
        "PLEXUS_API_URL": box.url,
        "PLEXUS_DETECT_STATE__PATH": str(state),
    }


def motor(now_ms: int) -> Iterator[tuple[str, str, int, float]]:
    """The past of a motor whose metrics follow its load; then they do not for the last three rows."""
    noise = random.Random(3)
    for i in range(MOTOR_ROWS):
        t_ms = now_ms - MOTOR_STEP_MS * (MOTOR_ROWS - 1 - i)
        load = 0.5 + 0.4 * math.sin(i / 9.0)
        current = load - 0.5 if i >= MOTOR_ROWS - 3 else load
        for metric, follows in (("vibration", load), ("current", current), ("temperature", load)):
            yield "motor-1", metric, t_ms, 10.0 + 20.0 * follows + noise.gauss(0.0, 0.1)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_example_config_runs(path: Path, tmp_path: Path) -> None:
    """`run --once` with the config reads the sandbox's series, warms up from history and ends with 0."""
    now = int(time.time() * 1000)
    with Sandbox(Settings()) as box:
        sources = ["esp32-bme280", "esp32-01", "line-1", *FLEET]
        box.load(
            (source, metric, now - 1000 * k, 20.0 + (k * 7 % 5) / 10)
            for source in sources
            for metric in ("temperature", "humidity", "pressure")
            for k in range(60)
        )
        command = [sys.executable, "-m", "plexus_detect", "run", "--once", "--config", str(path)]
        done = subprocess.run(
            command,
            env=environment(box, tmp_path / "state.db"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "event=tick" in done.stderr or '"event":"tick"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_group_of_motors_learns_and_is_watched(tmp_path: Path) -> None:
    """With a motor's past the config fits a model, keeps it beside the state and tells of the third row
    that does not belong together; the monitor for motors is made, none for a spindle that is not there."""
    state, python = tmp_path / "state.db", [sys.executable, "-m", "plexus_detect"]
    with Sandbox(Settings()) as box:
        past = list(motor(int(time.time() * 1000)))
        box.load(past[:-3])
        env = environment(box, state)

        def ran(*words: str) -> str:
            done = subprocess.run(
                [*python, *words],
                env=env,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
            return done.stdout + done.stderr

        config = ["--config", str(ROOT / "examples/motor_group.yaml")]
        applied = ran("monitors", "apply", str(ROOT / "examples/monitors/motor.anomaly.json"))
        ran("run", "--once", *config)
        now = int(time.time() * 1000)
        box.load((source, metric, now, value) for source, metric, _, value in past[-3:])
        log = ran("run", "--once", *config)
        kept = ran("models", "list", *config)
    assert applied == "created threshold motor-1 motor.anomaly\n"
    assert "event=anomaly_opened source=motor-1 metric=motor series=motor.anomaly" in log
    assert "blame=" in log
    assert kept.startswith("* motor@motor-1 1  ecod")


def test_the_streaming_client_tells_of_its_faults(tmp_path: Path) -> None:
    """The one hot reading and most of those in which vibration no longer follows flow, and nothing else."""
    client = ROOT / "examples/streaming_client.py"
    with listening(tmp_path) as url:
        done = subprocess.run(
            [sys.executable, str(client), url], capture_output=True, text=True, timeout=30, check=True
        )
    lines = done.stdout.splitlines()
    odd = [int(line.split()[1].rstrip(":")) for line in lines]
    assert odd[0] == 150
    assert "(temperature)" in lines[0]
    assert all(i >= 180 for i in odd[1:])
    assert len(odd) > 10
