"""learn.stream: the life of a detector, from the first row to the tenth model."""

from __future__ import annotations

import numpy as np
import pytest
from learn_data import FailingTrainer, HeldTrainer, RememberingTrainer, motor
from learn_data import learner as learner_of

from plexus_detect.errors import ConfigError, ModelError
from plexus_detect.learn.stream import Learner, LearnParams

NAMES = ("a", "b", "c")
TRAINER = RememberingTrainer()


def learner(trainer: object = TRAINER, **params: object) -> Learner:
    """A detector with the trainer of all tests here, unless one is given."""
    return learner_of(trainer, **params)


def test_life_of_sixty_rows() -> None:
    """Fifty rows are collected, the first model comes with the fiftieth, and scores the fifty-first."""
    one = learner(min_samples=50, retrain_interval=100)
    judged = one.step(motor(1, 60)[0], NAMES)
    assert (one.version, one.collected, one.processed, one.since_retrain, one.status) == (
        1,
        60,
        60,
        10,
        "ready",
    )
    assert np.isnan(judged.ratio[:50]).all()
    assert np.isnan(judged.raw[:50]).all()
    assert np.isfinite(judged.ratio[50:]).all()
    assert np.isfinite(judged.raw[50:]).all()
    assert judged.version.tolist() == [0] * 50 + [1] * 10
    assert judged.until_ready.tolist() == [*range(49, -1, -1)] + [0] * 10


def test_the_window_slides() -> None:
    """No more rows are collected than the window holds, and they are the newest, with their times."""
    one, x = learner(window_size=60, retrain_interval=1000), motor(1, 150)[0]
    for i in range(0, 150, 7):
        one.step(x[i : i + 7], NAMES, t_ms=np.arange(i, min(i + 7, 150)))
    held, ratio, t_ms = one.window.rows()
    np.testing.assert_array_equal(held, x[90:])
    assert t_ms.tolist() == list(range(90, 150))
    assert np.isfinite(ratio).all()
    assert (one.collected, one.processed) == (60, 150)


def test_a_window_too_small_is_refused() -> None:
    """A window that can never hold enough rows to begin is refused at once."""
    with pytest.raises(ConfigError, match="min_samples 50 is more than window_size 40"):
        LearnParams(min_samples=50, window_size=40)


def test_one_fit_an_interval() -> None:
    """A batch over many intervals asks for one fit each, not for one each row."""
    one, trainer = learner(), HeldTrainer()
    one.step(motor(1, 50 + 40 * 3)[0], NAMES)
    assert (one.version, one.fits) == (4, 4)
    waiting = learner(trainer, handover=1000)
    waiting.step(motor(1, 900)[0], NAMES)
    assert len(trainer.tickets) == 1


def test_reset_begins_anew() -> None:
    """After a reset a detector is as good as new, with the same parameters."""
    one, x = learner(), motor(1, 120)[0]
    first = one.step(x, NAMES)
    one.reset()
    assert (one.status, one.version, one.collected, one.processed, one.names) == ("collecting", 0, 0, 0, ())
    again = one.step(x, NAMES)
    np.testing.assert_array_equal(first.ratio, again.ratio)


# -- names


def test_columns_are_matched_by_name() -> None:
    """Keys in another order give the same scores."""
    x = motor(1, 100)[0]
    a, b = learner(), learner()
    one = a.step(x, NAMES)
    b.step(x[:60], NAMES)
    two = b.step(x[60:][:, [2, 0, 1]], ("c", "a", "b"))
    np.testing.assert_array_equal(one.ratio[60:], two.ratio)


@pytest.mark.parametrize("backend", ["ecod", "mcd"])
def test_missing_metrics_are_no_alarm(backend: str) -> None:
    """A row without a metric, by NaN or by name, has a score, and that is inside the line."""
    one, x = (
        learner(backend=backend, min_samples=150, window_size=200, retrain_interval=500),
        motor(1, 250)[0],
    )
    one.step(x[:150], NAMES)
    holes = x[150:].copy()
    holes[np.arange(100), np.arange(100) % 3] = np.nan
    by_nan = one.step(holes[:50], NAMES)
    by_name = one.step(x[200:][:, :2], ("a", "b"))
    for judged in (by_nan, by_name):
        assert np.isfinite(judged.ratio).all()
        assert (judged.ratio <= 1.0).all()


def test_rows_without_numbers_count_for_nothing() -> None:
    """A row of nothing but NaN has no score, is no part of the window and brings no fit nearer."""
    one, x = learner(), motor(1, 60)[0]
    x[10:20] = np.nan
    judged = one.step(x, NAMES)
    assert (one.collected, one.processed, one.version) == (50, 60, 1)
    assert np.isnan(judged.ratio).all()
    judged = one.step(np.array([[np.nan] * 3, x[0]]), NAMES)
    assert np.isnan(judged.ratio).tolist() == [True, False]


