"""The command ``plexus-detect serve``: options, and a server as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from serve_room import STREAM, rows

from plexus_detect.errors import ConfigError
from plexus_detect.serve.command import _keys, bytes_of, seconds_of, serve

SERVE = "from plexus_detect.serve.command import serve; serve()"


def test_durations_and_sizes_are_read() -> None:
    """Durations and sizes are numbers with a unit; 0 is a duration, and no size."""
    assert [seconds_of("--ttl", text) for text in ("0", "45s", "2h", "30d")] == [
        0.0,
        45.0,
        7200.0,
        2_592_000.0,
    ]
    assert [bytes_of("--memory", text) for text in ("100", "2KiB", "16MiB", "1GiB")] == [
        100,
        2048,
        2**24,
        2**30,
    ]
    for text in ("", "5", "-1s", "1w", "inf"):
        with pytest.raises(ConfigError, match="--ttl"):
            seconds_of("--ttl", text)
    for text in ("0", "-1", "1MB", "1.5GiB"):
        with pytest.raises(ConfigError, match="--memory"):
            bytes_of("--memory", text)


def test_keys_come_from_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment and a file give keys, each counts once; a file without a key, or none, is told of."""
    monkeypatch.setenv("PLEXUS_DETECT_SERVE_KEY", "from-env")
    path = tmp_path / "keys"
    path.write_text("one\n\n two \none\n", "utf-8")
    assert _keys(path) == ("from-env", "one", "two")
    path.write_text("\n", "utf-8")
    with pytest.raises(ConfigError, match="there is no key"):
        _keys(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        _keys(tmp_path / "none")


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    """A port that another program has is a usage error with a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = CliRunner().invoke(serve, ["--port", str(port), "--state", str(tmp_path / "state")])
    assert isinstance(result.exception, ConfigError)
    assert "it is in use" in str(result.exception)


def test_a_server_fits_in_its_own_process_and_saves_when_it_is_ended(tmp_path: Path) -> None:
    """The command serves, fits a detector in another process, and at SIGTERM saves it and ends with 143."""
    command = [sys.executable, "-c", SERVE, "--port", "0", "--state", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PLEXUS_DETECT_SERVE_KEY": "k"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"url=(\S+)", process.stderr.readline())
        assert found is not None
        with httpx.Client(base_url=found[1], headers={"X-API-Key": "k"}, timeout=30.0) as client:
            body = {"model": "m", "data": rows(20), "min_samples": 20}
            assert client.post(STREAM, json=body).json()["status"] == "ready"
            assert httpx.get(f"{found[1]}{STREAM}/m").status_code == 401
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 143
    assert "leaked" not in said
    assert len(list((tmp_path / "detectors").glob("*.npz"))) == 1
