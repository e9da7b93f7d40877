"""config: the detectors section, and what it must not say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plexus_detect.config import Config, load_config
from plexus_detect.errors import ConfigError
from plexus_detect.evaluate import State, evaluate
from plexus_detect.learn.models import MODELS
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.policy import policy_of, poll_params
from plexus_detect.series import Kind, Points, SeriesKey, SeriesTable
from plexus_detect.training.onnx import dense_graph
from plexus_detect.training.trainer import InlineTrainer

PLAIN = "- name: motor\n  metrics: [vibration, current]\n"


def loaded(tmp_path: Path, groups: str, before: str = "") -> Config:
    """The configuration of a file with these detectors."""
    file = tmp_path / "c.yaml"
    indented = "".join(f"  {line}\n" for line in groups.splitlines())
    file.write_text(f"{before}detectors:\n{indented}")
    return load_config([file], {})


def test_defaults(tmp_path: Path) -> None:
    """A name and two metrics are enough: ecod for every source, its scores posted."""
    config = loaded(tmp_path, PLAIN)
    (group,) = config.detectors
    assert (group.kind, group.backend, group.scope, group.sources) == ("learned", "ecod", "source", ("*",))
    assert (group.min_samples, group.window_size, group.retrain_interval) == (200, 2000, 500)
    assert (group.contamination, group.align_ms, group.rolling, group.lags) == (0.05, 1000, (), ())
    (rule,) = policy_of(config).groups
    assert (rule.learn.learn_every_ms, rule.learn.ready_after_ms) == (3 * 86_400_000 // 2000, 86_400_000)
    assert Kind.ANOMALY in policy_of(config).kinds


def test_everything_reaches_the_rooms(tmp_path: Path) -> None:
    """All settings become those of the join, the learner and the episodes; the history that is read is long
    enough for the window."""
    more = (
        "  sources: [press-*]\n  scope: cohort\n  backend: HBOS\n  min_samples: 300\n  window_size: 5000\n"
        "  retrain_interval: 100\n  contamination: 0.02\n  rolling: [5, 20]\n  lags: [1]\n  align: 500ms\n"
        "  sensitivity: low\n  span: 2h\n"
    )
    config = loaded(tmp_path, PLAIN + more, "detect:\n  threshold: 4\n  consecutive: 2\n")
    (rule,) = policy_of(config).groups
    assert (rule.sources, rule.shared, rule.align_ms, rule.sensitivity) == (("press-*",), True, 500, 1.5)
    learn = rule.learn
    assert (learn.backend, learn.min_samples, learn.window_size) == ("hbos", 300, 5000)
    assert (learn.retrain_interval, learn.contamination, learn.handover) == (100, 0.02, 20)
    assert (learn.rolling, learn.lags) == ((5, 20), (1,))
    assert (learn.learn_every_ms, learn.ready_after_ms) == (1440, 7_200_000)
    assert (rule.episode.threshold, rule.episode.m, rule.episode.at_once) == (4.0, 2, 0.0)
    assert poll_params(config).history_points > 5000


def test_sources_decide_who_is_looked_for(tmp_path: Path) -> None:
    """A source that only a group may want is looked up, and one named in full needs no discovery."""
    config = loaded(tmp_path, PLAIN + "  sources: [press-1, drill-*]\n", "series:\n  - sources: [none]\n")
    assert [config.may_select(source) for source in ("press-1", "drill-7", "other")] == [True, True, False]
    assert config.literal_keys() == [("press-1", "vibration"), ("press-1", "current")]
    policy = policy_of(config)
    assert policy.is_score(SeriesKey("drill-7", "motor"))
    assert not policy.is_score(SeriesKey("other", "motor"))
    assert [g.name for g in policy.groups_of(SeriesKey("press-1", "current"))] == ["motor"]


@pytest.mark.parametrize("backend", sorted(MODELS))
def test_every_backend_has_its_name(tmp_path: Path, backend: str) -> None:
    """What can be fitted can be configured."""
    if backend != "onnx":
        assert loaded(tmp_path, f"{PLAIN}  backend: {backend}\n").detectors[0].backend == backend


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (PLAIN + "  backend: ecot\n", ("detectors[0].backend: 'ecot' is not one of", "did you mean 'ecod'?")),
        (
            PLAIN + "  kind: lerned\n",
            ("detectors[0].kind: 'lerned' is not one of", "did you mean 'learned'?"),
        ),
        (PLAIN + "  window: 9\n", ("detectors[0].window: unknown key",)),
        (
            "- name: motor\n  metrics: [current]\n",
            ("detectors[0].metrics: one metric has nothing to move together with", "list at least two"),
        ),
        ("- name: motor\n  metrics: []\n", ("detectors[0].metrics", "empty")),
        ("- name: motor\n", ("detectors[0].metrics: is missing",)),
        ("- name: motor\n  metrics: [a, a]\n", ("'a' is listed twice",)),
        ("- name: motor\n  metrics: [a, 'b*']\n", ("'b*' is not the name of a metric", "in full")),
        (
            "- name: motor\n  metrics: [a, b.zscore]\n",
            ("'b.zscore' is a name that the detector posts itself",),
        ),
        (PLAIN + PLAIN, ("detectors[1].name: 'motor' is the name of two groups",)),
        ("- name: a\n  metrics: [a, b]\n", ("detectors[0].name: 'a' is the name of a metric too",)),
        ("- name: t\n  metrics: [a, b]\n", ("detectors[0].name: 't' is the name of a metric too",)),
        ("- name: m.zscore\n  metrics: [a, b]\n", ("'m.zscore' ends like a series that the detector posts",)),
        (
            PLAIN + "  min_samples: 100\n  window_size: 60\n",
            ("min_samples = 100 rows is more than window_size = 60 holds", "raise window_size"),
        ),
        (PLAIN + "  rolling: [0]\n", ("0 is out of range; choose from 1 to 10000 rows",)),
        (PLAIN + "  contamination: 0.6\n", ("0.6 is too large; the most is 0.5",)),
    ],
)
def test_mistakes(tmp_path: Path, groups: str, words: tuple[str, ...]) -> None:
    """One sentence with the place, what is wrong and what to do."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, groups, "series:\n  - metrics: ['*']\n  - metrics: [t]\n")
    assert "c.yaml:" in str(raised.value)
    for word in words:
        assert word in str(raised.value)


