"""learn.features: rolling and lag features that no batching, restart or past value can change."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from streams import BAD_VALUES, noise

from plexus_detect.errors import ConfigError, StoreError
from plexus_detect.learn.features import LENGTH_MAX, FeatureParams, Features

PARAMS = FeatureParams((2, 5, 16), (1, 3, 20))


def bank(k: int, params: FeatureParams = PARAMS, feeds: int = 1) -> Features:
    """Features of ``k`` columns for some feeds."""
    made = Features(k, params)
    made.grow(feeds)
    return made


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """True when both have the same shape and bits."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def naive(x: np.ndarray, params: FeatureParams) -> np.ndarray:
    """The features by their definition, from the whole past for every row."""
    out = []
    for i in range(len(x)):
        row = list(x[i])
        for column in x.T:
            for w in params.rolling:
                held = column[max(0, i - w + 1) : i + 1]
                held = held[~np.isnan(held)]
                # About the first of them: the mean of large values is too coarse for the deviation.
                part = held - held[0] if len(held) else held
                row.append(held[0] + part.mean() if len(held) else np.nan)
                row.append(part.std(ddof=1) if len(held) > 1 else np.nan)
                row += [held.min(), held.max()] if len(held) else [np.nan, np.nan]
            row += [column[i - n] if i >= n else np.nan for n in params.lags]
        out.append(row)
    return np.array(out)


