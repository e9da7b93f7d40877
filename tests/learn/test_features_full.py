"""Windows that are not full: what features say of them, what a fit makes of it, and that none is an alarm."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learn_data import learner, motor
from profiles import examples

from plexus_detect.learn.features import FeatureParams, Features
from plexus_detect.learn.job import Job
from plexus_detect.series import F64
from plexus_detect.training.fit import WINDOWS_LEAST
from plexus_detect.training.trainer import fit_job

PARAMS = FeatureParams((3, 10), (1, 4))


def made(x: F64, cuts: list[int], params: FeatureParams = PARAMS) -> F64:
    """The features of one feed's rows, cut into calls."""
    features = Features(x.shape[1], params)
    features.grow(1)
    bounds = [0, *sorted(cuts), len(x)]
    return np.concatenate([features.full(0, x[i:j]) for i, j in pairwise(bounds)])


def bare(x: F64, params: FeatureParams = PARAMS) -> F64:
    """The features without a mask."""
    features = Features(x.shape[1], params)
    features.grow(1)
    return features.step(0, x)


# --- the mask ---------------------------------------------------------------------------------------------


@examples(250)
@given(st.lists(st.integers(0, 40), max_size=6))
def test_only_windows_that_are_not_full_are_masked(cuts: list[int]) -> None:
    """NaN up to the last row before a window is full, for every statistic and column, and from there on what
    ``step`` says; raw values and lags are never masked. However the rows are cut."""
    x = motor(1, 40)[0][:, :2]
    got, plain, names = made(x, cuts), bare(x), PARAMS.names(("a", "b"))
    for column, name in enumerate(names):
        masked = int(name.rpartition("_")[2]) - 1 if "_rolling_" in name else 0
        assert np.isnan(got[:masked, column]).all(), name
        np.testing.assert_array_equal(got[masked:, column], plain[masked:, column], name)


def test_each_feed_has_its_own_beginning() -> None:
    """A second feed is masked by its own rows, and a restart goes on where it was."""
    x = motor(1, 30)[0]
    features = Features(3, PARAMS)
    features.grow(2)
    features.full(0, x)
    np.testing.assert_array_equal(features.full(1, x[:12]), made(x[:12], []))
    again = Features(3, PARAMS)
    again.restore(features.save())
    np.testing.assert_array_equal(again.full(1, x[12:]), made(x, [])[12:])


def test_a_full_window_with_holes_speaks_for_what_it_has() -> None:
    """Full is a matter of rows: missing values in it are skipped."""
    x = motor(1, 12)[0][:, :1]
    x[4:9] = np.nan
    got = made(x, [], FeatureParams((10,)))
    assert np.isnan(got[:9, 1:]).all()
    assert got[9, 1] == pytest.approx(np.nanmean(x[:10]))


def test_without_windows_nothing_is_masked() -> None:
    """Lags and raw values alone come as they are."""
    x, params = motor(1, 20)[0], FeatureParams((), (2,))
    np.testing.assert_array_equal(made(x, [], params), bare(x, params))


# --- what a fit makes of it -------------------------------------------------------------------------------


@pytest.mark.parametrize("rolling", [(10,), (10, 40)])
@pytest.mark.parametrize("more", [-1, 0])
def test_a_window_is_known_from_eight_of_it_on(rolling: tuple[int, ...], more: int) -> None:
    """A rolling column is left aside by a fit that has fewer rows of it than eight windows, and is part of
    the model from then on; raw values always are."""
    params = FeatureParams(rolling)
    n = WINDOWS_LEAST * rolling[-1] + rolling[-1] - 1 + more
    x = made(motor(1, n)[0], [], params)
    names = ("a", "b", "c")
    job = Job("ecod", names, params, x, np.full(n, np.nan), 0.05, 42)
    known = dict(zip(params.names(names), fit_job(job).fitted.known.tolist(), strict=True))
    assert all(known[name] for name in names)
    for name, there in known.items():
        if name.endswith(f"_{rolling[-1]}"):
            assert there == (more == 0), name
        elif "_rolling_" in name:
            assert there, name


@pytest.mark.parametrize("backend", ["ecod", "hbos"])
@pytest.mark.parametrize("columns", [1, 2])
def test_clean_data_under_the_documents_settings(backend: str, columns: int) -> None:
    """A temperature of 72 +- 2, alone and with a humidity, first model after 100 rows, windows of 10, 60 and
    300 rows and lags of 1, 5 and 10: of clean rows fewer than 0.2 % are beyond the line, from the first on;
    a sensor at 95 is, at once."""
    beyond = rows = 0
    for seed in range(6):
        noise = np.random.default_rng(seed).standard_normal((1500, columns))
        x = np.array([72.0, 45.0])[:columns] + np.array([2.0, 3.0])[:columns] * noise
        one = learner(
            backend=backend,
            min_samples=100,
            retrain_interval=100,
            window_size=1000,
            rolling=(10, 60, 300),
            lags=(1, 5, 10),
        )
        names = ("temperature", "humidity")[:columns]
        ratio = one.step(x, names).ratio
        assert np.isfinite(ratio[100:]).all()
        beyond, rows = beyond + int((ratio[100:] > 1.0).sum()), rows + 1400
        hot = x[:1].copy()
        hot[0, 0] = 95.0
        assert one.step(hot, names).ratio[0] > 1.0
    assert beyond / rows < 0.002
