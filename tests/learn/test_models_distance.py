"""The models that measure distances: knn, local_outlier_factor, cblof and the autoencoder."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from extras import needs

from plexus_detect.errors import FitError
from plexus_detect.learn.models.neighbours import nearest, scaled
from plexus_detect.training.backends.autoencoder import estimator, fit_autoencoder
from plexus_detect.training.backends.cblof import fit_cblof
from plexus_detect.training.backends.neighbours import (
    REFERENCE_MAX,
    evenly,
    fit_knn,
    fit_local_outlier_factor,
)

pytestmark = needs("pyod", "torch")

FITS: dict[str, Any] = {
    "knn": fit_knn,
    "local_outlier_factor": fit_local_outlier_factor,
    "cblof": fit_cblof,
    "autoencoder": fit_autoencoder,
}
QUICK = sorted(FITS.keys() - {"autoencoder"})


def rows(seed: int, n: int, spread: float = 1.0) -> np.ndarray:
    """Temperature, current and pressure of a machine in one of three states, (n, 3)."""
    rng = np.random.default_rng(seed)
    state = rng.choice(3, n, p=[0.75, 0.22, 0.03])
    noise = rng.normal(size=(n, 3)) * [2.0, 0.05, 300.0] * spread
    return np.array([[72.0, 1.0, 101_300.0], [60.0, 0.4, 99_000.0], [85.0, 0.1, 95_000.0]])[state] + noise


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """Every model, fitted once to the same rows."""
    return {name: fit(rows(1, 400), 0.1, 42) for name, fit in FITS.items()}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyOD's row-wise distance as it is written, without the seconds that compiling it takes."""
    from pyod.utils import stat_models

    name = "_pairwise_distances_no_broadcast_helper"
    monkeypatch.setattr(stat_models, name, getattr(stat_models, name).py_func)


def test_knn_is_pyods(fitted: dict[str, Any]) -> None:
    """The distance to the 5th neighbour is PyOD's, for rows near and far."""
    from pyod.models.knn import KNN

    model, new = fitted["knn"], rows(2, 2000, 3.0)
    theirs = KNN(0.1, 5, "largest", n_jobs=1).fit(scaled(rows(1, 400), model.scale))
    np.testing.assert_allclose(model.raw(new), theirs.decision_function(scaled(new, model.scale)), rtol=1e-9)


def test_local_outlier_factor_is_pyods(fitted: dict[str, Any]) -> None:
    """The factor is PyOD's for new rows, among 20 neighbours."""
    from pyod.models.lof import LOF

    model, new = fitted["local_outlier_factor"], rows(2, 2000, 3.0)
    theirs = LOF(20, n_jobs=1, novelty=True).fit(scaled(rows(1, 400), model.scale))
    np.testing.assert_allclose(model.raw(new), theirs.decision_function(scaled(new, model.scale)), rtol=1e-9)


@pytest.mark.usefixtures("uncompiled")
def test_cblof_is_pyods(fitted: dict[str, Any]) -> None:
    """The distance to the large clusters is PyOD's for the same k-means, small clusters included."""
    from pyod.models.cblof import CBLOF
    from sklearn.cluster import KMeans

    model, new = fitted["cblof"], rows(2, 2000, 3.0)
    theirs = CBLOF(8, 0.1, KMeans(8, n_init=3, random_state=42)).fit(scaled(rows(1, 400), model.scale))
    assert not model.large.all()
    np.testing.assert_allclose(model.raw(new), theirs.decision_function(scaled(new, model.scale)), rtol=1e-9)


@pytest.mark.usefixtures("uncompiled")
def test_the_autoencoder_is_pyods(fitted: dict[str, Any]) -> None:
    """The reconstruction error is PyOD's, to the digits of the 32 bits that it computes with."""
    from pyod.models.auto_encoder import AutoEncoder

    model, new = fitted["autoencoder"], rows(2, 2000, 3.0)
    theirs = estimator((400, 3), 0.1, 42).fit(model.scale.of_rows(rows(1, 400)))
    theirs.evaluating_forward = lambda batch: AutoEncoder.evaluating_forward(theirs, batch)
    scores = theirs.decision_function(model.scale.of_rows(new))
    np.testing.assert_allclose(model.raw(new), scores, rtol=1e-5, atol=5e-6)