@pytest.mark.parametrize("setting", [{}, {"rolling": (3,), "lags": (1,)}], ids=str)
def test_rows_without_columns(setting: dict[str, object]) -> None:
    """Rows of no columns at all are counted, before the first metric and after it; no rows are no rows."""
    one = learner(**setting)
    judged = one.step(np.zeros((60, 0)), ())
    assert (one.processed, one.collected, one.status) == (60, 0, "collecting")
    assert np.isnan(judged.ratio).all()
    assert judged.shares.shape == (60, 0)
    after = learner(**setting)
    after.load(one.dump())
    after.step(motor(1, 60)[0], NAMES)
    assert after.version == 1
    assert np.isnan(after.step(np.zeros((2, 0)), ()).ratio).all()
    assert after.step(np.zeros((0, 3)), NAMES).ratio.shape == (0,)


@pytest.mark.parametrize("setting", [{}, {"rolling": (3,), "lags": (1,)}], ids=str)
def test_a_new_metric_joins_at_the_next_fit(setting: dict[str, object]) -> None:
    """A metric that appears later is left aside by the model in use, and known by the next."""
    one, x = learner(**setting), motor(1, 200)[0]
    one.step(x[:60, :2], ("a", "b"))
    wild = x[60:63].copy()
    wild[:, 2] = 1e6
    assert (one.step(wild, NAMES).ratio < 1.0).all()
    one.step(x[60:160], NAMES)
    assert one.fitted is not None
    assert one.fitted.names == NAMES
    assert (one.step(wild, NAMES).ratio > 1.0).all()


@pytest.mark.parametrize("rows", [1, 3, 6, 12, 30])
def test_a_metric_that_has_just_appeared_is_no_alarm(rows: int) -> None:
    """A metric with a few values before a fit does not make every later row an anomaly."""
    one, x = learner(window_size=400, retrain_interval=100), motor(1, 330)[0]
    one.step(x[: 150 - rows, :2], ("a", "b"))
    one.step(x[150 - rows : 150], NAMES)
    assert float(np.mean(one.step(x[150:], NAMES).ratio > 1.0)) < 0.03


def test_a_metric_may_be_called_like_a_feature() -> None:
    """A metric with the name that another's feature has is still a metric of its own."""
    one, x = learner(lags=(1,)), motor(1, 100)[0]
    one.step(x[:, :1], ("a",))
    one.step(x[:, [0, 2]], ("a", "a_lag_1"))
    window, _, _ = one.window.rows()
    np.testing.assert_array_equal(window[-100:, 1], x[:, 2])
    np.testing.assert_array_equal(window[-99:, 2], x[:-1, 0])
    assert one.step(np.array([[5.0, 900.0]]), ("a", "a_lag_1")).ratio[0] > 1.0


# -- a trainer that takes its time


def test_scoring_goes_on_while_a_fit_is_under_way() -> None:
    """Without a handover the old model scores until the new one is there, and the status says so."""
    trainer, x = HeldTrainer(), motor(1, 300)[0]
    one = learner(trainer, handover=None)
    assert one.waits(50)
    assert not one.waits(49)
    one.step(x[:50], NAMES)
    assert one.status == "ready"
    one.step(x[50:89], NAMES)
    assert one.status == "ready"
    one.step(x[89:90], NAMES)
    assert (one.status, len(trainer.tickets)) == ("retraining", 2)
    judged = one.step(x[90:200], NAMES)
    assert set(judged.version.tolist()) == {1}
    assert np.isfinite(judged.ratio).all()
    assert not one.waits(1000)
    assert (one.status, len(trainer.tickets)) == ("retraining", 2)
    trainer.tickets[1].finish()
    assert set(one.step(x[200:210], NAMES).version.tolist()) == {2}


def test_a_fit_that_fails_keeps_the_model() -> None:
    """A refit that fails leaves the old model in use, says why, and is tried again after the interval."""
    trainer, x = HeldTrainer(), motor(1, 300)[0]
    one = learner(trainer, handover=None)
    one.step(x[:90], NAMES)
    trainer.tickets[1].fail("no such luck")
    assert set(one.step(x[90:100], NAMES).version.tolist()) == {1}
    assert (one.error, one.failures, one.status, one.version) == ("no such luck", 1, "ready", 1)
    one.step(x[100:129], NAMES)
    assert len(trainer.tickets) == 2
    one.step(x[129:131], NAMES)
    assert len(trainer.tickets) == 3
    trainer.tickets[2].finish()
    one.step(x[131:140], NAMES)
    assert (one.error, one.failures, one.version) == (None, 0, 2)


