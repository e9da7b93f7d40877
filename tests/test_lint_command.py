"""monitors lint on the documents of this repository and through the command line, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from fakes import FakeMonitorApi
from lint_room import World, threshold

from plexus_detect import monitors
from plexus_detect.cli import cli
from plexus_detect.config import Config, load_config, variable_names
from plexus_detect.errors import ConfigError
from plexus_detect.provision.files import load_specs
from plexus_detect.provision.lint import examined_offline, lint_notes
from plexus_detect.provision.reading import make_plan
from plexus_detect.provision.shared import specs_of
from plexus_detect.sandbox import Sandbox

ROOT = Path(__file__).parents[1]


def test_shipped_documents_are_clean() -> None:
    """What this repository ships has nothing to be said about, with the configuration that goes with it."""
    report = examined_offline(Config(), load_specs(ROOT / "monitors"))
    assert (report.findings, report.documents > 0) == ((), True)
    motors = load_config([ROOT / "examples/motor_group.yaml"], {})
    assert examined_offline(motors, load_specs(ROOT / "examples/monitors/motor.anomaly.json")).findings == ()
    rooms = load_config([ROOT / "examples/fleet_of_fifty.yaml"], {})
    specs = specs_of(rooms, ROOT / "examples/monitors/cold-rooms.yaml")
    assert examined_offline(rooms, specs).findings == ()
    fleet = {f"dev-{i}": ("temperature", "humidity") for i in range(5)}
    files = [file for file in (ROOT / "monitors").glob("*.json") if "schema" not in file.name]
    documents = [json.loads(file.read_text()) for file in files]
    assert World(fleet=fleet).findings(documents) == []


def test_example_of_another_configuration_is_an_error() -> None:
    """The documents of a group say so where no such group is configured."""
    report = examined_offline(Config(), load_specs(ROOT / "examples/monitors/motor.anomaly.json"))
    assert {one.rule for one in report.findings} == {"not-posted"}


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder and no variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in (*variable_names(), "PLEXUS_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def linted(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run the command; its exit code and what it prints."""
    with pytest.raises((SystemExit, click.exceptions.Exit)) as left:
        cli.main(["monitors", "lint", *arguments], standalone_mode=False)
    code = left.value.code if isinstance(left.value, SystemExit) else left.value.exit_code
    return int(str(code)), capsys.readouterr().out


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 without an error, 1 with one or with --strict and a warning, 2 for a document that cannot be read."""
    file = tmp_path / "m.json"
    for document, code, strict in (
        (threshold(), 0, 0),
        (threshold(max=1), 0, 1),
        (threshold(min=-1), 1, 1),
        ({"source_id": 1}, 2, 2),
    ):
        file.write_text(json.dumps(document))
        assert linted(capsys, str(file), "--offline")[0] == code
        assert linted(capsys, str(file), "--offline", "--strict")[0] == strict
    assert "[unreadable]" in linted(capsys, str(file), "--offline")[1]
    code, text = linted(capsys, "gone", "--offline")
    assert (code, text.splitlines()[-1]) == (2, "lint: 0 documents, 1 error, 0 warnings")
    assert text.startswith("gone: error: no such file or directory; it should hold ")


def test_patterns_without_a_platform() -> None:
    """Offline a glob is no mistake for reaching nothing, and one that covers another document is."""
    documents = [threshold(source="dev-[12]"), threshold(source="*"), threshold(source="dev-9")]
    specs = [spec for i, one in enumerate(documents) for spec in monitors.parse(json.dumps(one), f"{i}.json")]
    found = examined_offline(Config(), specs).findings
    assert [(one.place[0], one.rule) for one in found] == [("2.json", "claimed-twice")]
    assert examined_offline(Config(), specs[:1]).findings == ()


def test_a_key_is_needed_to_ask(tmp_path: Path) -> None:
    """Without --offline the platform is asked, and without a key that is a mistake of the configuration."""
    (tmp_path / "m.json").write_text(json.dumps(threshold()))
    with pytest.raises(ConfigError, match=r"plexus\.api_key"):
        cli.main(["monitors", "lint", "m.json"], standalone_mode=False)


def test_github_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings are workflow commands, in which no text of a document can begin another."""
    (tmp_path / "a,b.json").write_text(json.dumps(threshold("50%\n::error::x.zscore_late")))
    (tmp_path / "c.json").write_text("{\n")
    _code, text = linted(capsys, "a,b.json", "--offline", "--output", "github")
    begins = r"::error file=a%2Cb\.json(,line=1)?,title=late-score::50%25%0A::error::x\.zscore_late is for "
    assert re.match(begins, text)
    assert text.count("\n") == 1
    _code, text = linted(capsys, "c.json", "--offline", "--output", "github")
    assert text.startswith("::error file=c.json,line=2,title=unreadable::")