@st.composite
def tables(draw: st.DrawFn, bad: tuple[float, ...] = BAD_VALUES, size: int = 120) -> np.ndarray:
    """(m, 2) noise about some level, with steps, stuck stretches and values out of ``bad``."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.normal(0.0, 10.0 ** draw(st.integers(-3, 3)), (draw(st.integers(1, size)), 2))
    x += 10.0 ** draw(st.integers(-3, 6)) * draw(st.sampled_from([0, 1, -1]))
    x[draw(st.integers(0, size)) :] += draw(st.sampled_from([0.0, 1e3, -1e6]))
    at = draw(st.integers(0, size))
    x[at : at + 30, 0] = draw(st.sampled_from([0.1, -0.0, np.nan, 1e6]))
    x[rng.random(x.shape) < draw(st.sampled_from([0.0, 0.05, 0.6]))] = draw(st.sampled_from(bad))
    return x


def test_names_are_in_the_documented_order() -> None:
    """Raw columns first, then per column its windows (mean, std, min, max each), then its lags."""
    params = FeatureParams((5,), (1, 2))
    stats = [f"_rolling_{stat}_5" for stat in ("mean", "std", "min", "max")]
    expected = ["a", "b", *("a" + s for s in stats), "a_lag_1", "a_lag_2"]
    expected += [*("b" + s for s in stats), "b_lag_1", "b_lag_2"]
    assert params.names(["a", "b"]) == tuple(expected)
    assert params.source(2).tolist() == [0, 1, *[0] * 6, *[1] * 6]
    assert params.width(2) == len(expected)


def test_the_documented_counts() -> None:
    """Two columns with windows 5, 10 and 20 have 26 features; three with three windows and lags have 48."""
    assert len(FeatureParams((5, 10, 20)).names(["a", "b"])) == FeatureParams((5, 10, 20)).width(2) == 26
    assert len(FeatureParams((10, 60, 300), (1, 5, 10)).names(["a", "b", "c"])) == 48


@pytest.mark.parametrize("n", [1, 0, -5, LENGTH_MAX + 1, 2.0, True])
def test_impossible_windows_are_refused(n: int) -> None:
    """A window has from 2 to 100,000 rows and is a whole number: anything else is a ConfigError."""
    with pytest.raises(ConfigError, match="a rolling window"):
        FeatureParams((10, n))


def test_impossible_lags_are_refused() -> None:
    """A lag looks back, is given once, and there are at most 100 of them."""
    for lags in ((0,), (-1,), (LENGTH_MAX + 1,), (3, 3), tuple(range(1, 102))):
        with pytest.raises(ConfigError, match="lag"):
            FeatureParams((), lags)


def test_partial_windows_are_honest() -> None:
    """Before a window is full it speaks for the rows there are; what cannot be known is NaN, never 0.0."""
    out = bank(1, FeatureParams((3,), (1, 3))).step(0, np.array([[4.0], [6.0], [np.nan], [1.0], [np.nan]]))
    nan = np.nan
    expected = [
        [4.0, 4.0, nan, 4.0, 4.0, nan, nan],
        [6.0, 5.0, 2**0.5, 4.0, 6.0, 4.0, nan],
        [nan, 5.0, 2**0.5, 4.0, 6.0, 6.0, nan],
        [1.0, 3.5, 12.5**0.5, 1.0, 6.0, nan, 4.0],
        [nan, 1.0, nan, 1.0, 1.0, 1.0, 6.0],
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-15)


@examples(400)
@given(tables(), st.lists(st.sampled_from([1, 1, 2, 7, 30]), max_size=120), st.sets(st.integers(0, 40)))
def test_batching_and_restarts_change_no_bit(x: np.ndarray, sizes: list[int], restarts: set[int]) -> None:
    """All rows at once, one by one, in any batches, saved and restored in between: the same bits."""
    whole = bank(2).step(0, x)
    bounds = [0, *(n for n in np.cumsum(sizes, dtype=int) if n < len(x)), len(x)]
    held, parts = bank(2), []
    for i, (a, b) in enumerate(pairwise(bounds)):
        if i in restarts:
            fresh = Features(0, PARAMS)
            fresh.restore(held.save("f."), "f.")
            held = fresh
        parts.append(held.step(0, x[a:b]))
    assert same_bits(whole, np.concatenate(parts))


def test_single_rows_and_batches_take_turns() -> None:
    """Rows one by one from the first on, and by turns with batches, have the bits of all at once."""
    x = noise(1200).reshape(-1, 2)
    whole = bank(2).step(0, x)
    for sizes in ([1] * len(x), [1, 1, 40] * 20):
        held, bounds = bank(2), [0, *np.cumsum(sizes)]
        parts = np.concatenate([held.step(0, x[a:b]) for a, b in pairwise(bounds)])
        assert same_bits(parts, whole[: len(parts)])


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_the_pieces_of_a_large_batch_change_no_bit(piece: int) -> None:
    """Rows that are too many to be worked on at once give the same bits in pieces."""
    x = noise(400).reshape(-1, 2)
    cut = bank(2)
    cut._piece, cut._many = piece, 0
    assert same_bits(cut.step(0, x), bank(2).step(0, x))


@examples(250)
@given(tables(bad=(np.nan, 1e12, -1e12, 0.0)))
def test_equals_the_definition(x: np.ndarray) -> None:
    """Every feature is the naive one to 1e-9, a mean to 1e-9 of the largest magnitude in its window."""
    out, expected = bank(2).step(0, x), naive(x, PARAMS)
    names = np.array(PARAMS.names(("a", "b")))
    means = np.char.find(names, "_mean_") >= 0
    np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
    exact = ~means & (np.char.find(names, "_std_") < 0)
    np.testing.assert_array_equal(out[:, exact], expected[:, exact])
    np.testing.assert_allclose(out[:, ~means], expected[:, ~means], rtol=1e-9, atol=0)
    largest = np.maximum(np.abs(expected[:, np.roll(means, 2)]), np.abs(expected[:, np.roll(means, 3)]))
    assert np.nanmax(np.abs(out[:, means] - expected[:, means]) - 1e-9 * largest, initial=0) <= 0


def test_equals_polars() -> None:
    """The features are those of Polars' rolling functions with min_samples=1, and of its shift."""
    import polars as pl

    x = noise(500, mean=72.0, deviation=2.0).reshape(-1, 2)
    x[np.random.default_rng(1).random(x.shape) < 0.1] = np.nan
    params = FeatureParams((5, 10, 60), (1, 2, 3))
    frame = pl.DataFrame(x, schema=["a", "b"]).fill_nan(None)
    made = [pl.col("a"), pl.col("b")]
    for column in (pl.col("a"), pl.col("b")):
        for w in params.rolling:
            made += [column.rolling_mean(w, min_samples=1), column.rolling_std(w, min_samples=1)]
            made += [column.rolling_min(w, min_samples=1), column.rolling_max(w, min_samples=1)]
        made += [column.shift(n) for n in params.lags]
    names = params.names(["a", "b"])
    expected = frame.select(e.alias(name) for e, name in zip(made, names, strict=True)).to_numpy()
    # Polars' own deviation comes from running sums, which lose digits.
    np.testing.assert_allclose(bank(2, params).step(0, x), expected, rtol=1e-7)


