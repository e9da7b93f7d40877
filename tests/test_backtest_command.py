"""backtest command: the real process over a CSV and over the platform, its output, gates and exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from backtest_week import HOUR, MINUTE, T0, config, week, write_csv
from subprocess_worker import ROOT, UNKNOWN_KEY, environment, finished, said

from plexus_detect.backtest import command
from plexus_detect.backtest.command import Wanted
from plexus_detect.backtest.figures import Gates
from plexus_detect.backtest.labels import read_labels
from plexus_detect.backtest.moments import time_ms
from plexus_detect.errors import ConfigError
from plexus_detect.sandbox import Sandbox
from plexus_detect.series import Points

SETTINGS = {
    "detect__detector": "zscore",
    "detect__window": "60",
    "detect__min_points": "20",
    "fleet__min_points": "20",
}
NOWHERE = environment("http://127.0.0.1:1", "", **SETTINGS)
LABELS = f"source,metric,start,end,kind\ndev-1,m0,{T0 + 5 * HOUR},{T0 + 5 * HOUR + 31 * MINUTE},step\n"


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CSV of a small fleet and its labels."""
    folder = tmp_path_factory.mktemp("backtest")
    write_csv(folder / "fleet.csv", *week(devices=6, metrics=1))
    (folder / "labels.csv").write_text(LABELS)
    return folder


def backtest(folder: Path, *options: str, env: dict[str, str] = NOWHERE) -> subprocess.CompletedProcess[str]:
    """The command on the folder's CSV, without a key."""
    return finished(["backtest", "--csv", "fleet.csv", "--jobs", "1", *options], env, folder)


def test_text_and_a_gate_that_fails(folder: Path) -> None:
    """Episodes, alerts a week and the comparison with the labels on standard output; then exit 5, and one
    sentence that says by how much the gate was missed."""
    done = backtest(folder, "--labels", "labels.csv", "--max-alerts", "0/week")
    sentence = said(done, 5)
    assert done.stderr == sentence + "\n"
    assert "gate failed: " in sentence
    assert "more than 0" in sentence
    assert "dev-1   m0" in done.stdout
    assert "recall 1.000: 1 of 1 labels found" in done.stdout
    assert re.search(r"own past +step +1 +1 +1.00 ", done.stdout)
    assert "alerts, " in done.stdout


def test_json_and_jobs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes print what this one prints, to the byte; every figure has its name."""
    two = backtest(folder, "--output", "json", "--labels", "labels.csv", "--jobs", "2")
    assert (two.returncode, two.stderr) == (0, "")
    command._backtest(config(**SETTINGS), inside(folder, labels="labels.csv"), Gates())
    assert two.stdout == capsys.readouterr().out
    told = json.loads(two.stdout)
    assert told["labels"]["recall"] == 1.0
    assert told["series"] == 6
    assert told["samples"] > 3000
    assert {e["source"] for e in told["episodes"] if e["reason"]} >= {"dev-1"}
    assert told["failed_gates"] == []


def test_what_is_no_gate(folder: Path) -> None:
    """Exit 2 and one sentence."""
    assert "give them with --labels FILE" in said(backtest(folder, "--fail-under", "recall=0.8"), 2)


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The recorded series under examples/ with its labels, which are those that were published with it."""
    data = ROOT / "examples" / "data"
    wanted = inside(data, csv_file="machine_temperature.csv", labels="machine_temperature.labels.csv")
    command._backtest(config(**SETTINGS), wanted, Gates())
    assert json.loads(capsys.readouterr().out)["labels"]["labels"] == 4
    published = json.loads((data / "windows.json").read_text())
    windows = published["realKnownCause/machine_temperature_system_failure.csv"]
    with (data / "machine_temperature.labels.csv").open() as lines:
        labels = read_labels(lines, "")
    assert [(label.start_ms, label.end_ms) for label in labels] == [
        (time_ms(start), time_ms(end)) for start, end in windows
    ]


def inside(folder: Path, **more: Any) -> Wanted:
    """What options like these say, run in this process."""
    given: dict[str, Any] = dict.fromkeys(("start", "end", "labels", "html"))
    paths = {"csv_file": "fleet.csv", **more}
    named = {k: folder / v for k, v in paths.items() if k in ("csv_file", "labels", "html")}
    return Wanted(**{**given, "jobs": 1, "as_json": True, **more, **named})


