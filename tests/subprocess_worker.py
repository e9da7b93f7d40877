"""The command line as a real process: its environment, and how to start it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import plexus_detect

ROOT = Path(plexus_detect.__file__).parent.parent
UNKNOWN_KEY = "plx_" + "Unknown".ljust(32, "1")


def environment(url: str, key: str, **more: str) -> dict[str, str]:
    """The variables of a worker for the platform at ``url``; ``poll__interval="1s"`` and the like on top.

    Nobody looks at its health unless they ask: tests run side by side, and the usual port is one.
    """
    more = {"health__listen": "off", **more}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PLEXUS")}
    names = ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL")
    given = {f"PLEXUS_DETECT_{name.upper()}": value for name, value in more.items()}
    return {**kept, "PYTHONPATH": str(ROOT), "PLEXUS_API_KEY": key, **dict.fromkeys(names, url), **given}


def started(
    arguments: list[str], env: dict[str, str], cwd: Path, log: IO[str] | int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """``plexus-detect`` with these arguments, under way; what it logs goes to ``log``."""
    command = [sys.executable, "-m", "plexus_detect", *arguments]
    return subprocess.Popen(command, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=log, text=True)


def finished(
    arguments: list[str], env: dict[str, str], cwd: Path, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """``plexus-detect`` with these arguments, run to its end."""
    command = [sys.executable, "-m", "plexus_detect", *arguments]
    return subprocess.run(
        command, env=env, cwd=cwd, input=given, capture_output=True, text=True, timeout=60, check=False
    )


def said(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one sentence on standard error of a command that ended with ``code``; no key, no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "plx_Sandbox" not in done.stderr + done.stdout
    assert UNKNOWN_KEY not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("plexus-detect: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def wait_for_state(folder: Path, name: str = "plexus-detect.db.lock") -> None:
    """Wait until a worker that was started has opened its state file."""
    deadline = time.monotonic() + 15
    while not (folder / name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
