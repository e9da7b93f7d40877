"""Learned detectors in the worker: polled, judged, posted, alerted, replayed and explained like others."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from backtest_week import write_csv
from fake_platform import START_MS, FakeClock, FakePlatform, Row, settings
from pipe import Pipe, play

from plexus_detect.backtest.figures import figures_of
from plexus_detect.backtest.moments import Span, exact_stamp
from plexus_detect.backtest.replay import Replayed, chunks, joined
from plexus_detect.backtest.run import Run
from plexus_detect.backtest.shards import Here, Shards
from plexus_detect.backtest.words import json_of, text_of
from plexus_detect.client import Client, Endpoints
from plexus_detect.config import Config
from plexus_detect.errors import ConfigError, FitError
from plexus_detect.evaluate import Event
from plexus_detect.explain import command, group_words
from plexus_detect.learn.job import Fit, Job
from plexus_detect.policy import policy_of
from plexus_detect.provision.applying import apply_plan
from plexus_detect.provision.files import load_specs
from plexus_detect.provision.reading import make_plan
from plexus_detect.series import Kind, Points, SeriesKey
from plexus_detect.store import Store
from plexus_detect.training.shelf import MADE_BY, TRAIN
from plexus_detect.training.trainer import InlineTrainer
from plexus_detect.training.versions import ModelFolder
from plexus_detect.worker import Worker, open_worker

METRICS = ("current", "temperature", "vibration")
PAST, BREAK, END = 90, 20, 45
# The three move together, but none of them leaves its range while they do not: no check of a single one can
# see that.
MOTOR = {
    "name": "motor",
    "metrics": ["vibration", "current", "temperature"],
    "sources": ["press-*"],
    "backend": "ecod",
    "min_samples": 60,
    "window_size": 200,
    "retrain_interval": 50,
    "contamination": 0.01,
    "span": "0s",
}


def given(**more: object) -> Config:
    """A poll a second, and the group; other series are not scored."""
    groups = json.dumps([MOTOR | more])
    alone = '[{"metrics": ["humidity"]}]'
    return settings(poll__interval="1s", fleet__settle="1500ms", detectors=groups, series=alone)


def sample(source: str, t_ms: int) -> list[Row]:
    """What a press measures: everything follows its load, but for the current of press-1 in the break."""
    rng = random.Random(f"{source} {t_ms}")
    load = rng.choice((-1, 1)) * rng.uniform(0.5, 1.0)
    second = (t_ms - START_MS) // 1000
    sign = -1 if source == "press-1" and BREAK <= second < BREAK + 15 else 1
    values = (20 + 2 * sign * load, 50 - load, 3 + load)
    return [(source, m, t_ms, v + rng.gauss(0, 0.05)) for m, v in zip(METRICS, values, strict=True)]


def rows_of(sources: tuple[str, ...], first: int, last: int) -> list[Row]:
    """The samples of seconds ``first`` to ``last`` (not in it) after the start."""
    return [row for n in range(first, last) for s in sources for row in sample(s, START_MS + 1000 * n)]


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are kept in a folder of each test's own."""
    monkeypatch.chdir(tmp_path)


# --- the whole pipe ---------------------------------------------------------------------------------------


Room = tuple[Pipe, list[Event], list[str]]


@pytest.fixture(scope="module", name="room")
def _room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """Two presses, one of which breaks; a file of monitors, and what applying it said."""
    monitors = tmp_path_factory.mktemp("monitors") / "motor.json"
    monitors.write_text(
        json.dumps({"source_id": "press-*", "metric": "motor.anomaly", "threshold": {"max": 3}})
    )
    told, said = list[Event](), list[str]()
    sources = ("press-1", "press-2")

    async def body(pipe: Pipe) -> None:
        box = pipe.box
        async with Client(Endpoints(box.url, box.url, box.url), box.key) as client:
            plan = await make_plan(client, load_specs(monitors))
            assert (await apply_plan(client, plan, said.append)).ok
        for second in range(END):
            report = await pipe.step(rows_of(sources, second, second + 1))
            told.extend(e for e in report.events if e.kind is Kind.ANOMALY)
        said.extend(f"alert {alert['metric']}" for alert in box.alerts())
        pipe.worker.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(monitors.parent)
        stopped = FakeClock(patch)
        pipe = play(stopped, body, past=rows_of(sources, -PAST, 0), given=given())
    return pipe, told, said