def test_html(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report is written beside the figures; gates that are passed say nothing."""
    wanted = inside(folder, html="report.html", labels="labels.csv")
    assert command._backtest(config(**SETTINGS), wanted, Gates(1.0, None, 9999.0)) == []
    assert "<h1>Backtest of fleet.csv</h1>" in (folder / "report.html").read_text()
    assert json.loads(capsys.readouterr().out)["labels"]["found"] == 1


def test_a_period_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--from and --to leave out what is outside; what is before warms up."""
    wanted = inside(folder, start="2026-05-01T06:00:00Z", end="2026-05-01T07:00:00")
    command._backtest(config(**SETTINGS), wanted, Gates())
    told, day = json.loads(capsys.readouterr().out), "2026-05-01"
    assert (told["from"], told["to"], told["unscored"]) == (f"{day}T06:00:00.000Z", f"{day}T07:00:00.000Z", 0)
    assert 300 < told["samples"] < 400


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": "yesterday"}, "--from: 'yesterday' is no time"),
        ({"end": "2020-01-01"}, "is not before the end"),
        ({"labels": "nowhere.csv"}, "nowhere.csv: cannot be read"),
        ({"csv_file": "nowhere.csv"}, "nowhere.csv: cannot be read"),
        ({"html": "no/folder/x.html"}, "there is no folder"),
        ({"html": "taken.html"}, "cannot be written"),
        ({"csv_file": "empty.csv"}, "there is no value in it"),
        ({"csv_file": "other.csv"}, "none of the 1 series in the file is selected"),
    ],
)
def test_what_cannot_be_done(folder: Path, options: dict[str, str], words: str) -> None:
    """One sentence for each."""
    (folder / "empty.csv").write_text("timestamp,source,metric,value\n1,a,t,\n")
    (folder / "other.csv").write_text("timestamp,source,metric,value\n1,a,t.zscore,5\n")
    (folder / "taken.html").mkdir(exist_ok=True)
    with pytest.raises(ConfigError) as raised:
        command._backtest(config(**SETTINGS), inside(folder, **options), Gates())
    assert words in str(raised.value)


# --- the platform -----------------------------------------------------------------------------------------


def shifted(points: Points, to_ms: int) -> Points:
    """The points so that the last of them lies at ``to_ms``."""
    return Points(points.series, points.t_ms + to_ms - int(points.t_ms.max()), points.value)


def test_the_platform_gives_what_a_file_gives(tmp_path: Path) -> None:
    """History read in pages through the API has the episodes of the same rows in a CSV, and posts nothing."""
    keys, points = week(devices=6, metrics=1)
    now_ms = time.time_ns() // 1_000_000
    points = shifted(points, now_ms - MINUTE)
    with Sandbox() as box:
        rows = zip(points.series.tolist(), points.t_ms.tolist(), points.value.tolist(), strict=True)
        box.load([(*keys[s], t, v) for s, t, v in rows])
        box.load([("dev-9", "m0.zscore", now_ms - HOUR, 1.0)])
        env = environment(box.url, box.key, poll__limit="500", poll__pages_max="3", **SETTINGS)
        period = ["--from", str(now_ms - 6 * HOUR), "--to", str(now_ms - 2 * MINUTE), "--output", "json"]
        live = finished(["backtest", *period, "--jobs", "2", "--html", "r.html"], env, tmp_path)
        assert (live.returncode, live.stderr) == (0, "")
        assert box.requests.counts["GET /api/v1/telemetry"] > 10
        assert len(box.rows()) == len(points) + 1
        page = (tmp_path / "r.html").read_text()
    write_csv(tmp_path / "same.csv", keys, points)
    file = finished(["backtest", "--csv", "same.csv", *period, "--jobs", "1"], NOWHERE, tmp_path)
    told: dict[str, Any] = json.loads(live.stdout)
    assert told == json.loads(file.stdout)
    assert any(e["source"] == "dev-1" for e in told["episodes"])
    assert box.key not in page


def test_the_platform_needs_a_key_that_reads(tmp_path: Path) -> None:
    """Without one exit 2, with a wrong one exit 3; with a right one the last week is the default."""
    assert "plexus.api_key: is not set" in said(finished(["backtest"], NOWHERE, tmp_path), 2)
    with Sandbox() as box:
        wrong = environment(box.url, UNKNOWN_KEY)
        said(finished(["backtest"], wrong, tmp_path), 3)
        right = environment(box.url, box.key)
        assert "none of the 0 series" in said(finished(["backtest"], right, tmp_path), 2)
        now_ms = time.time_ns() // 1_000_000
        box.load([("dev-1", "t", now_ms - 60_000 * k, 20 + k % 5 / 10) for k in range(60, 1, -1)])
        done = finished(["backtest", "--output", "json", "--jobs", "1"], right, tmp_path)
        assert json.loads(done.stdout)["days"] == 7.0
