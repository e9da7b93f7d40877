"""learn.gate: which model may take the place of the one in use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from learn_data import HeldTrainer, RememberingTrainer, job, motor
from learn_data import learner as learner_of

from plexus_detect.learn.fitted import Fitted
from plexus_detect.learn.gate import refusal
from plexus_detect.learn.job import Fit
from plexus_detect.learn.stream import PATIENCE, Learner
from plexus_detect.learn.tail import Tail
from plexus_detect.series import F64
from plexus_detect.training.fit import fit

NAMES = ("a", "b", "c")
TRAINER = RememberingTrainer()


@pytest.fixture(scope="module")
def usual() -> Fit:
    """A model of usual rows."""
    return fit(job("ecod", motor(1, 300)[0]))


def held_of(rows: F64, made: Fit) -> F64:
    """The rows that a model has not seen."""
    return rows[made.held]


def test_a_comparable_model_is_taken(usual: Fit) -> None:
    """A model of other rows of the same kind may take over."""
    rows = motor(2, 300)[0]
    made = fit(job("ecod", rows))
    assert refusal(usual.fitted, made.fitted, held_of(rows, made)) is None


def test_a_model_of_a_fault_is_refused(usual: Fit) -> None:
    """A model that was fitted to a fault calls it normal: it is refused, with how much it differs."""
    rows = motor(2, 300)[0]
    rows[150:, 1] += 40.0
    made = fit(job("ecod", rows))
    assert "held-back rows differently" in str(refusal(usual.fitted, made.fitted, held_of(rows, made)))


def test_models_are_compared_where_they_are_fitted(usual: Fit) -> None:
    """A fit that knows the model it is to follow says itself whether it may."""
    rows = motor(2, 300)[0]
    assert fit(replace(job("ecod", rows), old=usual.fitted)).refused is None
    rows[150:, 1] += 40.0
    made = fit(replace(job("ecod", rows), old=usual.fitted))
    assert made.refused == refusal(usual.fitted, made.fitted, held_of(rows, made)) is not None


@pytest.mark.parametrize("backend", ["ecod", "half_space_trees"])
def test_the_model_in_use_goes_to_where_the_next_is_fitted(backend: str) -> None:
    """A retrain knows the model in use, unless that goes on learning: they are then compared at the swap."""
    held = HeldTrainer()
    one = learner_of(held, handover=None, backend=backend)
    one.step(motor(1, 95)[0], NAMES)
    assert one.fitted is not None
    assert held.tickets[0].job.old is None
    assert held.tickets[1].job.old is (None if one.fitted.online else one.fitted)


def blind(model: Fitted) -> Fitted:
    """This model with its lines so far out that nothing is beyond them."""
    return replace(model, tail=Tail(0.0, 1e9), support_tail=Tail(0.0, 1e9))


def test_a_blind_model_is_refused(usual: Fit) -> None:
    """A model that finds nothing agrees on calm rows; the probes show it."""
    rows = motor(2, 300)[0]
    made = fit(job("ecod", rows))
    said = str(refusal(usual.fitted, blind(made.fitted), held_of(rows, made)))
    assert "it finds 0% of the probes" in said


def test_models_of_other_metrics_are_not_compared(usual: Fit) -> None:
    """A model with a metric more is taken: there is nothing to hold it against."""
    rows = np.c_[motor(2, 300)[0], np.arange(300.0)]
    made = fit(job("ecod", rows, names=(*NAMES, "d")))
    assert refusal(usual.fitted, made.fitted, held_of(rows, made)) is None
    assert refusal(usual.fitted, blind(usual.fitted), np.zeros((0, 3))) is None


def test_patience_ends() -> None:
    """While a fault fills the window models are refused; after PATIENCE of them the next is taken."""
    one: Learner = learner_of(TRAINER, window_size=200, min_samples=160, retrain_interval=40)
    rows = motor(1, 160 + 40 * (PATIENCE + 3))[0]
    rows[160:, 1] += 40.0
    versions, said = [], []
    for i in range(0, len(rows), 40):
        one.step(rows[i : i + 40], NAMES)
        versions.append(one.version)
        said.append(one.error)
    refused = [text for text in said if text is not None]
    assert len(refused) == PATIENCE
    assert all("was not taken" in text for text in refused)
    assert versions[-1] >= 2
    assert one.step(rows[-20:], NAMES).ratio.max() < 2.0
