"""status: the table of what a worker knows, its rows, its form and the command."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, settings

from plexus_detect import cli
from plexus_detect import clock as clock_module
from plexus_detect.config import Config
from plexus_detect.policy import policy_of, poll_params
from plexus_detect.running import Running
from plexus_detect.series import Points, SeriesKey
from plexus_detect.status.rows import Moment, OpenEpisode, Row, counts, rows_of, sorted_rows
from plexus_detect.status.table import Table, cells, number, span
from plexus_detect.store import Commit, Store
from plexus_detect.training.trainer import InlineTrainer

GROUP = '[{"name": "g", "metrics": ["t", "extra"], "min_samples": 20, "window_size": 50, "span": "0s"}]'
RULES = '[{"metrics": ["t"]}]'


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sends the log to what is standard error during the test."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


KEYS = [(f"dev-{k}", "t") for k in range(6)]


def config_of(path: Path, **more: str) -> Config:
    """A rule for t, a group of t and extra."""
    given = {"state__path": str(path), "series": RULES, "detectors": GROUP, "fleet__min_points": "10"}
    return settings(**(given | more))


def running_of(config: Config) -> Running:
    """Running state that knows the six devices and a metric that only the group takes."""
    trainer = InlineTrainer() if config.detectors else None
    running = Running(policy_of(config), poll_params(config), config.rule_for, trainer)
    for key in [*KEYS, ("dev-0", "extra")]:
        running.table.add(*key)
    return running


def lived(config: Config, seconds: int = 130) -> tuple[Running, list[tuple[int, Points]]]:
    """Two minutes: dev-1 is odd at the end, dev-2 never moves, dev-3 falls silent, dev-4 is new."""
    running = running_of(config)
    running.admit_new(START_MS)
    rng, ticks = np.random.default_rng(2), []
    for second in range(seconds):
        t_ms, values = START_MS + 1000 * second, dict(enumerate(20 + rng.normal(0, 0.1, 6)))
        values[1] += 5.0 * (second > seconds - 10)
        values[2] = 21.0
        if second >= 60:
            del values[3]
        if second < seconds - 12:
            del values[4]
        values[6] = 3.0 + rng.normal(0, 0.1)
        series = np.array(list(values), np.int64)
        points = Points(series, np.full(len(series), t_ms), np.array(list(values.values())))
        running.replay(points, t_ms + 3000)
        ticks.append((t_ms + 3000, points))
    return running, ticks


def rows_by_name(running: Running, moment: Moment, **more: bool) -> dict[str, Row]:
    """The rows by source and metric."""
    value = np.full(len(running.table), np.nan)
    return {"/".join(row.key): row for row in rows_of(running, value, moment, **more)}


@pytest.fixture(scope="module", name="life")
def _life(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Running]:
    """A state file in which two minutes have passed, and what the worker knows then."""
    config = config_of(tmp_path_factory.mktemp("s") / "s.db")
    running, ticks = lived(config)
    first = running_of(config)
    rows = first.admit_new(START_MS)
    store = Store(config.state.path)
    store.commit(Commit(0, Points.empty(), np.zeros(0, np.int64), (), rows))
    store.save_snapshot(START_MS, first.fingerprint(), first.dump())
    for now_ms, points in ticks:
        store.commit(Commit(now_ms, points, running.cursors.covered_ms[: len(running.table)]))
    store.save_snapshot(NOW_MS, running.fingerprint(), running.dump())
    store.close()
    return config.state.path, running


@pytest.fixture(name="running")
def _running(life: tuple[Path, Running]) -> Running:
    return life[1]


NOW_MS = START_MS + 129_000 + 3000
LIVE = Moment(NOW_MS, NOW_MS, live=True)


def test_the_states_of_series(running: Running) -> None:
    """Scored, warming with how far, flat, silent, what only a group takes; a group has a row of its own."""
    rows = rows_by_name(running, LIVE)
    assert [rows[f"dev-{k}/t"].state for k in (0, 1, 2, 3, 4)] == [
        "scored",
        "scored",
        "flat",
        "silent",
        "warming",
    ]
    assert (rows["dev-4/t"].known, rows["dev-4/t"].needed) == (12, 32)
    assert rows["dev-0/extra"].state == "group only"
    group = rows["dev-0/g.anomaly"]
    assert group.state == "scored"
    assert math.isfinite(group.z)
    assert rows["dev-5/g.anomaly"].state == "warming"
    assert rows["dev-5/g.anomaly"].needed == 20
    assert rows["dev-0/t"].last_ms == START_MS + 129_000
    assert math.isfinite(rows["dev-0/t"].fleet_z)
    assert rows["dev-0/t"].value == running.state.lanes[0].fleet.value[0]  # type: ignore[union-attr]


def test_open_episodes_come_first(running: Running) -> None:
    """With when, how far and why, against its own past and the fleet; then the largest scores."""
    rows = sorted_rows(list(rows_by_name(running, LIVE).values()), "urgent")
    first = rows[0]
    assert first.key == ("dev-1", "t")
    assert {one.against for one in first.episodes} == {"own", "fleet"}
    own = first.episodes[0]
    assert own.since_ms == START_MS + 121_000
    assert own.peak > 3.0
    assert own.check in ("robust", "level", "drift", "novel", "step", "noise", "season", "rare")
    assert [row.over for row in rows[1:]] == sorted((row.over for row in rows[1:]), reverse=True)


def test_a_worker_that_has_gone_makes_series_stale(running: Running) -> None:
    """What was silent by its last tick stays silent; of the others nobody knows. Beside one that runs, a
    series without samples is silent."""
    later = NOW_MS + 300_000
    gone = rows_by_name(running, Moment(later, NOW_MS, live=False))
    assert gone["dev-3/t"].state == "silent"
    assert {gone[f"dev-{k}/t"].state for k in (0, 1, 2)} == {"stale"}
    here = rows_by_name(running, Moment(later, NOW_MS, live=True))
    assert {here[f"dev-{k}/t"].state for k in (0, 1, 2, 3)} == {"silent"}
    assert counts(list(gone.values()))["silent"] >= 1


def test_without_fitting_state_there_are_no_scores(running: Running) -> None:
    """No score, no episode, and a state that says so; what is silent is still known."""
    rows = rows_by_name(running, LIVE, misfit=True)
    assert rows["dev-1/t"].state == "unknown"
    assert math.isnan(rows["dev-1/t"].z)
    assert rows["dev-1/t"].episodes == ()
    assert rows["dev-3/t"].state == "silent"


# --- the form ---------------------------------------------------------------------------------------------


def row(source: str, metric: str = "temperature", *, episodes: int = 0, **more: object) -> Row:
    """A row of a table."""
    given: dict[str, object] = {"last_ms": NOW_MS - 5000, "value": 22.451, "z": -1.5, "fleet_z": 0.25}
    given |= {"over": 0.5, "state": "scored", "known": 32, "needed": 32} | more
    made = [OpenEpisode("own", NOW_MS - 200_000, 12.34, "drift"), OpenEpisode("fleet", NOW_MS, 4.0, "fleet")]
    return Row(SeriesKey(source, metric), **given, episodes=tuple(made[:episodes]))  # type: ignore[arg-type]


LONG = "a-device-with-a-very-long-name-that-nobody-would-type-00001"
MIXED = [
    row("room-1", episodes=2),
    row(LONG, "temperature.of.the.outer.wall.measured"),
    row("温度計-1", state="warming", known=3),
    row("a\x1b[2Jb\n", z=math.nan, fleet_z=math.nan, value=-1234567.0),
    row("room-2", late=17),
]


@pytest.mark.parametrize("width", [20, 60, 80, 100, 200])
def test_the_table_fits_the_terminal(width: int) -> None:
    """No line is wider, titles and columns stand in line, names end in … where they are cut, and nothing in
    them moves the cursor."""
    lines = Table(width).lines(MIXED, NOW_MS)
    assert len(lines) == len(MIXED) + 1
    assert max(map(cells, lines)) <= max(width, 60)
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert ("…" in text) == (width < 200)
    assert lines[0].split()[:2] == ["source", "metric"] or width < 30
    if width >= 80:
        assert "3m 12.3 drift +fleet" in lines[1]
        assert "warming 3/32" in lines[3]
        assert len({line.index("scored") for line in lines[1:3]}) == 1


def test_without_a_terminal_nothing_is_cut() -> None:
    """A file or a pipe gets whole names."""
    assert LONG in "\n".join(Table().lines(MIXED, NOW_MS))


def test_colours_are_for_terminals() -> None:
    """Open anomalies are red, what is silent or warming is set apart; without colour nothing is."""
    painted = Table(100, color=True).lines(MIXED, NOW_MS)
    assert painted[1].startswith("\x1b[1;31m")
    assert painted[3].startswith("\x1b[2m")
    assert painted[2] == Table(100).lines(MIXED, NOW_MS)[2]


def test_columns_that_say_nothing_are_left_out() -> None:
    """No late points, no anomaly, no fleet: no columns for them."""
    (title, _line) = Table().lines([row("room-1", fleet_z=math.nan)], NOW_MS)
    assert title.split() == ["source", "metric", "age", "value", "z", "state"]


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (-300, "0s"),
        (-4200, "-4s"),
        (119_000, "119s"),
        (120_000, "2m"),
        (7_200_000, "2h"),
        (10**9, "11d"),
    ],
)
def test_lengths_of_time(ms: int, text: str) -> None:
    """Short, and never a larger unit for fewer than two of it."""
    assert span(ms) == text


def test_numbers_are_short() -> None:
    """Four digits, and "-" for none."""
    assert [number(x) for x in (22.451, 0.0, -1234567.0, 1e-12, math.nan)] == [
        "22.45",
        "0",
        "-1.2e+06",
        "1e-12",
        "-",
    ]


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture(name="seen")
def _seen(life: tuple[Path, Running], monkeypatch: pytest.MonkeyPatch, stopped: FakeClock) -> None:
    """The environment that names the state file, and the time of its last tick."""
    stopped.t_ms = NOW_MS
    monkeypatch.chdir(life[0].parent)
    for name in ("COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    given = {"STATE__PATH": str(life[0]), "SERIES": RULES, "DETECTORS": GROUP, "FLEET__MIN_POINTS": "10"}
    for name, value in given.items():
        monkeypatch.setenv(f"PLEXUS_DETECT_{name}", value)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints."""
    cli.cli(["status", *arguments], standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.usefixtures("seen")
def test_the_table_of_a_state_file(capsys: pytest.CaptureFixture[str]) -> None:
    """The header says who runs, how many series are in which state and what waits; then one line a series."""
    lines = said(capsys).splitlines()
    assert lines[0].endswith("s.db: worker not running; last tick with samples 0s ago")
    assert "1 flat, 2 silent" in lines[1]
    assert lines[4].startswith("dev-1")
    assert "+fleet" in lines[4]
    assert len(lines) == 4 + 6 + 1 + 6


@pytest.mark.usefixtures("seen")
def test_options_choose_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """By source, metric, state or open anomaly, in another order; what is left out is counted."""
    assert "dev-2" not in said(capsys, "--open")
    assert [
        line.split()[0]
        for line in said(capsys, "--metric", "t", "--source", "dev-[23]", "--sort", "name").splitlines()[4:]
    ] == ["dev-2", "dev-3"]
    assert said(capsys, "--state", "flat").splitlines()[4].split()[:2] == ["dev-2", "t"]
    assert said(capsys, "--state", "group").splitlines()[4].split()[:2] == ["dev-0", "extra"]
    assert said(capsys, "--limit", "3").splitlines()[-1] == "10 more left out; --limit 0 shows all"
    assert len(said(capsys, "--limit", "0").splitlines()) == 17
    assert said(capsys, "--source", "nobody").splitlines()[-1] == "no series is as asked for"
    assert said(capsys, "--sort", "age", "--metric", "t").splitlines()[4].split()[0] == "dev-3"


@pytest.mark.usefixtures("seen")
def test_json_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """One object; times in ISO 8601, null for what is not known."""
    told = json.loads(said(capsys, "--output", "json", "--metric", "t"))
    assert told["worker"] == {"running": False}
    assert told["left_out"] == 0
    assert told["open_episodes"] >= 2
    by_source = {one["source"]: one for one in told["series"]}
    assert by_source["dev-1"]["episodes"][0]["since"].endswith("Z")
    assert by_source["dev-4"]["known"] == 12
    assert by_source["dev-4"]["z"] is None
    assert by_source["dev-0"]["last"].endswith("Z")
    assert by_source["dev-0"]["value"] is not None


@pytest.mark.usefixtures("seen")
def test_watch_shows_it_again_until_interrupted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a pipe one table after another; Ctrl-C ends it with 130."""
    waits: list[float] = []

    async def wait(s: float) -> None:
        waits.append(s)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(clock_module, "sleep_s", wait)
    monkeypatch.setattr("sys.argv", ["plexus-detect", "status", "--watch", "--limit", "1"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130
    assert capsys.readouterr().out.count("s.db: worker not running") == 3
    assert waits == [2.0] * 3


def test_no_state_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence and exit 4; no file is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["plexus-detect", "status"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no state file plexus-detect.db" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("seen")
def test_changed_settings_are_said_above_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of other settings are not shown."""
    monkeypatch.setenv("PLEXUS_DETECT_DETECT__THRESHOLD", "5")
    lines = said(capsys).splitlines()
    assert lines[2].startswith("no scores: the settings changed")
    assert "unknown" in lines[1]