def test_a_correlation_break_alerts_in_slack(room: Room) -> None:
    """Through the monitor that a file asked for on every press: one alert, of the press that broke, and its
    end; the model was fitted in another process."""
    pipe, _told, said = room
    assert sorted(said) == [
        "alert motor.anomaly",
        "created threshold press-1 motor.anomaly",
        "created threshold press-2 motor.anomaly",
    ]
    sent = pipe.box.slack_messages()
    assert [message.event for message in sent] == ["alert.triggered"]
    assert "press-1" in json.dumps(sent[0].body)
    assert "motor.anomaly" in json.dumps(sent[0].body)


def test_a_group_is_posted_like_any_derived_series(room: Room) -> None:
    """A value for every row of each press from the first poll on, zeros but for the break; nothing else."""
    pipe, told, _said = room
    counts = Counter((r.source, r.metric) for r in pipe.rows() if r.metric not in METRICS)
    assert counts == {("press-1", "motor.anomaly"): END, ("press-2", "motor.anomaly"): END}
    values = {(r.t_ms - START_MS) // 1000: r.value for r in pipe.rows("press-1", "motor.anomaly")}
    loud = [second for second, value in values.items() if value > 0]
    assert BREAK + 2 <= min(loud) <= BREAK + 5
    assert max(loud) <= BREAK + 20
    assert [e.what for e in told] == ["opened", "closed"]
    assert told[0].blame[0][0] == "current"
    assert not any(r.value for r in pipe.rows("press-2", "motor.anomaly"))


# --- the same by other ways -------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="file")
def _file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SeriesKey], Points]:
    """The samples of the room as a CSV."""
    rows = rows_of(("press-1", "press-2"), -PAST, END)
    keys = sorted({SeriesKey(*row[:2]) for row in rows})
    series, t_ms, value = zip(*((keys.index(row[:2]), *row[2:]) for row in rows), strict=True)
    points = Points(np.array(series), np.array(t_ms), np.array(value))
    return write_csv(tmp_path_factory.mktemp("groups") / "presses.csv", keys, points), keys, points


SPAN = Span(START_MS, START_MS + 1000 * END)


def backtested(keys: list[SeriesKey], points: Points) -> Replayed:
    """The replay of the seconds after the start."""
    return Run(given(), 1, draw=True, progress=lambda _share: None).over(keys, points, SPAN)[0]


def test_a_backtest_finds_the_same_episode(room: Room, file: tuple[Path, list[SeriesKey], Points]) -> None:
    """With the times, scores and shares that the worker told; it says which metric broke, and counts the rows
    of both groups."""
    _pipe, told, _said = room
    replayed = backtested(*file[1:])
    (episode,) = replayed.episodes
    assert (episode.key, episode.kind) == (("press-1", "motor"), "anomaly")
    assert (episode.since_ms, episode.opened_ms, episode.closed_ms) == (
        told[0].since_ms,
        told[0].t_ms,
        told[1].t_ms,
    )
    assert (episode.value, episode.peak, episode.blame) == (told[0].value, told[1].score, told[0].blame)
    figures = figures_of(replayed, SPAN, None)
    assert (figures.series, figures.points, figures.alerts) == (2, 2 * END, 1)
    assert "its group" in text_of(figures, replayed.episodes)
    assert "learned: current" in text_of(figures, replayed.episodes)
    assert next(iter(json_of(figures, replayed.episodes, [])["episodes"][0]["blame"])) == "current"


