"""Rows of events judged: models from the folder, statistics of single metrics, and both together."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from learn_data import MOTOR, motor

from plexus_detect.config import Config, load_config
from plexus_detect.errors import ConfigError
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.policy import group_rule
from plexus_detect.streampipes.desk import Desk
from plexus_detect.streampipes.models import FittedRows, load_rows
from plexus_detect.streampipes.reading import Verdict
from plexus_detect.streampipes.service import desk_of
from plexus_detect.train.history import Past
from plexus_detect.train.making import learned
from plexus_detect.training.versions import ModelFolder

T0 = 1_800_000_000_000
GROUP = "{name: motor, metrics: [vibration, current, temperature], span: 0s, window_size: 4000, %s}"


def config_of(folder: Path, group: str, **pipes: str) -> Config:
    """A configuration with one group, or none."""
    lines = "".join(f"  {key}: {value}\n" for key, value in {"host": "h", **pipes}.items())
    detectors = f"detectors: [{GROUP % group}]\n" if group else ""
    (folder / "c.yaml").write_text(f"state: {{path: {folder}/s.db}}\nstreampipes:\n{lines}{detectors}")
    return load_config([folder / "c.yaml"], {})


def trained(config: Config, name: str = "motor", seed: int = 1) -> ModelFolder:
    """The folder of models, with one more version of that name."""
    rule = group_rule(config, config.detectors[0], with_model=False)
    x, _ = motor(seed, 600)
    made = learned([Past("press-1", T0 + 1000 * np.arange(600), x)], MOTOR, rule.learn)
    folder = ModelFolder(config.models)
    folder.keep(name, made.arrays, made.card, made.onnx)
    return folder


def judge(desk: Desk, device: str, x: np.ndarray, start: int = 0) -> list[Verdict]:
    """Rows of a device, a second apart."""
    t_ms = T0 + 1000 * (start + np.arange(len(x)))
    return desk.judging.step([device] * len(x), t_ms, x, int(t_ms.max()))


def test_a_model_runs_in_its_onnx_form_and_says_what_the_worker_would(tmp_path: Path) -> None:
    """The scores are those of the fitted model within the parity of its card, the backend is the ONNX file,
    and a row that breaks the correlation is told by the metric that broke it."""
    config = config_of(tmp_path, "scope: cohort, backend: isolation_forest, contamination: 0.01")
    folder = trained(config)
    rule = group_rule(config, config.detectors[0], with_model=False)
    model = load_rows(folder, rule, "press-1", None)
    assert isinstance(model, FittedRows)
    assert isinstance(model.fitted.model, OnnxModel)
    x, _ = motor(2, 50)
    ratio, _shares = model.score(np.zeros(50, np.int64), T0 + np.arange(50), x)
    np.testing.assert_allclose(ratio, folder.load("motor").score(x).ratio, atol=1e-3)
    x[10, 1] = 60.0
    verdicts = judge(desk_of(config), "anything", x)
    assert verdicts[10].is_anomaly
    assert verdicts[10].reason.startswith("motor: current ")
    assert sum(verdict.is_anomaly for verdict in verdicts) <= 2


def test_a_model_for_each_device_and_none_for_others(tmp_path: Path) -> None:
    """Of scope source a device has the model group@device; without one, and for a device that no pattern
    takes, there is no score and the reason says so."""
    config = config_of(tmp_path, "sources: [press-*]")
    trained(config, "motor@press-1")
    desk, (x, _) = desk_of(config), motor(3, 2)
    assert judge(desk, "press-1", x)[0].score < 1.0
    for device, reason in (("press-2", "motor: no model yet"), ("drill-1", "no detector takes this device")):
        verdict = judge(desk, device, x)[0]
        assert (math.isnan(verdict.score), verdict.reason) == (True, reason)


def test_a_newer_version_is_taken_and_a_roll_back_too(tmp_path: Path) -> None:
    """What is in use in the folder is in use here after the next look; a damaged version changes nothing."""
    config = config_of(tmp_path, "scope: cohort")
    desk, (x, _) = desk_of(config), motor(3, 1)
    group = desk.judging.groups[0]
    assert judge(desk, "a", x)[0].reason == "motor: no model yet"
    folder = trained(config)
    versions = []
    for change in (
        lambda: None,
        lambda: trained(config, seed=9),
        lambda: folder.roll_back("motor"),
        lambda: trained(config, seed=8),
    ):
        change()
        if len(versions) == 3:
            folder.path_of("motor", 3).with_suffix(".npz").write_bytes(b"damaged")
        desk.judging.refresh()
        model = group.model("a")
        assert model is not None
        versions.append(model.version)
    assert versions == [1, 2, 1, 1]


def test_late_and_poor_rows(tmp_path: Path) -> None:
    """An event older than one before it is judged but is part of no episode; where features remember it is
    not judged at all; a row of one value is no row that metrics move together in."""
    config = config_of(tmp_path, "scope: cohort, backend: isolation_forest, contamination: 0.01")
    trained(config)
    desk = desk_of(config)
    bad = np.full((6, 3), 60.0)
    assert [v.in_episode for v in judge(desk, "a", bad, 10)] == [False, False, True, True, True, True]
    late = judge(desk, "b", bad[:1], 100) + judge(desk, "b", bad, 0)
    assert all(v.is_anomaly for v in late)
    assert not any(v.in_episode for v in late)
    few = judge(desk, "c", np.array([[5.0, math.nan, math.nan]]))[0]
    assert few.reason == "motor: fewer than 2 of its metrics are there"
    lagged = config_of(tmp_path, "scope: cohort, rolling: [3]")
    trained(lagged)
    desk, (x, _) = desk_of(lagged), motor(4, 8)
    assert not math.isnan(judge(desk, "a", x, 100)[-1].score)
    old = judge(desk, "a", x[:1], 0)[0]
    assert old.reason == "motor: newer events of this device came before"


def test_statistics_of_single_metrics(tmp_path: Path) -> None:
    """Without any model each metric is judged against its own past, which the data lake may give first: a
    spike is told with its value and what was expected, also beside a group that sees nothing in it."""
    config = config_of(tmp_path, "", statistics="true", metrics="{vibration: vib}")
    desk, rng = desk_of(config), np.random.default_rng(1)
    assert desk.metrics == ("vibration",)
    x = 20.0 + 0.1 * rng.standard_normal((600, 1))
    assert judge(desk, "cold", x[:1])[0].reason == "too few values yet"
    desk.judging.warm(["oven"] * 500, T0 + 1000 * np.arange(500), x[:500])
    x[550] = 25.0
    verdicts = judge(desk, "oven", x[500:], 500)
    assert [i for i, v in enumerate(verdicts) if v.is_anomaly] == [50]
    assert verdicts[50].reason.startswith("vibration is 25, expected 19.99")
    assert judge(desk, "oven", np.array([[math.nan]]), 700)[0].reason == "no number"


def test_the_largest_score_counts_and_all_reasons_are_told(tmp_path: Path) -> None:
    """A row that both a group and a single metric find has one verdict with both reasons."""
    config = config_of(tmp_path, "scope: cohort, contamination: 0.01", statistics="true")
    trained(config)
    desk, (x, _) = desk_of(config), motor(5, 601)
    desk.judging.warm(["a"] * 600, T0 + 1000 * np.arange(600), x[:600])
    x[600, 1] = 400.0
    verdict = judge(desk, "a", x[600:], 600)[0]
    reasons = verdict.reason.split("; ")
    assert len(reasons) == 2
    assert any(reason.startswith("current is 400") for reason in reasons)
    assert any(reason.startswith("motor: current ") for reason in reasons)


@pytest.mark.parametrize(
    ("group", "pipes", "says"),
    [
        ("", {}, "there is nothing to judge with"),
        ("", {"statistics": "true"}, "no metric is named"),
        ("kind: onnx, model: m.onnx", {}, "is of kind onnx"),
    ],
)
def test_what_judges_nothing_is_refused(tmp_path: Path, group: str, pipes: dict[str, str], says: str) -> None:
    """A function without detectors, without metrics, or with a model that only learns by itself."""
    with pytest.raises(ConfigError, match=says):
        desk_of(config_of(tmp_path, group, **pipes))


def test_cut_into_batches_anyhow_the_verdicts_are_the_same(tmp_path: Path) -> None:
    """How events come together in batches changes no score, episode or reason."""
    config = config_of(tmp_path, "scope: cohort, rolling: [4], lags: [1]", statistics="true")
    trained(config)
    x, _ = motor(6, 90)
    x[40:45, 1] = 60.0
    whole = judge(desk_of(config), "a", x)
    desk, parts, at = desk_of(config), list[Verdict](), 0
    for size in (1, 2, 39, 1, 1, 3, 43):
        parts += judge(desk, "a", x[at : at + size], at)
        at += size
    assert at == len(x)
    assert [replace_nan(v) for v in parts] == [replace_nan(v) for v in whole]


def replace_nan(verdict: Verdict) -> Verdict:
    """The verdict in a form that is equal to itself."""
    return verdict._replace(score=-1.0 if math.isnan(verdict.score) else verdict.score)
