"""The models of ranks, histograms, projections, distances and kernels beside PyOD's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from extras import needs

from plexus_detect.errors import FitError
from plexus_detect.learn.scale import Scale, robust_scale
from plexus_detect.training.backends.copod import fit_copod
from plexus_detect.training.backends.ecod import fit_ecod
from plexus_detect.training.backends.hbos import fit_hbos
from plexus_detect.training.backends.loda import fit_loda
from plexus_detect.training.backends.mcd import fit_mcd
from plexus_detect.training.backends.svm import fit_one_class_svm

pytestmark = needs("pyod")

FIT = {
    "ecod": fit_ecod,
    "copod": fit_copod,
    "hbos": fit_hbos,
    "loda": fit_loda,
    "mcd": fit_mcd,
    "one_class_svm": fit_one_class_svm,
}
BACKENDS = pytest.mark.parametrize("backend", FIT)
SUMS = pytest.mark.parametrize("backend", ["ecod", "copod", "hbos"])
CONTAMINATION, SEED = 0.05, 7


def rows(n: int = 150, f: int = 3, seed: int = 0) -> np.ndarray:
    """Correlated columns of unlike units; the first is skewed."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, f)) + 0.8 * rng.normal(size=(n, 1))
    x[:, 0] = np.exp(x[:, 0] / 2.0)
    return x * 10.0 ** np.arange(f) + 20.0


TRAIN = rows()
# Rows like those of the training, some of them, and some far out.
PROBE = np.concatenate([rows(40, seed=1), TRAIN[:20], rows(15, seed=2) * 3.0, -rows(15, seed=3)])
G = np.random.default_rng(3).normal(size=(60, 3))
ODD = {
    "constant column": np.column_stack([G[:, 0], np.full(60, 7.1), G[:, 1]]),
    "all constant": np.full((20, 2), 1e12 + 0.1),
    "duplicate rows": np.repeat(G[:6], 10, axis=0),
    "duplicate columns": G[:, [0, 0, 1]],
    "sum of columns": np.column_stack([G, G.sum(axis=1)]),
    "ten numbers": np.arange(10.0)[:, None],
    "large": G * 1e12,
    "large offset": G + 1e12,
    "small": G * 1e-12,
    "mixed": G * np.array([1e12, 1.0, 1e-12]),
    "rare switch": np.where(np.random.default_rng(4).random((60, 2)) < 0.05, 50.0, 1.0),
    "fifty columns": np.random.default_rng(5).normal(size=(80, 50)),
    "eight rows of five": np.random.default_rng(6).normal(size=(8, 5)),
}


@pytest.fixture(scope="module")
def fitted() -> dict:
    """One model a backend, fitted to TRAIN."""
    return {name: fit(TRAIN, CONTAMINATION, SEED) for name, fit in FIT.items()}


@pytest.fixture(scope="module")
def pyod_says() -> Callable:
    """PyOD's decision_function for each row in a call of its own, of an estimator fitted to scaled rows.

    Its compiled loops run as the Python that they were compiled from: compiling takes seconds.
    """
    from pyod.models import hbos, loda, mcd, ocsvm
    from pyod.models.copod import COPOD
    from pyod.models.ecod import ECOD
    from pyod.utils import stat_models

    def estimator(backend: str, f: int):
        if backend == "one_class_svm":
            return ocsvm.OCSVM(gamma=1.0 / f, nu=CONTAMINATION)
        return {
            "ecod": ECOD,
            "copod": COPOD,
            "hbos": lambda: hbos.HBOS(n_bins=10),
            "loda": lambda: loda.LODA(n_bins=10, n_random_cuts=100, random_state=SEED),
            "mcd": lambda: mcd.MCD(random_state=SEED),
        }[backend]()

    def says(backend: str, train: np.ndarray, probe: np.ndarray) -> np.ndarray:
        scaled = {"ecod": no_scale, "copod": no_scale, "hbos": zero_to_one}.get(backend, robust_scale)(train)
        model = estimator(backend, train.shape[1]).fit(scaled.of_rows(train))
        return np.concatenate([model.decision_function(scaled.of_rows(row[None])) for row in probe])

    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (stat_models, "ecdf_terminate_equals_inplace"),
            (hbos, "_calculate_outlier_scores"),
        ):
            compiled = getattr(module, name)
            patch.setattr(module, name, getattr(compiled, "py_func", compiled))
        yield says


def no_scale(x: np.ndarray) -> Scale:
    """Columns as they are."""
    return Scale(np.zeros(x.shape[1]), np.ones(x.shape[1]))


def zero_to_one(x: np.ndarray) -> Scale:
    """Columns from 0 to 1."""
    return Scale(x.min(axis=0), np.ptp(x, axis=0))


@BACKENDS
def test_raw_is_pyods_score_of_the_row_alone(backend, fitted, pyod_says) -> None:
    """Usual rows, training rows and far ones score as PyOD scores each of them in a call of its own."""
    want = pyod_says(backend, TRAIN, PROBE)
    assert np.abs(fitted[backend].raw(PROBE) - want).max() <= 1e-9 * max(1.0, np.abs(want).max())
    assert len(np.unique(want)) > len(want) // 3