@pytest.mark.parametrize("scope", ["source", "cohort"])
def test_shards_do_not_part_a_group(file: tuple[Path, list[SeriesKey], Points], scope: str) -> None:
    """Two find what one finds, whether presses have models of their own or one between them."""
    _path, keys, points = file
    found = []
    for jobs in (1, 2):
        config = given(scope=scope, backend="ecod", contamination=0.2)
        # Fleets of single metrics would tie the presses together too.
        fleet = config.fleet.model_copy(update={"enabled": False})
        run = Run(config.model_copy(update={"fleet": fleet}), 1, draw=False, progress=float)
        admitted = run.selection.admit([*keys, *run.selection.named(keys)])
        setup = run.setup(SPAN, len(admitted))
        with Shards(setup, 1) as shards:
            shards._shards = [Here(setup) for _ in range(jobs)]
            shards._sizes, shards._new = [0] * jobs, [[] for _ in range(jobs)]
            shards.admit(admitted)
            for part in chunks(points, 100):
                shards.put(part, int(part.t_ms[-1]))
            found.append(joined(shards.finish(), setup)[0])
            assert scope == "cohort" or all(shards._sizes)
    assert found[0].episodes == found[1].episodes
    assert np.array_equal(found[0].count, found[1].count)
    assert found[0].episodes


def explained(file: Path, second: float, **asked: str) -> tuple[str, dict]:
    """The receipt at a time, as text and as JSON."""
    question = {"source": "press-1", "metric": "motor", "start": None, "csv_file": file, **asked}
    question["time"] = exact_stamp(round(START_MS + 1000 * second))
    config = given()
    made = command._question(config, question)
    rule = policy_of(config).groups[0]
    account = command._group_account(config, rule, made)
    return group_words.text_of(account, made.asked_ms), group_words.json_of(account, made.asked_ms)


def test_explain_says_the_culprit(room: Room, file: tuple[Path, list[SeriesKey], Points]) -> None:
    """The receipt of a row in the break: the posted score, the line, who has the largest share with its value
    and the usual one, and what the model was learned from."""
    pipe, told, _said = room
    second = (told[0].t_ms - START_MS) // 1000
    text, receipt = explained(file[0], second + 0.5, metric="motor.anomaly")
    assert (receipt["state"], receipt["time"]) == ("scored", exact_stamp(told[0].t_ms))
    assert receipt["posted"] == told[0].score
    assert receipt["episode"]["open"]
    assert receipt["score"] > 1
    culprit = receipt["metrics"][0]
    assert (culprit["metric"], culprit["share"]) == told[0].blame[0]
    assert culprit["usual"] == pytest.approx(20, abs=1.5)
    stored = {r.t_ms: r.value for r in pipe.rows("press-1", "current")}
    assert culprit["value"] == stored[told[0].t_ms]
    assert receipt["model"]["version"] >= 1
    assert receipt["model"]["from"] < receipt["model"]["to"] < receipt["time"]
    for words in (
        "beyond the line at 1",
        "the newest row at or before",
        "model     ecod version",
        "current ",
    ):
        assert words in text


def test_explain_inside_the_line_and_before_there_is_a_model(
    file: tuple[Path, list[SeriesKey], Points],
) -> None:
    """A calm row has shares too; an early one says how many rows there are of how many, and nothing of a
    model."""
    text, receipt = explained(file[0], 5)
    assert receipt["posted"] == 0
    assert sum(part["share"] for part in receipt["metrics"]) == pytest.approx(1)
    assert "inside the line" in text
    text, receipt = explained(file[0], -60)
    assert receipt["state"] == "warming: 31 of 70 rows"
    assert (receipt["z"], receipt["model"]) == (None, None)
    assert "warming: 31 of 70 rows" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"source": "press-3"}, "SOURCE: 'press-3' is not known here; did you mean"), ({}, "has no row of two")],
)
def test_what_cannot_be_explained(
    file: tuple[Path, list[SeriesKey], Points], asked: dict[str, str], words: str
) -> None:
    """One sentence for a source that has none of the metrics, and for a time before there is a row."""
    with pytest.raises(ConfigError) as raised:
        explained(file[0], 0 if asked else -1000, **asked)
    assert words in str(raised.value)


