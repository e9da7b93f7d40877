"""keeping: what a worker says about its models, and how often it looks after them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from fake_platform import FakeClock
from learn_data import MOTOR, FailingTrainer, RememberingTrainer, motor

from plexus_detect.groups import Group, GroupRule
from plexus_detect.keeping import EVERY_S, Keeping
from plexus_detect.learn.stream import Learner, LearnParams
from plexus_detect.series import Points, SeriesKey
from plexus_detect.training.shelf import MADE_BY, TRAIN
from plexus_detect.training.versions import ModelFolder

T0 = 1_800_000_000_000
RULE = GroupRule("motor", MOTOR, learn=LearnParams(min_samples=50, window_size=60, handover=0))
TRAINER = RememberingTrainer()


def group_of(sources: tuple[str, ...] = ("press-1",), trainer: object = TRAINER, rows: int = 60) -> Group:
    """A group whose sources have sent so many rows."""
    group = Group(RULE, trainer)  # type: ignore[arg-type]
    for i, source in enumerate(sources):
        x = motor(i, rows)[0]
        for column, metric in enumerate(MOTOR):
            group.admit(3 * i + column, SeriesKey(source, metric))
        times = np.tile(T0 + 1000 * np.arange(rows), 3)
        group.step(Points(np.repeat(3 * i + np.arange(3), rows), times, x.T.ravel()), T0, 0)
    return group


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    """What was logged since the last time."""
    told = [(r.getMessage(), r.fields) for r in caplog.records]  # type: ignore[attr-defined]
    caplog.clear()
    return told


def later(keeping: Keeping, stopped: FakeClock, groups: list[Group]) -> bool:
    """A step when it is due again."""
    stopped.t_ms += round(1000 * EVERY_S)
    return keeping.step(groups)


def test_models_are_kept_now_and_then(stopped: FakeClock, tmp_path: Path) -> None:
    """At once, and then not before EVERY_S have passed, however often it is asked."""
    folder, keeping = ModelFolder(tmp_path), Keeping(tmp_path)
    assert not keeping.step([group_of()])
    assert folder.names() == ["motor@press-1"]
    both = [group_of(("press-1", "press-2"))]
    assert not keeping.step(both)
    assert folder.names() == ["motor@press-1"]
    assert not later(keeping, stopped, both)
    assert folder.names() == ["motor@press-1", "motor@press-2"]


def test_a_chosen_model_is_taken_and_told(
    stopped: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The names of those that took one are one line; the step says that something was taken."""
    caplog.set_level(logging.INFO)
    keeping, group, made = Keeping(tmp_path), group_of(), group_of(rows=55)
    keeping.step([group])
    _name, other = next(made.models())
    assert other.fitted is not None
    ModelFolder(tmp_path).keep("motor@press-1", other.fitted.arrays(), {MADE_BY: TRAIN})
    assert later(keeping, stopped, [group])
    assert said(caplog) == [("models_taken", {"models": ["motor@press-1"]})]
    learner = group.learner(0)
    assert isinstance(learner, Learner)
    assert learner.fitted is not None
    assert learner.fitted.card.data_hash == other.fitted.card.data_hash
    assert not later(keeping, stopped, [group])
    assert said(caplog) == []


def test_a_damaged_model_is_told_once(
    stopped: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the same is the matter, by its name; one that breaks again is told again."""
    keeping, folder = Keeping(tmp_path), ModelFolder(tmp_path)
    groups = [group_of(("press-1", "press-2"), rows=10)]
    for number in (1, 2):
        folder.keep(f"motor@press-{number}", {"about": np.zeros(1)}, {MADE_BY: TRAIN})
    for _ in range(3):
        assert not later(keeping, stopped, groups)
    told = said(caplog)
    assert [name for name, _ in told] == ["models_failed", "models_failed"]
    for number, (_, fields) in enumerate(told, 1):
        expected = f"motor@press-{number}: this is no model of ours, or a damaged one"
        assert str(fields["err"]).startswith(expected)
    folder.remove("motor@press-1")
    folder.remove("motor@press-2")
    later(keeping, stopped, groups)
    folder.keep("motor@press-1", {"about": np.zeros(1)}, {MADE_BY: TRAIN})
    later(keeping, stopped, groups)
    assert [name for name, _ in said(caplog)] == ["models_failed"]


def test_a_folder_that_cannot_be_written_is_told_once(
    stopped: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker goes on."""
    (tmp_path / "models").write_text("a file")
    keeping = Keeping(tmp_path / "models")
    for _ in range(3):
        assert not later(keeping, stopped, [group_of()])
    ((name, fields),) = said(caplog)
    assert name == "models_failed"
    assert "models" in str(fields["err"])


def test_fits_that_fail_are_told_once(
    stopped: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With group, source and reason at once, until it is over; then again."""
    keeping, failing = Keeping(tmp_path), group_of(trainer=FailingTrainer())
    for _ in range(3):
        keeping.step([failing])
    expected = {"group": "motor", "source": "press-1", "err": "this backend takes no rows today"}
    assert said(caplog) == [("fit_failed", expected)]
    keeping.step([group_of()])
    keeping.step([failing])
    assert said(caplog) == [("fit_failed", expected)]