@BACKENDS
def test_raw_is_pyods_on_one_column(backend, pyod_says) -> None:
    """A single column agrees too."""
    train, probe = TRAIN[:40, 1:2], PROBE[:, 1:2]
    np.testing.assert_allclose(
        FIT[backend](train, CONTAMINATION, SEED).raw(probe),
        pyod_says(backend, train, probe),
        rtol=1e-9,
        atol=1e-9,
    )


@SUMS
def test_discrete_columns_are_pyods_too(backend, pyod_says) -> None:
    """Ties and values on the edges of bins agree with PyOD."""
    train = np.random.default_rng(8).integers(0, 7, (50, 2)).astype(float)
    train[:, 1] **= 2
    probe = np.array([[0.0, 0.0], [6.0, 36.0], [3.0, 9.0], [-1.0, 40.0], [2.5, 16.0], [-9.0, 99.0]])
    want = pyod_says(backend, train, probe)
    np.testing.assert_allclose(FIT[backend](train, 0.1, 1).raw(probe), want, rtol=1e-9, atol=1e-9)


@BACKENDS
@pytest.mark.parametrize("odd", ODD)
def test_odd_rows_can_be_fitted(backend, odd) -> None:
    """Whatever finite rows a stream has, their model gives finite scores, the same alone as in a batch."""
    x = ODD[odd]
    for contamination in (0.001, 0.5) if backend == "one_class_svm" else (0.1,):
        model = FIT[backend](x, contamination, SEED)
        probe = np.concatenate([x[:12], 1.5 * x[:3] + 1.0, x[:3] - 1e9])
        raw = model.raw(probe)
        assert np.isfinite(raw).all()
        assert np.array_equal(raw, [model.raw(row[None])[0] for row in probe])


@SUMS
def test_contributions_add_up(backend, fitted) -> None:
    """The columns' parts are never negative and add up to the score, for hbos less one constant."""
    model = fitted[backend]
    parts = model.contributions(PROBE)
    assert parts.shape == PROBE.shape
    assert (parts >= 0.0).all()
    rest = model.raw(PROBE) - parts.sum(axis=1)
    assert np.ptp(rest) < 1e-12
    if backend != "hbos":
        assert abs(rest[0]) < 1e-12


@SUMS
def test_the_odd_column_is_named(backend, fitted) -> None:
    """A row that is usual but for one column has most of its score from that column."""
    row = np.median(TRAIN, axis=0)[None].copy()
    row[0, 1] = TRAIN[:, 1].max() + 50.0
    assert fitted[backend].contributions(row)[0].argmax() == 1


def test_a_value_far_out_decides_the_side_in_copod() -> None:
    """A low value counts fully in a column that is skewed to high ones: the row is part of the skewness."""
    model = fit_copod(TRAIN, 0.1, 1)
    low = np.array([[-1e4, *np.median(TRAIN[:, 1:], axis=0)]])
    assert model.contributions(low)[0, 0] == pytest.approx(np.log(len(TRAIN) + 1))


def test_hbos_knows_no_unit() -> None:
    """Columns in another unit score alike, although PyOD adds a constant to a density."""
    units = np.array([2.0**40, 1.0, 2.0**-40])
    a, b = fit_hbos(TRAIN, 0.1, 1), fit_hbos(TRAIN * units, 0.1, 1)
    assert np.array_equal(a.raw(PROBE), b.raw(PROBE * units))


@pytest.mark.parametrize("backend", ["loda", "mcd", "one_class_svm"])
def test_no_column_leads_by_its_unit(backend) -> None:
    """Robust scaling: a model of columns in other units gives the same scores to rounding."""
    units = np.array([2.0**40, 1.0, 2.0**-40])
    a, b = (FIT[backend](TRAIN * u, CONTAMINATION, SEED).raw(PROBE * u) for u in (np.ones(3), units))
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_mcd_sees_a_twin_break() -> None:
    """Two columns that always were one: a row in which they differ is far out, though each value is usual."""
    model = fit_mcd(ODD["duplicate columns"], 0.1, SEED)
    usual, broken = model.raw(np.array([[0.5, 0.5, 0.0], [0.5, -0.5, 0.0]]))
    assert broken > 1000.0 * max(usual, 1.0)


def test_mcd_says_what_it_needs() -> None:
    """Too few rows for a covariance: FitError with one sentence."""
    with pytest.raises(FitError, match="mcd needs at least 7 rows for 5 columns and has 6"):
        fit_mcd(rows(6, 5), 0.1, 1)


def test_the_svm_bounds_its_share() -> None:
    """A high contamination does not let the boundary cut into what is normal."""
    outside = fit_one_class_svm(TRAIN, 0.5, 1).raw(TRAIN) > 1e-3
    assert outside.mean() <= 0.1


def test_robust_scale_falls_back() -> None:
    """Interquartile range; where it is 0 the deviation; where that is 0 one, and the value as centre."""
    x = np.column_stack([np.arange(9.0), np.r_[np.zeros(8), 9.0], np.full(9, 0.1)])
    scale = robust_scale(x)
    assert scale.centre.tolist() == [4.0, 0.0, 0.1]
    np.testing.assert_allclose(scale.unit, [4.0, np.std(x[:, 1]), 1.0])
