"""The models that are trees: isolation_forest, half_space_trees, and suod, of which a forest is a part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from extras import needs

from plexus_detect.errors import FitError
from plexus_detect.learn.models.halfspace import HalfSpaceTrees
from plexus_detect.learn.scale import Scale
from plexus_detect.training.backends.forest import fit_isolation_forest
from plexus_detect.training.backends.halfspace import DEPTH, TREES, WINDOW, fit_half_space_trees
from plexus_detect.training.backends.suod import fit_suod

pytestmark = needs("pyod", "river")

FITS: dict[str, Any] = {
    "isolation_forest": fit_isolation_forest,
    "half_space_trees": fit_half_space_trees,
    "suod": fit_suod,
}


def rows(seed: int, n: int, spread: float = 1.0) -> np.ndarray:
    """Temperature, current and pressure of a machine, (n, 3), in steps as sensors have them."""
    noise = np.random.default_rng(seed).normal(size=(n, 3)) * spread
    return np.round(noise, 2) * [2.0, 0.05, 300.0] + [72.0, 1.0, 101_300.0]


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """Every model, fitted once to the same rows."""
    return {name: fit(rows(1, 600), 0.1, 42) for name, fit in FITS.items()}


def test_the_forest_is_pyods(fitted: dict[str, Any]) -> None:
    """The score is PyOD's to the last bit, for thousands of rows, on the edges of cuts too."""
    from pyod.models.iforest import IForest

    model, new = fitted["isolation_forest"], np.vstack([rows(2, 4000, 2.0), rows(1, 600)])
    theirs = IForest(100, contamination=0.1, random_state=42)
    theirs.fit(model.prepared(rows(1, 600), model.scale))
    assert np.array_equal(model.raw(new), theirs.decision_function(model.prepared(new, model.scale)))
    on_edges = np.where(np.isfinite(model.threshold), model.threshold, 0.0).reshape(-1, 3)[::4]
    bare = replace(model, scale=Scale(np.zeros(3), np.ones(3)))
    assert np.array_equal(bare.raw(on_edges.astype(np.float64)), theirs.decision_function(on_edges))


def test_a_large_offset_leaves_the_digits() -> None:
    """A column around 1e9 that varies by 1 is cut as one around 0: 32 bits could not tell its values."""
    x = np.random.default_rng(3).normal(size=(300, 1))
    near, far = fit_isolation_forest(x, 0.1, 42), fit_isolation_forest(x + 1e9, 0.1, 42)
    new = np.array([[0.0], [6.0]])
    np.testing.assert_allclose(near.raw(new), far.raw(new + 1e9), atol=0.01)


def their_trees(model: HalfSpaceTrees, x: np.ndarray) -> Any:
    """river's own model of the same rows."""
    from river.anomaly import HalfSpaceTrees as River

    theirs = River(n_trees=TREES, height=DEPTH, window_size=WINDOW, seed=42)
    for row in model.prepared(x, model.low, model.span).tolist():
        theirs.learn_one(dict(enumerate(row)))
    return theirs


def test_half_space_trees_are_rivers_and_go_on_learning(fitted: dict[str, Any]) -> None:
    """Scores are river's, also after every further row and across the ends of windows, learned one by one or
    in batches; and a model made of arrays goes on exactly."""
    x, new = rows(1, 600), rows(2, 560, 2.0)
    mine = HalfSpaceTrees.of(fitted["half_space_trees"].arrays())
    theirs, batch = their_trees(mine, x), HalfSpaceTrees.of(mine.arrays())
    before = mine.raw(new)
    for i, row in enumerate(mine.prepared(new, mine.low, mine.span).tolist()):
        point = dict(enumerate(row))
        assert mine.raw(new[i : i + 1])[0] == pytest.approx(theirs.score_one(point), abs=1e-12)
        mine.update(new[i : i + 1])
        theirs.learn_one(point)
        if i == 300:
            mine = HalfSpaceTrees.of(mine.arrays())
    assert np.array_equal(batch.raw(new), before)
    batch.update(new)
    assert np.array_equal(batch.raw(new), mine.raw(new))
    assert all(np.array_equal(array, batch.arrays()[key]) for key, array in mine.arrays().items())
    assert not np.array_equal(mine.raw(new), before)


def test_half_space_trees_forget(fitted: dict[str, Any]) -> None:
    """What was odd is usual once a window of it has been learned; arrays taken before do not change."""
    model = HalfSpaceTrees.of(fitted["half_space_trees"].arrays())
    moved = rows(2, 2 * WINDOW) + np.array([4.0, 0.1, 600.0])
    saved, odd = model.arrays(), model.raw(moved).mean()
    model.update(moved)
    assert model.raw(moved).mean() < odd - 0.1
    assert HalfSpaceTrees.of(saved).raw(moved).mean() == odd


def test_suod_is_the_mean_of_its_parts(fitted: dict[str, Any]) -> None:
    """On the training rows the standardised parts average to a mean of 0, and each part counts alike."""
    from pyod.utils.utility import standardizer

    model, x = fitted["suod"], rows(1, 600)
    parts = np.stack([part.raw(x) for part in (model.forest, model.hbos, model.copod)], axis=1)
    np.testing.assert_allclose(model.raw(x), standardizer(parts).mean(axis=1), atol=1e-9)


ODD = {
    "constant": np.full((30, 2), 7.5),
    "one constant": np.stack([np.full(40, 3.0), np.arange(40.0) % 7], axis=1),
    "duplicates": np.repeat(np.random.default_rng(1).normal(size=(4, 3)), 25, axis=0),
    "ten rows": np.arange(10.0)[:, None],
    "scales": np.random.default_rng(4).normal(size=(60, 3)) * [1e12, 1.0, 1e-12],
    "wide": np.random.default_rng(2).normal(size=(60, 50)),
}
CASES = [(name, odd) for name in ("isolation_forest", "half_space_trees") for odd in ODD]


@pytest.mark.parametrize(("name", "odd"), [*CASES, ("suod", "one constant"), ("suod", "ten rows")])
def test_odd_rows_give_a_model(name: str, odd: str) -> None:
    """Whatever the rows are like, all scores are finite, and a row far outside is not below the usual."""
    x = ODD[odd]
    raw = FITS[name](x, 0.1, 42).raw(np.vstack([x, x[:1] + 100.0 * (np.ptp(x, axis=0) + np.abs(x[0]))]))
    assert np.isfinite(raw).all()
    assert raw[-1] >= np.median(raw[:-1])


@pytest.mark.parametrize("name", FITS)
def test_an_infinite_spread_is_refused(name: str) -> None:
    """Numbers whose difference no float holds give a FitError that says so."""
    with pytest.raises(FitError, match="too large to be compared"):
        FITS[name](np.array([[-1.7e308], [1.7e308], [0.0], [1e308]]), 0.1, 42)