# --- kills and changes ------------------------------------------------------------------------------------


class Press:
    """A platform that presses fill, and a worker over one state file that can be killed and opened again."""

    def __init__(self, stopped: FakeClock, path: Path, config: Config) -> None:
        self.stopped, self.path = stopped, path
        # As it would be if the configuration named the state file.
        state = config.state.model_copy(update={"models": path.with_suffix(".models")})
        self.config = config.model_copy(update={"state": state})
        self.platform = FakePlatform(rows_of(("press-1", "press-2"), -PAST, 0))
        self.platform.rows += [("press-3", "current", START_MS - 1000 * k, 1.0) for k in range(PAST, 0, -1)]
        self.store: Store | None = None
        self.worker: Worker | None = None

    async def open(self) -> Worker:
        """Start a worker over what the file holds; one that runs is dropped as a kill would drop it."""
        if self.store is not None:
            self.store.close()
        self.store = Store(self.path)
        self.worker = await open_worker(self.config, self.platform, self.store, None, InlineTrainer())  # type: ignore[arg-type]
        return self.worker

    async def tick(self, second: int) -> None:
        """A second of samples, of which the temperature of one comes two polls later, then a poll."""
        assert self.worker is not None
        self.stopped.t_ms = START_MS + 1000 * second + 300
        now = rows_of(("press-1", "press-2"), second, second + 1)
        behind = [r for r in rows_of(("press-2",), second - 2, second - 1) if r[1] == "temperature"]
        on_time = [r for r in now if r[:2] != ("press-2", "temperature")]
        self.platform.rows += on_time + (behind if second >= 2 else [])
        await self.worker.tick()
        assert await self.worker.delivery.deliver_all()

    def posted(self) -> list[Row]:
        """The scores of groups that the platform has stored."""
        return self.platform.stored(".anomaly")


def test_killed_and_continued_equals_never_stopped(stopped: FakeClock, tmp_path: Path) -> None:
    """The same posted scores and the same state, bit for bit, with kills between snapshots and through fits;
    a press with one of the metrics posts nothing."""
    config = given(scope="cohort", min_samples=60, retrain_interval=20, backend="ecod")
    config = config.model_copy(
        update={"state": config.state.model_copy(update={"snapshot_interval_ms": 7_000})}
    )

    async def run(press: Press, kills: set[int]) -> dict[str, bytes]:
        await press.open()
        for second in range(30):
            await press.tick(second)
            if second % 5 == 0:
                # Nothing new, but time lets rows go that waited for stragglers.
                stopped.t_ms += 600
                assert press.worker is not None
                await press.worker.tick()
                assert await press.worker.delivery.deliver_all()
            if second in kills:
                await press.open()
        assert press.worker is not None
        return {k: np.ascontiguousarray(c).tobytes() for k, c in press.worker.running.dump().items()}

    stopped.t_ms = START_MS
    whole = Press(stopped, tmp_path / "whole.db", config)
    expected = asyncio.run(run(whole, set()))
    stopped.t_ms = START_MS
    killed = Press(stopped, tmp_path / "killed.db", config)
    got = asyncio.run(run(killed, {0, 3, 8, 9, 17, 25}))
    assert killed.posted() == whole.posted()
    assert sorted(k for k in expected.keys() | got.keys() if expected.get(k) != got.get(k)) == []
    assert {row[0] for row in whole.posted()} == {"press-1", "press-2"}
    assert len(whole.posted()) > 50


def test_a_changed_group_warms_up_from_history(stopped: FakeClock, tmp_path: Path) -> None:
    """Another line: the next start scores at once, posts nothing that was posted before, and says why."""

    async def run() -> tuple[list[Row], list[Row]]:
        stopped.t_ms = START_MS
        press = Press(stopped, tmp_path / "changed.db", given(backend="ecod"))
        await press.open()
        for second in range(5):
            await press.tick(second)
        before = press.posted()
        press.config = given(backend="ecod", sensitivity="low")
        await press.open()
        await press.tick(5)
        return before, press.posted()

    before, after = asyncio.run(run())
    assert len({row[:3] for row in after}) == len(after)
    # Of press-2 the temperature is behind.
    assert {row[:3] for row in after} - {row[:3] for row in before} == {
        ("press-1", "motor.anomaly", START_MS + 5000)
    }