# --- a model of a file ------------------------------------------------------------------------------------

ONNX = "- kind: onnx\n  name: motor\n  metrics: [vibration, current]\n"


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that rebuilds two columns which are equal, with its card."""
    data = dense_graph([(np.full((2, 2), 0.5, np.float32), np.zeros(2, np.float32))], "Tanh")
    path = tmp_path_factory.mktemp("models") / "motor.onnx"
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(OnnxModel(data).card(["vibration", "current"])))
    return path


def test_a_model_of_a_file(tmp_path: Path, model: Path) -> None:
    """It is given to the learner, which has only its line to measure; the file is part of the fingerprint,
    and the same file gives the same one."""
    one, two = (policy_of(loaded(tmp_path, f"{ONNX}  model: {model}\n")) for _ in range(2))
    (rule,) = one.groups
    assert rule.learn.backend == "onnx"
    assert isinstance(rule.learn.given, OnnxModel)
    assert one.fingerprint() == two.fingerprint()
    assert rule.learn.given.fingerprint in one.fingerprint()


def test_rows_against_a_model_of_a_file(tmp_path: Path, model: Path) -> None:
    """The pair that parts is an episode; where both move together there is none, however far they go."""
    config = loaded(
        tmp_path, f"{ONNX}  model: {model}\n  min_samples: 100\n  retrain_interval: 50\n  span: 0s\n"
    )
    state = State(SeriesTable(), policy_of(config), trainer=InlineTrainer())
    for metric in ("vibration", "current", "motor"):
        state.admit(state.table.add("press-1", metric), None)
    rng = np.random.default_rng(0)
    load = rng.normal(0, 1, 200)
    values = load + rng.normal(0, 0.05, (2, 200))
    values[1, 180:190] *= -1
    t_ms = 1_800_000_000_000 + 1000 * np.arange(200)
    points = Points(np.repeat([0, 1], 200), np.tile(t_ms, 2), values.ravel())
    found = evaluate(state, points, int(t_ms[-1]) + 10_000)
    (opened,) = [e for e in found.events if e.what == "opened" and e.kind is Kind.ANOMALY]
    assert t_ms[180] <= opened.since_ms <= t_ms[185]
    assert opened.backend == "onnx"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "detectors[0].kind: kind onnx needs a model"),
        ("  model: none.onnx\n", "detectors: the model of motor cannot be used: none.onnx: No such file"),
        ("  model: MODEL\n  rolling: [5]\n", "was made for the columns"),
    ],
)
def test_a_model_that_cannot_be_used(tmp_path: Path, model: Path, lines: str, words: str) -> None:
    """No file, no such file, other columns: one sentence each."""
    with pytest.raises(ConfigError) as raised:
        policy_of(loaded(tmp_path, ONNX + lines.replace("MODEL", str(model))))
    assert words in str(raised.value)


def test_a_learned_group_takes_no_model(tmp_path: Path, model: Path) -> None:
    """A path beside the wrong kind is a mistake, not silently ignored."""
    with pytest.raises(ConfigError, match="kind learned has no file; write kind: onnx"):
        loaded(tmp_path, f"{PLAIN}  model: {model}\n")


def test_a_tampered_model_is_refused(tmp_path: Path, model: Path) -> None:
    """A file that is not the one of its card."""
    changed = tmp_path / "motor.onnx"
    changed.write_bytes(model.read_bytes()[:-1] + b"\x00")
    changed.with_suffix(".json").write_bytes(model.with_suffix(".json").read_bytes())
    with pytest.raises(ConfigError, match="was changed after its card was written"):
        policy_of(loaded(tmp_path, f"{ONNX}  model: {changed}\n"))
