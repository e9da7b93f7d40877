"""The README says what the program does: every command, option, key, variable and exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from full_meters import samples
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from serve.serve_room import InPlace

from plexus_detect import errors
from plexus_detect.cli import cli
from plexus_detect.config import Config, DetectorConfig, MetricConfig, SeriesRule, format_duration
from plexus_detect.config.detectors import BACKENDS
from plexus_detect.meters import PREFIX
from plexus_detect.report import TickReport
from plexus_detect.serve.app import make_app
from plexus_detect.serve.settings import Settings
from plexus_detect.serve.websocket import PATH
from plexus_detect.vitals import CHECKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def shown_default(field: FieldInfo) -> str:
    """A default as a person would write it in the file."""
    value = field.get_default(call_default_factory=False)
    if value is None or value is PydanticUndefined:
        return "auto" if "auto" in (field.description or "") else ""
    if field.alias and isinstance(value, int):
        return f"`{format_duration(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`" if value else ""
    return f"`{value}`"


def config_rows() -> Iterator[str]:
    """The README's table of keys, made from the models."""
    for section, field in Config.model_fields.items():
        many = {
            "series": (SeriesRule, "series[]."),
            "metrics": (MetricConfig, "metrics.<pattern>."),
            "detectors": (DetectorConfig, "detectors[]."),
        }
        model, prefix = many.get(section, (field.annotation, f"{section}."))
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        for name, inner in model.model_fields.items():
            key = prefix + (inner.alias or name)
            # What looks like a tag is not shown.
            about = (inner.description or "").replace("<", "&lt;")
            yield f"| `{key}` | {shown_default(inner)} | {about} |"


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_config_table_is_current() -> None:
    """The README lists every key of the configuration with its default and meaning, and no others."""
    assert "\n".join(config_rows()) in README


@pytest.mark.parametrize(("name", "command"), list(commands(cli)))
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    """A command and each of its options stand in the README's table of commands."""
    row = next((line for line in README.splitlines() if line.startswith(f"| `{name}")), "")
    assert row, f"no row for {name}"
    shared = {"--config", "-c", "--help", "-h"} if name != "run" else {"--help", "-h"}
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("-") and option not in shared:
                assert option in row, f"{name} {option}"


def test_every_tick_field_is_documented() -> None:
    """Whatever the log line of a tick counts is explained or self-evident."""
    plain = {"tick", "now_ms", "dur_ms", "series"}
    for name in TickReport().counts().keys() - plain:
        assert f"`{name}`" in README, name


def test_every_metric_is_documented() -> None:
    """What Prometheus can be asked for, and every check of /readyz, stands in the README."""
    for name in {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples()}:
        if name.startswith(PREFIX):
            assert re.search(rf"`{name.removeprefix(PREFIX)}[`{{]", README), name
    for check in CHECKS:
        assert f"`{check}`" in README, check


def test_every_exit_code_is_documented() -> None:
    """Each error's exit code has a row."""
    codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)}
    rows = re.search(r"### Exit codes\n(.*?)\n##", README, re.DOTALL)
    assert rows
    cells = re.findall(r"^\| ([\d, ]+) \|", rows[1], re.MULTILINE)
    documented = {int(code) for cell in cells for code in cell.split(",")}
    assert codes - {errors.UnsafePlanError.exit_code} <= documented


def test_every_example_is_listed() -> None:
    """Each file or folder of examples/ has its place in the README's table of them."""
    table = README.partition("`examples/` holds")[2].partition("\n\n`pip install")[0]
    for path in (ROOT / "examples").iterdir():
        assert re.search(rf"`{re.escape(path.name)}[`/]", table), path.name


def test_variables_are_documented() -> None:
    """The environment variables that the configuration reads stand in the README."""
    for name in (
        "PLEXUS_API_KEY",
        "PLEXUS_API_KEY_FILE",
        "PLEXUS_ENDPOINT",
        "PLEXUS_GATEWAY_URL",
        "PLEXUS_API_URL",
    ):
        assert f"`{name}`" in README
    assert "PLEXUS_DETECT_<SECTION>__<KEY>" in README


def test_python_example_runs() -> None:
    """The README's Python block runs and prints what its comment says."""
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block
    out = subprocess.run(
        [sys.executable, "-c", block[1]], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.strip() == "[ True  True  True]"


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_the_two_commands_are_single_lines(name: str) -> None:
    """The commands that .ci/run reads from the README are one line each, behind their mark."""
    block = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert block
    assert "\n" not in block[1]
    assert block[1].startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_every_path_of_the_server_is_documented(tmp_path: Path) -> None:
    """The README names every path that `serve` answers, with its methods in the same row."""
    paths = make_app(Settings(state=tmp_path), InPlace(), InPlace()).openapi()["paths"]
    for path, methods in paths.items():
        row = next(
            (line for line in README.splitlines() if line.startswith("| `") and f"{path}`" in line), ""
        )
        for method in methods:
            assert method.upper() in row, f"{method} {path}"
    assert f"`/v1/ml{PATH}`" in README


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_is_documented(backend: str) -> None:
    """The README's table of backends has each of them."""
    table = README.partition("| `backend` |")[2].partition("\n\n")[0]
    assert f"`{backend}`" in table
