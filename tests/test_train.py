"""train: from history to a model that is kept, exported and used, and a card that says what it is."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from backtest_week import write_csv
from fake_platform import KEY, FakeClock, FakePlatform, Row
from learn_data import MOTOR, motor

from plexus_detect import clock
from plexus_detect.config import Config, load_config
from plexus_detect.errors import ConfigError, FitError, PlexusDetectError
from plexus_detect.evaluate import Event, State, dump, evaluate, load
from plexus_detect.explain import command as explain_command
from plexus_detect.explain import group_words
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.policy import policy_of
from plexus_detect.sandbox import Sandbox
from plexus_detect.series import Derived, Kind, Points, SeriesKey, SeriesTable
from plexus_detect.store import Store
from plexus_detect.train import command, making
from plexus_detect.training.trainer import InlineTrainer
from plexus_detect.training.versions import ModelFolder
from plexus_detect.worker import open_worker

T0, N, BREAK = 1_800_000_000_000, 480, slice(440, 460)
SOURCES = ("press-1", "press-2")
GROUPS = """
- {name: motor, metrics: [vibration, current, temperature], span: 0s}
- {name: plant, metrics: [vibration, current, temperature], scope: cohort, rolling: [5], lags: [1], span: 0s}
- {name: paced, metrics: [vibration, current, temperature], span: 10m, min_samples: 100, window_size: 200}
- {name: forest, metrics: [vibration, current, temperature], backend: isolation_forest, sources: [press-1],
   span: 0s}
- {name: waves, metrics: [vibration, current, temperature], kind: autoencoder, windows: [4, 8],
   level: conservative}
- {name: long, metrics: [vibration, current, temperature], kind: autoencoder, windows: [128]}
- {name: file, metrics: [vibration, current, temperature], kind: onnx, model: none.onnx}
- {name: other, metrics: [vibration, humidity], sources: [drill-*]}
"""


def rows_of(source: str) -> np.ndarray:
    """(N, 3) a motor's rows; from row 440 to 459 the current of press-1 goes its own way."""
    x, _ = motor(1 + SOURCES.index(source), N)
    if source == "press-1":
        x[BREAK, 1] = 40.0 - x[BREAK, 1]
    return x


def points_of(t0: int = T0) -> tuple[list[SeriesKey], Points]:
    """A row a second of each source."""
    keys = [SeriesKey(source, metric) for source in SOURCES for metric in MOTOR]
    columns = np.concatenate([rows_of(source).T for source in SOURCES])
    times = t0 + 1000 * np.arange(N)
    return keys, Points(np.repeat(np.arange(6), N), np.tile(times, 6), columns.ravel())


@pytest.fixture(scope="module", name="room")
def _room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CSV of two presses and a configuration of groups; models are kept in it."""
    room = tmp_path_factory.mktemp("train")
    write_csv(room / "presses.csv", *points_of())
    indented = "".join(f"  {line}\n" for line in GROUPS.splitlines())
    (room / "c.yaml").write_text(f"state:\n  models: {room / 'models'}\ndetectors:{indented}")
    return room


def train(room: Path, name: str, *options: str) -> None:
    """The command on the room's configuration and, without other options, its CSV up to the break."""
    chosen = options or ("--csv", str(room / "presses.csv"), "--to", str(T0 + 1000 * BREAK.start))
    command.train.main([name, "-c", str(room / "c.yaml"), *chosen], standalone_mode=False)


def cards_of(room: Path, capsys: pytest.CaptureFixture[str], name: str, *more: str) -> list[dict]:
    """The cards that training from the CSV prints as JSON."""
    train(room, name, "--csv", str(room / "presses.csv"), "--output", "json", *more)
    return json.loads(capsys.readouterr().out)


# --- models that are learned ------------------------------------------------------------------------------


