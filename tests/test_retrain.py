"""Retraining: two models compared on rows that neither has learned, deployed only if comparable, on a
schedule, and taken by a running worker."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from backtest_week import write_csv
from fake_platform import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from learn_data import MOTOR, motor
from profiles import examples
from scipy.stats import ks_2samp

from plexus_detect.config import Config, load_config
from plexus_detect.errors import ConfigError, NotDeployedError
from plexus_detect.learn.comparing import Candidate, Comparison, Stretch, compare, ks_distance
from plexus_detect.retraining import RETRY_MS, Ended, Retraining
from plexus_detect.series import Points, SeriesKey
from plexus_detect.train import command
from plexus_detect.train.models import models as models_command
from plexus_detect.training.shelf import MADE_MS
from plexus_detect.training.versions import ModelFolder
from plexus_detect.vitals import Vitals

T0, N, DAY_MS = 1_800_000_000_000, 2_000, 86_400_000

# --- the statistics ---------------------------------------------------------------------------------------

samples = st.lists(st.integers(-20, 20), min_size=1, max_size=60).map(lambda v: np.array(v, np.float64))


@given(samples, samples)
@examples(300)
def test_the_distance_is_that_of_scipy(a: np.ndarray, b: np.ndarray) -> None:
    """The two-sample Kolmogorov-Smirnov statistic, ties and unequal sizes included."""
    assert ks_distance(a, b) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)


def candidate(line: float = 4.0, centre: float = 0.0, floor: float = 0.0) -> Candidate:
    """Judges a row by its largest deviation from a centre, of which a part of the line does not count."""

    def score(x: np.ndarray, t_ms: np.ndarray) -> np.ndarray:
        return np.maximum(np.abs(x - centre).max(axis=1) / line - floor, 0.0)

    return Candidate(score, np.ones(3), 1)


def stretch(shift: float = 0.0, n: int = 1_000) -> Stretch:
    """Normal noise of three metrics around ``shift``; the last fifth is held back."""
    x = np.random.default_rng(3).standard_normal((n, 3)) + shift
    return Stretch(x, T0 + 1000 * np.arange(n), np.arange(n) >= 0.8 * n)


@pytest.mark.parametrize(
    ("new", "rows", "verdict", "words"),
    [
        (candidate(), stretch(), "comparable", "judges the rows as the model in use does"),
        (candidate(line=5.0, floor=0.3), stretch(), "better", "errors are lower"),
        (
            candidate(line=40.0),
            stretch(),
            "worse",
            "it finds 0% of 86 disturbances of which the model in use",
        ),
        (candidate(line=2.0), stretch(), "worse", "of the rows are beyond its line"),
        (candidate(centre=6.0), stretch(6.0), "changed", "the machine has changed, or a fault was learned"),
        (candidate(), stretch(n=300), "unknown", "only 60 rows are left that neither model has learned"),
        (candidate(), stretch(9.0), "unknown", "only 0 rows besides 200 that both find anomalous"),
    ],
)
def test_the_verdict(new: Candidate, rows: Stretch, verdict: str, words: str) -> None:
    """A model that is blind has the lowest errors and is worse; one that calls normal what the model in use
    calls anomalous may have learned a fault; too few rows prove nothing."""
    found = compare(candidate(), new, [rows])
    assert (found.verdict, found.may_follow) == (verdict, verdict in ("comparable", "better"))
    assert words in found.why


def test_a_fault_that_both_see_decides_nothing() -> None:
    """Its rows are counted and set aside, with those whose windows look back on it: the figures are those of
    the others."""
    rows = stretch()
    rows.x[850:880, 1] += 30.0
    found = compare(candidate(), candidate(), [rows])
    assert (found.verdict, found.rows, found.set_aside) == ("comparable", 170, 30)
    assert found.beyond == (0.0, 0.0)
    far = compare(candidate()._replace(reach=21), candidate(), [rows])
    assert (far.rows, far.set_aside) == (150, 50)


def test_what_is_critical_to_the_model_in_use_is_not_lost() -> None:
    """A few rows far out that the new model calls normal are reason enough, however like all others are."""
    rows = stretch()
    rows.x[850:854, 1] += 30.0
    new = candidate()

    def score(x: np.ndarray, t_ms: np.ndarray) -> np.ndarray:
        return np.where(x.max(axis=1) > 20.0, 0.2, new.score(x, t_ms))

    found = compare(candidate(), new._replace(score=score), [rows])
    assert (found.verdict, found.lost) == ("changed", 0.02)
    assert found.why.startswith("it calls normal 2.0% of the rows, which are critical to the model in use")


def test_the_same_rows_give_the_same_comparison() -> None:
    """Nothing in it is drawn by chance."""
    one, other = (compare(candidate(), candidate(line=4.1), [stretch()]) for _ in range(2))
    assert one == other
    assert isinstance(one, Comparison)


# --- the command ------------------------------------------------------------------------------------------


def history(room: Path, name: str, rows: Sequence[np.ndarray]) -> Path:
    """A CSV of a motor, a row a second."""
    x = np.concatenate(rows)
    n = len(x)
    keys = [SeriesKey("press", metric) for metric in MOTOR]
    times = np.tile(T0 + 1000 * np.arange(n), 3)
    write_csv(room / name, keys, Points(np.repeat(np.arange(3), n), times, x.T.ravel()))
    return room / name


@pytest.fixture(name="room")
def _room(tmp_path: Path) -> Path:
    """A configuration with a group for each backend that the tests use."""
    backends = {"motor": "ecod", "forest": "isolation_forest"}
    lines = [
        f"- {{name: {name}, metrics: [{', '.join(MOTOR)}], backend: {backend}, span: 0s, scope: cohort}}"
        for name, backend in backends.items()
    ]
    text = f"state: {{models: {tmp_path / 'models'}}}\ndetectors:\n" + "\n".join(lines)
    (tmp_path / "c.yaml").write_text(text)
    return tmp_path


def train(room: Path, csv: Path, *options: str, name: str = "motor") -> None:
    """The command, with its card as JSON."""
    given = [name, "-c", str(room / "c.yaml"), "--csv", str(csv), "--output", "json", *options]
    command.train.main(given, standalone_mode=False)


def card_of(capsys: pytest.CaptureFixture[str]) -> dict:
    """The card that was printed."""
    return json.loads(capsys.readouterr().out)[0]


GATE = "--deploy-if-comparable"


def drifted(x: np.ndarray, by: float = 12.0) -> np.ndarray:
    """Rows of a machine whose current has gone up, and no longer goes with the others."""
    out = x.copy()
    out[:, 1] += by
    return out


@pytest.mark.parametrize("name", ["motor", "forest"])
def test_a_comparable_model_is_deployed(room: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The newest fifth is not learned but judged by both, the figures are in the card, and the version is in
    use; going back from it is one command, and the ONNX file of a version that has one goes with it."""
    x = motor(1, N)[0]
    csv = history(room, "a.csv", [x])
    train(room, csv, GATE, "--to", str(T0 + 1_000_000), name=name)
    assert card_of(capsys)["deployed"]
    train(room, csv, GATE, name=name)
    card, folder = card_of(capsys), ModelFolder(room / "models")
    about = card["comparison"]
    assert (card["compared_with"], about["verdict"], card["deployed"]) == (1, "comparable", True)
    assert card["to_ms"] < T0 + 1000 * 0.8 * N
    assert about["rows"] + about["set_aside"] == N // 5 + 1
    assert about["ks_distance"] < 0.3
    assert about["finds"][1] > 0.8
    assert folder.current(name) == 2
    models_command.main(["roll-back", name, "-c", str(room / "c.yaml")], standalone_mode=False)
    assert (folder.current(name), folder.rejected(name)) == (1, {2})
    assert folder.load(name).card.to_ms == T0 + 999_000
    assert folder.path_of(name, 2).with_suffix(".onnx").exists() == (name == "forest")


