"""The deployment configs under examples/ run as they stand, against the sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plexus_detect.sandbox import Sandbox, Settings

ROOT = Path(__file__).parents[1]
FLEET = [f"greenhouse-{i:02d}" for i in range(1, 9)]
CONFIGS = sorted(p for p in (ROOT / "examples").iterdir() if p.suffix in (".yaml", ".toml"))


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
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PLEXUS_API_KEY": box.key,
            "PLEXUS_ENDPOINT": box.url,
            "PLEXUS_GATEWAY_URL": box.url,
            "PLEXUS_API_URL": box.url,
            "PLEXUS_DETECT_STATE__PATH": str(tmp_path / "state.db"),
        }
        command = [sys.executable, "-m", "plexus_detect", "run", "--once", "--config", str(path)]
        done = subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "event=tick" in done.stderr or '"event":"tick"' in done.stderr
    assert "Traceback" not in done.stderr