def test_a_model_for_each_source(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is kept under group@source, the next one as the next version; the card says from what it was made
    and that what was kept scores the same, to the bit."""
    cards = cards_of(room, capsys, "motor")
    assert [(card["name"], card["version"]) for card in cards] == [("motor@press-1", 1), ("motor@press-2", 1)]
    assert cards_of(room, capsys, "motor")[0]["version"] == 2
    card, folder = cards[0], ModelFolder(room / "models")
    assert (card["backend"], card["metrics"], card["made_by"]) == ("ecod", list(MOTOR), "train")
    assert (card["from_ms"], card["to_ms"]) == (T0, T0 + 1000 * (N - 1))
    assert card["rows"] + card["left_out"] + card["held_back"] == N
    assert card["parity"] == 0.0
    assert card["data_hash"] != cards[1]["data_hash"]
    assert folder.load("motor@press-1").card.data_hash == card["data_hash"]
    assert json.loads(Path(card["path"]).read_text())["data_hash"] == card["data_hash"]


def test_one_model_of_a_cohort_as_text(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the rows of all sources up to --to, under the group's name, with the features that are configured;
    one fact a line."""
    train(room, "plant")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "plant version 1"
    facts = {line[2:24].strip(): line[24:] for line in said[1:]}
    assert (facts["metrics"], facts["features"]) == ("vibration, current, temperature", "18")
    assert int(facts["rows"]) + int(facts["left out"]) + int(facts["held back"]) == 2 * BREAK.start
    assert (facts["from"], facts["to"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:07:19.000Z")
    assert facts["rows beyond the line"].endswith(f" of all {2 * BREAK.start} rows")
    fitted = ModelFolder(room / "models").load("plant")
    assert (fitted.features.rolling, fitted.features.lags) == ((5,), (1,))


def test_a_forest_goes_on_as_onnx(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its ONNX file and card lie beside it, its scores are those of the model within 1e-4, and a detector of
    kind onnx takes it as it lies there."""
    (card,) = cards_of(room, capsys, "forest")
    assert card["name"] == "forest@press-1"
    assert 0.0 < card["parity"] < 1e-4
    file = Path(card["path"]).with_suffix(".onnx")
    text = (room / "c.yaml").read_text().replace("none.onnx", str(file))
    (room / "onnx.yaml").write_text(text.replace("kind: autoencoder", "kind: learned"))
    config = load_config([room / "onnx.yaml"], {})
    rule = next(rule for rule in policy_of(config).groups if rule.name == "file")
    assert isinstance(rule.learn.given, OnnxModel)
    fitted, x = ModelFolder(room / "models").load("forest@press-1"), rows_of("press-2")
    assert np.abs(rule.learn.given.raw(x) - fitted.model.raw(x)).max() < 1e-4


def test_history_is_learned_at_the_pace_of_the_detector(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A window of 200 rows that spans ten minutes takes a row in three seconds: those are fitted, and all
    that were read are scored."""
    card = cards_of(room, capsys, "paced")[0]
    assert card["rows"] + card["left_out"] + card["held_back"] == N / 3
    assert card["rows_beyond_the_line"].endswith(f"of all {N} rows")
    assert (card["from_ms"], card["to_ms"]) == (T0, T0 + 1000 * (N - 3))


@pytest.mark.parametrize(
    ("name", "options", "words", "code"),
    [
        ("motr", (), "NAME: detectors has no entry 'motr'; did you mean 'motor'?", 2),
        ("pump", (), "there are: motor, plant, paced, forest", 2),
        ("file", (), "NAME: 'file' is of kind onnx, whose model is made elsewhere", 2),
        ("other", (), "no rows of vibration, humidity on sources drill-* in CSV; check metrics", 2),
        ("motor", ("--to", "2020-01-01"), "no rows of vibration, current, temperature on sources *", 2),
        ("motor", ("--from", "soon"), "--from: 'soon' is no time; write an ISO date", 2),
        ("motor", ("--from", "2028-01-01", "--to", "2020-01-01"), "--from: it is not before --to", 2),
        (
            "motor",
            ("--to", str(T0 + 5_000)),
            "5 rows to learn from among 5 read are fewer than min_samples",
            1,
        ),
        ("long", (), "windows of 128 rows need 1280 rows without gaps to fit; got 960 of 1088", 1),
    ],
)
def test_what_cannot_be_trained(
    room: Path, name: str, options: tuple[str, ...], words: str, code: int
) -> None:
    """One sentence and an exit code; nothing is kept."""
    file, before = str(room / "presses.csv"), ModelFolder(room / "models").names()
    with pytest.raises(PlexusDetectError) as raised:
        train(room, name, "--csv", file, *options)
    assert words.replace("CSV", file) in str(raised.value)
    assert raised.value.exit_code == code
    assert isinstance(raised.value, ConfigError if code == 2 else FitError)
    assert ModelFolder(room / "models").names() == before


def test_from_the_platform(
    room: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history of the sandbox, read over HTTP, makes the model that the same rows make from a file."""
    keys, points = points_of(clock.now_ms() // 1000 * 1000 - 3_600_000)
    rows = zip(points.series.tolist(), points.t_ms.tolist(), points.value.tolist(), strict=True)
    with Sandbox() as box:
        box.load((*keys[series], t_ms, value) for series, t_ms, value in rows)
        for name in ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL"):
            monkeypatch.setenv(name, box.url)
        monkeypatch.setenv("PLEXUS_API_KEY", box.key)
        train(room, "motor", "--from", "2h", "--output", "json")
    cards = json.loads(capsys.readouterr().out)
    write_csv(room / "same.csv", keys, points)
    train(room, "motor", "--csv", str(room / "same.csv"), "--output", "json")
    again = json.loads(capsys.readouterr().out)
    assert [card["rows"] + card["left_out"] + card["held_back"] for card in cards] == [N, N]
    assert [card["sha256"] for card in kept(room, cards)] == [card["sha256"] for card in kept(room, again)]


def kept(room: Path, cards: list[dict]) -> list[dict]:
    """The cards as they are on disk."""
    return [ModelFolder(room / "models").card(card["name"], card["version"]) for card in cards]


# --- the windowed autoencoder ---------------------------------------------------------------------------


@pytest.fixture(scope="module", name="waves")
def _waves(room: Path) -> Config:
    """Autoencoders of small windows, trained by the command in few steps, and the configuration of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "windowed", partial(making.windowed, steps=100))
        train(room, "waves")
    return only(room, "waves")


def only(room: Path, name: str, models: Path | None = None) -> Config:
    """The room's configuration with one group, and no other detector."""
    config = load_config([room / "c.yaml"], {"PLEXUS_API_KEY": KEY})
    groups = tuple(group for group in config.detectors if group.name == name)
    state = config.state.model_copy(update={"models": models or room / "models"})
    return config.model_copy(update={"detectors": groups, "series": (), "state": state})


def state_of(config: Config) -> State:
    """All series admitted: metrics, and scores under the group's name."""
    state = State(SeriesTable(), policy_of(config), trainer=InlineTrainer())
    for key in points_of()[0] + [SeriesKey(source, "waves") for source in SOURCES]:
        state.admit(state.table.add(*key), None)
    return state


def played(state: State, every: int, *, again: bool = False) -> tuple[Derived, list[Event]]:
    """What polls of so many rows post, in order, and tell; ``again``: with a restart after each."""
    out, points, end = [], points_of()[1], T0 + 1000 * N
    for start in range(T0, end, 1000 * every):
        part = points.take((points.t_ms >= start) & (points.t_ms < start + 1000 * every))
        out.append(evaluate(state, part, start + 1000 * every))
        if again:
            state = load(state.table, state.policy, dump(state), InlineTrainer())
    out.append(evaluate(state, Points.empty(), end + 10**9))
    derived = Derived.concat([e.derived for e in out])
    events = [event for e in out for event in e.events]
    return derived.take(np.lexsort((derived.t_ms, derived.series))), events


def test_an_autoencoder_scores_its_group(waves: Config) -> None:
    """From its first full window on every row is posted; the break is an episode, and its sensor the first
    that is named. Of all other rows no more than the level says are far out, or a few."""
    derived, events = played(state_of(waves), N)
    assert set(derived.series.tolist()) == {6, 7}
    assert (derived.kind == Kind.ANOMALY).all()
    assert len(derived.t_ms) == 2 * (N - 3)
    (told,) = [e for e in events if e.what == "opened" and 440_000 <= e.t_ms - T0 <= 445_000]
    assert (told.series, told.backend, told.blame[0][0]) == (6, "windowed autoencoder", "current")
    calm = (derived.series == 7) | (derived.t_ms < T0 + 440_000)
    assert np.mean(derived.value[calm] > 0.0) < 0.02
    assert np.mean(derived.value[~calm & (derived.t_ms < T0 + 460_000)] > 0.0) > 0.5


def test_an_autoencoder_that_restarts_goes_on(waves: Config) -> None:
    """With a restart after every poll, also before the first row of a source: the same bits."""
    whole, told = played(state_of(waves), N)
    state = state_of(waves)
    state = load(state.table, state.policy, dump(state), InlineTrainer())
    parts, said = played(state, 37, again=True)
    for name in ("series", "kind", "t_ms", "value"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    assert said == told


@pytest.mark.parametrize("output", ["text", "json"])
def test_an_autoencoder_is_explained(room: Path, waves: Config, output: str) -> None:
    """The receipt of a row in the break: the culprit with its value and the usual one, and the model's card
    with the days that it was trained on."""
    asked = {"source": "press-1", "metric": "waves", "start": None, "csv_file": room / "presses.csv"}
    question = explain_command._question(waves, {**asked, "time": str(T0 + 450_000)})
    account = explain_command._group_account(waves, policy_of(waves).groups[0], question)
    if output == "text":
        text = group_words.text_of(account, question.asked_ms)
        for words in ("beyond the line at 1", "windowed autoencoder version 1", "from 2027-01-15T08:00"):
            assert words in text
        assert "ecod" not in text
        return
    receipt = group_words.json_of(account, question.asked_ms)
    assert receipt["metrics"][0]["metric"] == "current"
    assert receipt["metrics"][0]["usual"] == pytest.approx(20.0, abs=1.5)
    assert sum(part["share"] for part in receipt["metrics"]) == pytest.approx(1.0)
    assert (receipt["backend"], receipt["model"]["from"]) == (
        "windowed autoencoder",
        "2027-01-15T08:00:00.000Z",
    )


def test_an_autoencoder_that_is_missing_or_another(room: Path, waves: Config) -> None:
    """One sentence that names the command which makes it: before training, for other metrics, and for an
    archive that was changed; a worker does not start."""
    missing = only(room, "waves", room / "nowhere")
    with pytest.raises(
        ConfigError, match=r"the model of waves cannot be used: there is no model .*train waves"
    ):
        policy_of(missing)
    (group,) = waves.detectors
    fewer = waves.model_copy(update={"detectors": (group.model_copy(update={"metrics": MOTOR[:2]}),)})
    with pytest.raises(ConfigError, match=r"was made for the sensors .*; make one with: train waves"):
        policy_of(fewer)
    folder = ModelFolder(room / "copied")
    folder.keep("waves", ModelFolder(room / "models").arrays("waves"), {})
    folder.path_of("waves", 1).with_suffix(".npz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"is not the file that its card describes.*train waves"):
        policy_of(only(room, "waves", room / "copied"))


def test_a_worker_without_its_autoencoder(room: Path) -> None:
    """It does not start, and says which command makes the model."""
    config = only(room, "waves", room / "nowhere")
    with pytest.raises(ConfigError, match="make one with: train waves"):
        asyncio.run(open_worker(config, FakePlatform(), Store(":memory:")))  # type: ignore[arg-type]


def test_an_autoencoder_in_the_worker(stopped: FakeClock, waves: Config, tmp_path: Path) -> None:
    """Polled, it posts a score for every row of both sources from the first poll on; killed and opened again
    it posts what it would have posted."""
    keys, points = points_of(T0 - 1000 * (N - 10))
    columns = (column.tolist() for column in (points.series, points.t_ms, points.value))
    rows = [(*keys[series], t_ms, value) for series, t_ms, value in zip(*columns, strict=True)]

    async def run(path: Path, kills: set[int]) -> list[Row]:
        stopped.t_ms, store = T0, Store(path)
        platform = FakePlatform(row for row in rows if row[2] < T0)
        worker = await open_worker(waves, platform, store, None, InlineTrainer())  # type: ignore[arg-type]
        for second in range(10):
            stopped.t_ms = T0 + 1000 * second + 300
            platform.rows += [row for row in rows if row[2] == T0 + 1000 * second]
            await worker.tick()
            assert await worker.delivery.deliver_all()
            if second in kills:
                store.close()
                store = Store(path)
                worker = await open_worker(waves, platform, store, None, InlineTrainer())  # type: ignore[arg-type]
        return platform.stored(".anomaly")

    whole = asyncio.run(run(tmp_path / "whole.db", set()))
    expected = [(s, "waves.anomaly", T0 + 1000 * second) for s in SOURCES for second in range(10)]
    assert sorted(row[:3] for row in whole if row[2] >= T0) == expected
    assert asyncio.run(run(tmp_path / "killed.db", {0, 4, 8})) == whole