def test_a_first_fit_that_fails_is_tried_ever_later() -> None:
    """At cold start the distance to the next try doubles; rows say how many are missing until then."""
    trainer = FailingTrainer()
    one = learner(trainer, window_size=1000)
    judged = one.step(motor(1, 250)[0], NAMES)
    assert trainer.rows == [50, 60, 80, 120, 200]
    assert (one.status, one.version, one.error) == ("collecting", 0, "this backend takes no rows today")
    assert judged.until_ready[[49, 50, 59, 60]].tolist() == [0, 9, 0, 19]
    assert np.isnan(judged.ratio).all()


def test_a_fit_under_way_is_asked_for_again_after_a_load() -> None:
    """What was being fitted at the time of a dump is fitted after the load, from the same rows."""
    trainer, again, x = HeldTrainer(), HeldTrainer(), motor(1, 200)[0]
    one, two = learner(trainer, handover=None), learner(again, handover=None)
    one.step(x[:95], NAMES)
    two.load(one.dump())
    assert (two.status, len(again.tickets)) == ("retraining", 1)
    np.testing.assert_array_equal(again.tickets[0].job.x, trainer.tickets[1].job.x)
    np.testing.assert_array_equal(again.tickets[0].job.flagged, trainer.tickets[1].job.flagged)
    assert again.tickets[0].job.names == NAMES


def test_a_metric_that_appears_during_a_fit() -> None:
    """A fit that was asked for before a metric appeared is taken, and knows its own metrics only."""
    trainer, x = HeldTrainer(), motor(1, 200)[0]
    one = learner(trainer, handover=None)
    one.step(x[:95, 1:], ("b", "c"))
    one.step(x[95:100], NAMES)
    trainer.tickets[1].finish()
    judged = one.step(x[100:110], NAMES)
    assert set(judged.version.tolist()) == {2}
    assert np.isfinite(judged.ratio).all()
    assert one.fitted is not None
    assert one.fitted.names == ("b", "c")


# -- models that come and go


def test_a_shift_for_good_is_learned() -> None:
    """Models fitted to a new level are refused at first; a level that stays is learned in the end."""
    one, x = learner(), motor(1, 700)[0]
    x[100:] += 60.0
    judged = one.step(x, NAMES)
    assert (judged.ratio[100:150] > 1.0).all()
    assert np.mean(judged.ratio[-200:] > 1.0) < 0.05
    assert one.version > 1


def test_slow_drift_is_followed() -> None:
    """A level that moves by less than its noise in each interval is followed without alarms."""
    one, x = learner(), motor(1, 800)[0]
    x += 0.004 * np.arange(800)[:, None]
    assert np.mean(one.step(x, NAMES).ratio[50:] > 1.0) < 0.05


def test_roll_back_uses_the_model_before() -> None:
    """The model before the one in use scores again, under a version of its own; before that there is none."""
    one, x = learner(retrain_interval=60), motor(1, 200)[0]
    assert not one.roll_back()
    one.step(x[:60], NAMES)
    assert not one.roll_back()
    held = learner(retrain_interval=60)
    held.load(one.dump())
    one.step(x[60:115], NAMES)
    assert one.version == 2
    assert one.roll_back()
    judged = one.step(x[115:120], NAMES)
    assert set(judged.version.tolist()) == {3}
    assert held.fitted is not None
    np.testing.assert_array_equal(judged.ratio, held.fitted.score(x[115:120]).ratio)
    after = learner(retrain_interval=60)
    after.load(one.dump())
    assert after.roll_back()


def test_a_model_from_outside_is_taken() -> None:
    """A model that was made elsewhere scores from the next row on, also before the first row; its metrics are
    found by name. One of other features is refused."""
    made, x = learner(), motor(1, 80)[0]
    made.step(x[:60], NAMES)
    assert made.fitted is not None
    one = learner()
    one.take(made.fitted)
    judged = one.step(x[60:][:, ::-1], NAMES[::-1])
    np.testing.assert_array_equal(judged.ratio, made.step(x[60:], NAMES).ratio)
    assert set(judged.version.tolist()) == {1}
    with pytest.raises(ModelError, match="the model was made with rolling"):
        learner(rolling=(3,)).take(made.fitted)


def test_metrics_have_a_limit() -> None:
    """More metrics than a detector takes are a ModelError, and leave it as it was."""
    one = learner()
    one.step(np.ones((1, 2)), ("a", "b"))
    with pytest.raises(ModelError, match="256 metrics at most, not 257"):
        one.step(np.ones((1, 255)), tuple(f"m{i}" for i in range(255)))
    assert (one.names, one.processed) == (("a", "b"), 1)
