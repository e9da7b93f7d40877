"""The units under examples/systemd are correct, hardened, and say the same as the program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from deployment import EXAMPLES, options

from plexus_detect import errors
from plexus_detect.config import load_config
from plexus_detect.signals import EXIT_TERMINATED

UNITS = sorted((EXAMPLES / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
BINARY = "/opt/plexus-detect/bin/plexus-detect"

# Not known before systemd 254, which then goes without: the unit says so.
NEWER_KEYS = ("RestartSteps", "RestartMaxDelaySec")

analyzed = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (package systemd)"
)


def keys(unit: Path) -> dict[str, list[str]]:
    """The values of every key of a unit file."""
    found = defaultdict(list)
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text("utf-8"), re.MULTILINE):
        found[name].append(value)
    return found


def seconds(value: str) -> float:
    """A time span of one unit as systemd reads it."""
    number, unit = re.fullmatch(r"(\d+)(\w*)", value).groups()
    return int(number) * {"": 1, "s": 1, "min": 60}[unit]


def settings(unit: Path, state: Path, credentials: Path) -> dict[str, str]:
    """The variables that the service starts with."""
    pairs = (value.partition("=") for value in keys(unit)["Environment"])
    return {name: text.replace("%S", str(state)).replace("%d", str(credentials)) for name, _, text in pairs}


@analyzed
def test_units_are_verified(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about any of them, but for keys that it is too old for."""
    for unit in UNITS:
        text = unit.read_text("utf-8").replace(BINARY, sys.executable)
        (tmp_path / unit.name).write_text(text, "utf-8")
    command = ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    told = [line for line in done.stderr.splitlines() if "plexus-detect" in line]
    newer = [line for line in told if re.search(rf"Unknown key.*'({'|'.join(NEWER_KEYS)})'", line)]
    assert told == newer
    assert done.returncode == 0, done.stderr


@analyzed
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_services_are_hardened(unit: Path) -> None:
    """`systemd-analyze security` gives an exposure of at most 2.0 of 10, which it calls OK."""
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_commands_and_settings_are_the_programs(unit: Path, tmp_path: Path) -> None:
    """The program knows the command with its options, and reads the key from the credential."""
    (start,) = keys(unit)["ExecStart"]
    binary, *words = shlex.split(start)
    assert binary == BINARY
    options(words)
    (tmp_path / "api_key").write_text("plx_from_the_credential\n", "utf-8")
    config = load_config([], settings(unit, tmp_path / "state", tmp_path))
    assert config.require_api_key() == "plx_from_the_credential"
    assert keys(unit)["LoadCredential"] == ["api_key:/etc/plexus-detect/api_key"]


def test_state_is_in_the_state_directory(tmp_path: Path) -> None:
    """The state file is where systemd makes a folder for this service, the only place it may write to."""
    unit = EXAMPLES / "systemd/plexus-detect.service"
    config = load_config([], settings(unit, tmp_path, tmp_path) | {"PLEXUS_API_KEY_FILE": ""})
    assert config.state.path.parent == tmp_path / keys(unit)["StateDirectory"][0]
    assert config.models.parent == config.state.path.parent


def test_both_services_have_one_manifest(tmp_path: Path) -> None:
    """What is ours is written into the folder of the worker's state, by the same user: the worker sees when
    monitors were last applied."""
    units = [EXAMPLES / f"systemd/plexus-detect{name}.service" for name in ("", "-monitors")]
    none = {"PLEXUS_API_KEY_FILE": ""}
    worker, monitors = (load_config([], settings(unit, tmp_path, tmp_path) | none) for unit in units)
    assert worker.manifest() == monitors.manifest()
    assert keys(units[0])["StateDirectory"] == keys(units[1])["StateDirectory"]
    assert keys(units[1])["User"] == [units[0].stem]


def test_the_service_leaves_and_comes_back() -> None:
    """systemd waits longer than the worker needs to leave, takes a terminated one for a clean end, starts it
    again whatever ended it, and never gives up, but for what only a person can mend: configuration."""
    unit = keys(EXAMPLES / "systemd/plexus-detect.service")
    config = load_config([], {})
    assert seconds(unit["TimeoutStopSec"][0]) * 1000 > config.health.stop_within_ms
    assert unit["SuccessExitStatus"] == [str(EXIT_TERMINATED)]
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == [str(errors.ConfigError.exit_code)]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert 30 <= seconds(unit["WatchdogSec"][0]) <= 300
    assert unit["ExecReload"] == ["kill -HUP $MAINPID"]


def test_the_timer_spreads_and_makes_up_for_missed_runs() -> None:
    """Machines ask at different times; a run that was missed while a machine was off is made up for."""
    timer = keys(EXAMPLES / "systemd/plexus-detect-monitors.timer")
    assert seconds(timer["RandomizedDelaySec"][0]) >= 60
    assert timer["Persistent"] == ["yes"]