def test_a_drifted_machine_is_refused(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 5 with one sentence; the new version is kept, is not in use, is not gone back to, and its
    number deploys it all the same. The next training is compared with the version in use again."""
    x = motor(1, N)[0]
    train(room, history(room, "a.csv", [x[:800]]))
    capsys.readouterr()
    csv = history(room, "b.csv", [x[:1000], drifted(x[1000:])])
    for version in (2, 3):
        with pytest.raises(
            NotDeployedError, match=f"motor: version {version} is kept but not used"
        ) as raised:
            train(room, csv, GATE)
        assert raised.value.exit_code == 5
        assert "(changed)" in str(raised.value)
        assert "the machine has changed, or a fault was learned; version 1 stays" in str(raised.value)
        assert card_of(capsys)["compared_with"] == 1
    folder = ModelFolder(room / "models")
    assert (folder.versions("motor"), folder.current("motor")) == ([1, 2, 3], 1)
    given = ["roll-back", "motor", "--to", "3", "-c", str(room / "c.yaml")]
    models_command.main(given, standalone_mode=False)
    assert (folder.current("motor"), folder.rejected("motor")) == (3, {2})
    # From there one goes back to what was in use, not to what never was.
    assert folder.roll_back("motor") == 1


def test_what_was_gone_back_from_needs_the_gate_too(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a roll-back the next training is compared with the version in use, not with the newest one: a
    model like the one that was gone back from does not return by itself."""
    x = motor(1, N)[0]
    train(room, history(room, "a.csv", [x[:800]]))
    csv = history(room, "b.csv", [x[:1000], drifted(x[1000:])])
    train(room, csv)
    folder = ModelFolder(room / "models")
    assert folder.current("motor") == 2
    folder.roll_back("motor")
    capsys.readouterr()
    with pytest.raises(NotDeployedError):
        train(room, csv, GATE)
    assert card_of(capsys)["compared_with"] == 1
    assert folder.current("motor") == 1


def test_without_the_option_all_is_learned_and_used(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As ever, and the comparison, on rows that the fit held back and that are new to the version in use, is
    told on the card, whatever it says."""
    x = motor(1, N)[0]
    train(room, history(room, "a.csv", [x[:800]]))
    assert "comparison" not in card_of(capsys)
    train(room, history(room, "b.csv", [x[:1000], drifted(x[1000:])]))
    card = card_of(capsys)
    assert (card["deployed"], card["comparison"]["verdict"]) == (True, "changed")
    assert card["to_ms"] == T0 + 1000 * (N - 1)
    train(room, history(room, "b.csv", [x[:1000], drifted(x[1000:])]))
    assert card_of(capsys)["comparison"]["verdict"] == "unknown"


def test_refused_versions_push_out_no_other(tmp_path: Path) -> None:
    """However many trainings are refused, the version in use and those before it stay."""
    folder, arrays = ModelFolder(tmp_path), {"a": np.zeros(1)}
    assert folder.keep("m", arrays, {}, use=False) == 1
    assert folder.keep("m", arrays, {}) == 2
    for _ in range(12):
        folder.keep("m", arrays, {}, use=False)
    assert (folder.current("m"), folder.roll_back("m")) == (2, 1)
    assert len(folder.versions("m")) == 2 + 6


# --- the schedule -----------------------------------------------------------------------------------------

GROUP = "- {name: waves, metrics: [a, b], kind: autoencoder, retrain: 7d, retrain_from: 30d}"


def settings(folder: Path, group: str = GROUP) -> Config:
    """A configuration of one autoencoder that is trained every week."""
    (folder / "w.yaml").write_text(f"state: {{models: {folder / 'models'}}}\ndetectors:\n{group}\n")
    return load_config([folder / "w.yaml"], {})


class Process:
    """The command, as one that ends as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.ends = Ended(0, "", "")

    async def __call__(self, arguments: Sequence[str]) -> Ended:
        """Note the arguments."""
        self.asked.append(arguments)
        return self.ends


def test_the_schedule(tmp_path: Path, stopped: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A week after the newest version, deployed or not, the command is run under the same settings; what came
    of it is one line and one count, and after a failure an hour passes before the next."""
    caplog.set_level(logging.INFO)
    config, process, vitals = settings(tmp_path), Process(), Vitals(5000, 1000)
    retraining = Retraining(vitals, [tmp_path / "w.yaml"], process)
    folder, (group,) = ModelFolder(config.models), config.detectors

    def due() -> bool:
        return asyncio.run(retraining.step(config, group))

    folder.keep("waves", {"a": np.zeros(1)}, {MADE_MS: stopped.t_ms})
    stopped.t_ms += 7 * DAY_MS - 1
    assert not due()
    stopped.t_ms += 1
    process.ends = Ended(3, "", "config_warning ...\nplexus-detect: the API key is refused\n")
    assert due()
    assert not due()
    stopped.t_ms += RETRY_MS
    why = {"verdict": "worse", "why": "it is blind", "ks_distance": 0.4}
    process.ends = Ended(
        5, json.dumps([{"version": 2, "compared_with": 1, "deployed": False, "comparison": why}]), "..."
    )
    assert due()
    path = str(tmp_path / "w.yaml")
    expected = ["train", "--from", "2592000s", GATE, "--output", "json", "--config", path, "--", "waves"]
    assert process.asked == [expected, expected]
    assert vitals.trainings == {"deployed": 0, "refused": 1, "failed": 1}
    failed, refused = (record.fields for record in caplog.records)  # type: ignore[attr-defined]
    assert failed == {"group": "waves", "result": "failed", "err": "the API key is refused"}
    assert (refused["result"], refused["verdict"], refused["ks_distance"]) == ("refused", "worse", 0.4)
    assert refused["msg"] == "the model of waves that was trained is refused: it is blind"


def test_only_autoencoders_have_a_schedule(tmp_path: Path) -> None:
    """A group that learns by itself has another setting, and the mistake names it."""
    with pytest.raises(ConfigError, match="kind learned is not trained on a schedule; remove retrain"):
        settings(tmp_path, "- {name: waves, metrics: [a, b], retrain: 7d}")
