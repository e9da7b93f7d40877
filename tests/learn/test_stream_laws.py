"""learn.stream: what a detector says never depends on how its rows came."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learn_data import RememberingTrainer, joined, motor
from learn_data import learner as learner_of
from profiles import examples

from plexus_detect.learn.stream import Judged, Learner
from plexus_detect.series import F64

BACKENDS = ("ecod", "half_space_trees")
NAMES = ("a", "b", "c")
FEATURED = {"rolling": (3, 7), "lags": (1, 4)}
SETTINGS: tuple[dict[str, object], ...] = (
    {"handover": 0},
    {"handover": 7},
    {"handover": 55},
    {"handover": None},
    {"handover": 7, **FEATURED},
)


TRAINER = RememberingTrainer()


def learner(**params: object) -> Learner:
    """A detector with the trainer of all tests here."""
    return learner_of(TRAINER, **params)


def rows() -> F64:
    """Motor rows with a fault, a gap in one metric, and rows of nothing at the edges of what is asked."""
    x, _ = motor(1, 170)
    x[120, 1] += 40.0
    x[60:66, 0] = np.nan
    x[[0, 49, 50, 51, 89, 90, 91, 130]] = np.nan
    return x


WHOLE: dict[str, dict[str, F64]] = {}


def at_once(backend: str, setting: dict[str, object]) -> dict[str, F64]:
    """What the whole stream in one step gives; kept, as every example compares with it."""
    key = f"{backend} {setting}"
    if key not in WHOLE:
        WHOLE[key] = joined([learner(backend=backend, **setting).step(rows(), NAMES)])
    return WHOLE[key]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@examples(40)
@given(cuts=st.lists(st.integers(0, 170), max_size=6))
def test_cuts_change_nothing(backend: str, setting: dict[str, object], cuts: list[int]) -> None:
    """Stepping a and then b gives the bits of stepping both at once, wherever the cut is."""
    one, x = learner(backend=backend, **setting), rows()
    bounds = [0, *sorted(cuts), len(x)]
    parts = [one.step(x[i:j], NAMES) for i, j in pairwise(bounds)]
    for name, column in joined(parts).items():
        np.testing.assert_array_equal(column, at_once(backend, setting)[name], name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_row_by_row_is_the_same(backend: str) -> None:
    """Rows that come one at a time get the bits of a batch."""
    one = learner(backend=backend, handover=7)
    parts = [one.step(row[None, :], NAMES) for row in rows()]
    for name, column in joined(parts).items():
        np.testing.assert_array_equal(column, at_once(backend, {"handover": 7})[name], name)


# Cold, with the first fit asked for, just taken, ready, with a refit under way, after it, at the end.
@pytest.mark.parametrize("at", [0, 30, 55, 60, 80, 100, 102, 150, 170])
@pytest.mark.parametrize(
    ("backend", "features"), [("ecod", {}), ("ecod", FEATURED), ("half_space_trees", {})]
)
def test_dump_and_load_change_nothing(backend: str, features: dict[str, object], at: int) -> None:
    """A detector that is dumped and loaded goes on with the same bits, a fit that was under way included."""
    setting, x = {"handover": 7, **features}, rows()
    before, after = (learner(backend=backend, **setting) for _ in range(2))
    first = before.step(x[:at], NAMES)
    after.load({name: array.copy() for name, array in before.dump().items()})
    assert (after.status, after.version, after.collected) == (before.status, before.version, before.collected)
    for name, column in joined([first, after.step(x[at:], NAMES)]).items():
        np.testing.assert_array_equal(column[at:], at_once(backend, setting)[name][at:], name)
    assert after.processed == len(x)


def test_a_dump_is_not_changed_by_later_rows() -> None:
    """What was dumped stays as it was while an online model goes on learning."""
    one = learner(backend="half_space_trees")
    one.step(rows()[:100], NAMES)
    dump = one.dump()
    held = {name: array.copy() for name, array in dump.items()}
    one.step(rows()[100:], NAMES)
    for name, array in dump.items():
        np.testing.assert_array_equal(array, held[name], name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_do_not_know_the_future(backend: str) -> None:
    """Whatever comes after a row, its score stays."""
    x = rows()
    y = x.copy()
    y[100:] = 1e3
    a, b = (joined([learner(backend=backend, handover=7).step(data, NAMES)]) for data in (x, y))
    for name in a:
        np.testing.assert_array_equal(a[name][:100], b[name][:100], name)


def test_features_are_of_each_feed() -> None:
    """Two feeds of one detector share model and window, but not their past: lags never reach over."""
    one = learner(lags=(1,))
    x = rows()[1:40]
    for i, row in enumerate(x):
        one.step(np.array([row, row]), NAMES, feed=0)
        one.step(row[None, :] + 1000.0 * (i > 0), NAMES, feed=1)
    window, _, _ = one.window.rows()
    np.testing.assert_array_equal(window[2, 3:], [np.nan] * 3)
    np.testing.assert_array_equal(window[5, 3:], x[0])


def test_shares_add_up() -> None:
    """Rows beyond the line have shares of the metrics that add up to 1, all others NaN."""
    one: Judged = learner().step(rows(), NAMES)
    beyond = one.ratio > 1.0
    assert beyond[120]
    np.testing.assert_allclose(one.shares[beyond].sum(axis=1), 1.0)
    assert np.isnan(one.shares[~beyond]).all()
    assert one.shares[120].argmax() == 1