def test_the_autoencoder_finds_a_broken_correlation() -> None:
    """Two columns that always moved together and now do not, each within its range, score far above the rest;
    and what PyOD seeds for the whole process is left as it was."""
    rng = np.random.default_rng(5)
    together = rng.normal(size=(300, 1)) + rng.normal(size=(300, 2)) * 0.05
    random.seed(1)
    expected = random.Random(1).random()
    model = fit_autoencoder(together[:200], 0.1, 42)
    assert random.random() == expected
    broken = np.array([[1.0, -1.0], [-1.2, 1.1]])
    assert model.raw(broken).min() > 3.0 * model.raw(together[200:]).max()


ODD = {
    "constant": np.full((30, 2), 7.5),
    "one constant": np.stack([np.full(40, 3.0), np.arange(40.0) % 7], axis=1),
    "duplicates": np.repeat(np.random.default_rng(1).normal(size=(4, 3)), 25, axis=0),
    "ten rows": np.arange(10.0)[:, None],
    "two rows": np.array([[1.0], [2.0]]),
    "large": rows(4, 60) * 1e12,
    "small": rows(4, 60) * 1e-12,
    "wide": np.random.default_rng(2).normal(size=(60, 50)),
}


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("odd", ODD)
def test_odd_rows_give_a_model(name: str, odd: str) -> None:
    """Whatever the rows are like, the model scores them finitely, and a row far outside above all of them."""
    x = ODD[odd]
    raw = FITS[name](x, 0.1, 42).raw(np.vstack([x, x[:1] + 100.0 * (np.ptp(x, axis=0) + np.abs(x[0]))]))
    assert np.isfinite(raw).all()
    assert raw[-1] > raw[:-1].max()


@pytest.mark.parametrize("odd", ["one constant", "ten rows"])
def test_the_autoencoder_takes_odd_rows(odd: str) -> None:
    """A constant column and ten rows are learned, and a row far outside scores above all."""
    x = ODD[odd]
    raw = fit_autoencoder(x, 0.1, 42).raw(np.vstack([x, x[:1] + 100.0 * (np.ptp(x, axis=0) + np.abs(x[0]))]))
    assert np.isfinite(raw).all()
    assert raw[-1] > raw[:-1].max()


@pytest.mark.parametrize("name", FITS)
def test_an_infinite_spread_is_refused(name: str) -> None:
    """Numbers whose difference no float holds give a FitError that says so."""
    with pytest.raises(FitError, match="too large to be compared"):
        FITS[name](np.array([[-1.7e308], [1.7e308], [0.0], [1e308]]), 0.1, 42)


def test_clusters_of_one_size_are_all_large() -> None:
    """Where PyOD finds no small cluster and refuses, distances are to the nearest centre of all."""
    x = np.repeat(np.arange(8.0), 20)[:, None] * 10.0 + np.tile(np.linspace(-1.0, 1.0, 20), 8)[:, None]
    model = fit_cblof(x, 0.1, 42)
    assert model.large.all()
    assert model.raw(np.array([[25.0]]))[0] > 3.0 * np.median(model.raw(x))


def test_a_long_window_is_compared_with_a_part() -> None:
    """Of more rows than the limit evenly spaced ones are kept, the first and the last among them."""
    x = np.arange(5000.0)[:, None]
    kept = evenly(x, REFERENCE_MAX)
    assert len(kept) == REFERENCE_MAX
    assert (kept[0, 0], kept[-1, 0]) == (0.0, 4999.0)
    assert set(np.diff(kept[:, 0])) == {2.0, 3.0}


def test_the_first_of_equally_near_rows_are_taken() -> None:
    """Ties are broken by place, not by the processor's way of sorting."""
    away = np.array([[3.0, 1.0, 1.0, 1.0, 0.5], [4.0, 3.0, 2.0, 1.0, 0.0]])
    assert nearest(away, 3).tolist() == [[1, 2, 4], [2, 3, 4]]