@pytest.fixture(name="box")
def _box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A platform on which three devices have sent a point a minute for three hours."""
    with Sandbox() as box:
        now_ms = time.time_ns() // 1_000_000
        for slug in ("dev-1", "dev-2", "dev-3"):
            box.load([(slug, "t", now_ms - 60_000 * k, 20 + k % 5) for k in range(180, 0, -1)])
        box.load([("dev-1", "old", now_ms - 86_400_000 * k, 1.0) for k in (1, 2)])
        for name in ("ENDPOINT", "GATEWAY_URL", "API_URL"):
            monkeypatch.setenv(f"PLEXUS_{name}", box.url)
        monkeypatch.setenv("PLEXUS_API_KEY", box.key)
        yield box


def test_against_the_sandbox(box: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line: what the platform knows, and its history, decide."""
    documents = [
        threshold(),
        threshold("tt", "dev-1"),
        threshold("old", "dev-1"),
        threshold("t", max=9000),
        threshold("t.fleet_zscore"),
        {"source_id": "dev-*", "offline": {"timeout_seconds": 100}},
        {"source_id": "plexus-detect", "offline": {"timeout_seconds": 300}},
    ]
    for i, document in enumerate(documents):
        (tmp_path / f"{i}.json").write_text(json.dumps(document))
    code, text = linted(capsys, ".", "--output", "json")
    told = json.loads(text)
    assert (code, told["errors"], told["documents"], told["notes"]) == (1, 1, 7, [])
    assert [(one["file"], one["rule"], len(one["sources"])) for one in told["findings"]] == [
        ("1.json", "unknown-metric", 1),
        ("2.json", "silent-metric", 1),
        ("3.json", "far-from-data", 3),
        ("4.json", "fleet-too-small", 0),
        ("5.json", "offline-too-short", 3),
    ]


def test_without_the_read_api(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the read API does not answer as we know it, the rest is judged and a note says what was not."""
    (tmp_path / "m.json").write_text(json.dumps([threshold("t", max=9000), threshold("t.fleet_zscore")]))
    monkeypatch.setenv("PLEXUS_API_URL", f"{box.url}/elsewhere")
    code, text = linted(capsys, "m.json")
    assert code == 0
    assert "fleet-too-small" in text
    assert "far-from-data" not in text
    assert "note: the read API does not tell what was sent earlier" in text


def test_notes_of_a_plan() -> None:
    """A plan's monitors are judged from what it holds: no request, nothing of what was not asked."""
    api = FakeMonitorApi({"dev-1": ("t",)})
    specs = monitors.parse(json.dumps([threshold(min=0, max=3), threshold("t.drift")]), "m.json")
    plan = asyncio.run(make_plan(api, specs))
    asked = len(api.calls)
    notes = lint_notes(Config(), specs, plan)
    assert len(api.calls) == asked
    assert [re.findall(r"\[([a-z-]+)\]$", note) for note in notes] == [["useless-bound"], ["not-posted"]]