def test_a_spike_that_left_leaves_nothing() -> None:
    """Once a value of 1e12 is out of the window the features have the bits they have without it."""
    x = noise(2_000)[:, None]
    spiked = x.copy()
    spiked[777] = 1e12
    params = FeatureParams((10, 300), (1,))
    clean, after = bank(1, params).step(0, x), bank(1, params).step(0, spiked)
    assert not same_bits(clean[777:1077], after[777:1077])
    assert same_bits(clean[1077:], after[1077:])
    stuck = bank(1, params).step(0, np.concatenate([spiked, np.full((310, 1), 0.1)]))
    assert stuck[-1].tolist() == [0.1, 0.1, 0.0, 0.1, 0.1, 0.1, 0.0, 0.1, 0.1, 0.1]


def test_no_drift_after_a_million_rows() -> None:
    """After a million rows about 1e6, a spike among them, a window is still exact to 1e-9."""
    x = noise(1_000_000, mean=1e6)[:, None]
    x[300_000] = 1e12
    params = FeatureParams((300,))
    out = bank(1, params).step(0, x)
    np.testing.assert_allclose(out[-50:], naive(x[-349:], params)[-50:], rtol=1e-9)


def test_feeds_know_nothing_of_each_other() -> None:
    """Rows of one feed change no feature of another, whatever their order."""
    x, y = noise(120, 1).reshape(-1, 2), noise(120, 2).reshape(-1, 2)
    held = bank(2, feeds=1)
    first = held.step(0, x[:30])
    held.grow(3)
    pairs = [(held.step(0, x[i : i + 1]), held.step(2, y[i : i + 1])) for i in range(30, 60)]
    assert len(held) == 3
    assert same_bits(np.concatenate([first, *(a for a, _ in pairs)]), bank(2).step(0, x))
    assert same_bits(np.concatenate([b for _, b in pairs]), bank(2).step(0, y[30:]))


@pytest.mark.parametrize("size", [1, 30])
def test_a_new_column_has_no_past(size: int) -> None:
    """Columns that appear later have the features that columns of NaN up to then have; from none on, too."""
    x = noise(180).reshape(-1, 3)
    x[:40, 1:], x[:10] = np.nan, np.nan
    held, k, parts = bank(0), 0, []
    for a, b, wider in ((0, 10, 1), (10, 40, 3), (40, 60, 3)):
        for i in range(a, b, size):
            parts.append((k, held.step(0, x[i : min(i + size, b), :k])))
        held.widen(wider)
        k = wider
    whole = bank(3).step(0, x)
    sources = PARAMS.source(3)
    row = 0
    for width, part in parts:
        known = whole[row : row + len(part)][:, sources < width]
        assert same_bits(part, np.ascontiguousarray(known))
        row += len(part)


def test_without_features_or_rows() -> None:
    """Without windows and lags the rows are their own features; no rows give none."""
    x = np.array([[1.0, np.inf], [-0.0, 2.0]])
    np.testing.assert_array_equal(bank(2, FeatureParams()).step(0, x), [[1.0, np.nan], [0.0, 2.0]])
    assert not np.signbit(bank(2, FeatureParams((2,))).step(0, np.full((9, 2), -0.0))).any()
    assert bank(2).step(0, x[:0]).shape == (0, PARAMS.width(2))
    lags = FeatureParams((), (2,))
    np.testing.assert_array_equal(
        bank(1, lags).step(0, np.arange(4.0)[:, None])[:, 1], [np.nan, np.nan, 0, 1]
    )


def test_values_too_large_for_a_sum_are_no_trouble() -> None:
    """Where a mean or a deviation does not fit a float it is NaN; least and greatest are still known."""
    out = bank(1, FeatureParams((2,))).step(0, np.array([[1.7e308], [-1.7e308], [1.0], [2.0]]))
    np.testing.assert_array_equal(out[1], [-1.7e308, np.nan, np.nan, -1.7e308, 1.7e308])
    np.testing.assert_allclose(out[3], [2.0, 1.5, 0.5**0.5, 1.0, 2.0])


def test_rows_of_other_windows_are_refused() -> None:
    """A snapshot of other windows is a StoreError, not wrong features."""
    with pytest.raises(StoreError, match="other rolling windows"):
        bank(2, FeatureParams((9,))).restore(bank(2).save())