def test_a_trained_model_is_taken_and_survives_a_kill(stopped: FakeClock, tmp_path: Path) -> None:
    """Within seconds, by the press whose model it is; a kill right after that does not bring the old one
    back, and the next own model is kept as a version of its own."""

    def model_of(press: Press) -> str:
        assert press.worker is not None
        models = dict(next(iter(press.worker.running.state.groups)).models())
        fitted = models["motor@press-1"].fitted
        assert fitted is not None
        return fitted.card.data_hash

    async def run() -> None:
        stopped.t_ms = START_MS
        press = Press(stopped, tmp_path / "trained.db", given())
        await press.open()
        await press.tick(0)
        folder = ModelFolder(press.config.models)
        assert folder.names() == ["motor@press-1", "motor@press-2"]
        assert folder.card("motor@press-1", 1)["data_hash"] == model_of(press)
        chosen = folder.card("motor@press-2", 1)["data_hash"]
        arrays = folder.arrays("motor@press-2")
        folder.keep("motor@press-1", arrays, {"data_hash": chosen, "backend": "ecod", MADE_BY: TRAIN})
        for second in range(1, 12):
            await press.tick(second)
        assert model_of(press) == chosen
        await press.open()
        assert model_of(press) == chosen
        for second in range(12, 50):
            await press.tick(second)
        assert model_of(press) != chosen
        assert folder.versions("motor@press-1") == [1, 2, 3]
        assert folder.card("motor@press-1", 3)["data_hash"] == model_of(press)

    asyncio.run(run())


def test_a_metric_under_a_groups_name_is_said_once(
    stopped: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not read, and does not disturb the group."""
    platform = FakePlatform([*rows_of(("press-1",), -PAST, 0), ("press-1", "motor", START_MS - 1000, 5.0)])

    async def run() -> Worker:
        opening = open_worker(given(), platform, Store(":memory:"), None, InlineTrainer())  # type: ignore[arg-type]
        worker = await opening
        await worker.discover()
        await worker.tick()
        return worker

    worker = asyncio.run(run())
    assert [r.fields["metric"] for r in caplog.records if r.getMessage() == "metric_hidden"] == ["motor"]  # type: ignore[attr-defined]
    assert worker.running.series_count() == 3
    assert all("motor" not in asked.get("metric", "").split(",") for asked in platform.asked)


class NoTrainer:
    """Every fit fails."""

    def submit(self, job: Job) -> NoTrainer:
        """Take any job."""
        return self

    def done(self) -> bool:
        """At once."""
        return True

    def result(self) -> Fit:
        """Never a model."""
        raise FitError("the data are all alike")


def test_a_fit_that_fails_is_said_once(stopped: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """With the group, the source and the reason, and not again with every poll; nothing is posted."""
    platform = FakePlatform(rows_of(("press-1",), -PAST, 0))

    async def run() -> Worker:
        opening = open_worker(given(), platform, Store(":memory:"), None, NoTrainer())  # type: ignore[arg-type]
        worker = await opening
        for _ in range(3):
            await worker.tick()
        return worker

    asyncio.run(run())
    said = [r.fields for r in caplog.records if r.getMessage() == "fit_failed"]  # type: ignore[attr-defined]
    assert said == [{"group": "motor", "source": "press-1", "err": "the data are all alike"}]
    assert platform.stored(".anomaly") == []


def test_without_the_extra(stopped: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that could never fit a model does not start, and says what to install."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyod" else found(name))
    with pytest.raises(ConfigError, match=r"plexus-detect\[learn\]"):
        asyncio.run(open_worker(given(), FakePlatform(), Store(":memory:")))  # type: ignore[arg-type]
