"""scoring: the door for data people, with the worker's own detectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from sites import arrival, site
from streams import BAD_VALUES, noise

import plexus_detect
from plexus_detect.errors import ConfigError
from plexus_detect.scoring import CLOCK_BACK_ROWS, read_csv, score_fleet, score_series

T0 = 1_700_000_000_000


def seconds(n: int) -> np.ndarray:
    return T0 + 1000 * np.arange(n)


# --- one series -------------------------------------------------------------------------------------------


def test_one_is_at_the_alert_line() -> None:
    """A score is the magnitude of the deviation over the detector's line, here three deviations."""
    values = np.append(20.0 + np.sin(np.arange(300)), [0.0])
    window = values[:300]
    values[300] = window.mean() - 3.0 * window.std()
    assert score_series(seconds(301), values, "zscore")[300] == pytest.approx(1.0, rel=1e-9)


@examples(400)
@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 3))
def test_a_score_uses_no_later_row(seed: int, n: int, k: int) -> None:
    """The scores of a beginning are the beginning of the scores, also with bad values and clocks set back."""
    rng = np.random.default_rng(seed)
    values = rng.normal(20.0, 0.5, (200, k))
    bad = rng.random((200, k)) < 0.1
    values[bad] = rng.choice(np.array(BAD_VALUES), int(bad.sum()))
    times = T0 + np.cumsum(rng.choice([1000, 1000, 1000, 0, -500, -60_000], 200))
    whole = score_series(times, values)
    assert np.array_equal(score_series(times[:n], values[:n]), whole[:n], equal_nan=True)


def test_several_metrics_give_the_largest_score() -> None:
    """A row of several values has the score of its most unusual one; a missing one does not hide the rest."""
    a, b = noise(300), noise(300, 1, 5.0)
    a[200:205] += 9.0
    b[250:255] -= 4.0
    both = score_series(seconds(300), np.column_stack([a, b]))
    alone = np.fmax(score_series(seconds(300), a), score_series(seconds(300), b))
    assert np.array_equal(both, alone, equal_nan=True)
    assert (both[[200, 250]] > 1.0).all()
    b[200:205] = np.nan
    assert (score_series(seconds(300), np.column_stack([a, b]))[200:205] > 1.0).all()


def test_a_row_without_a_value_has_no_score() -> None:
    """NaN where nothing was measured and while the detector is cold, a number everywhere else."""
    values = noise(100)
    values[[40, 60]] = np.nan
    score = score_series(seconds(100), values)
    assert np.flatnonzero(np.isnan(score)).tolist() == [*range(32), 40, 60]


def test_a_late_row_is_scored_and_not_learned() -> None:
    """One row out of order has a score and changes that of no other row."""
    times, values = seconds(200), noise(200)
    with_late = np.insert(times, 150, times[100] + 7), np.insert(values, 150, 60.0)
    score = score_series(*with_late)
    assert score[150] > 10.0
    assert np.array_equal(np.delete(score, 150), score_series(times, values), equal_nan=True)


def test_a_clock_that_is_set_back_is_believed_after_a_while() -> None:
    """After CLOCK_BACK_ROWS rows that are older but in order, the rows are learned again."""
    times, values = seconds(400), noise(400)
    times[50] += 86_400_000
    values[200:] += 30.0
    score = score_series(times, values)
    reference = score_series(seconds(400), values)
    assert np.isfinite(score[50 + CLOCK_BACK_ROWS :]).all()
    assert np.median(np.abs(score[100:200] - reference[100:200])) < 0.2


def test_a_detector_can_be_named() -> None:
    """``auto`` is the default, by either name, and others give other scores."""
    values = noise(100)
    named, default, other = (
        score_series(seconds(100), values, name) for name in ("auto", "default", "zscore")
    )
    assert np.array_equal(named, default, equal_nan=True)
    assert not np.array_equal(other, default, equal_nan=True)


@pytest.mark.parametrize(
    ("t_ms", "values", "name", "sentence"),
    [
        ([1, 2], [1.0], "default", "do not belong together; give n times and n rows of values"),
        ([[1], [2]], [1.0, 2.0], "default", "do not belong together"),
        ([1], [[[1.0]]], "default", "do not belong together"),
        ([1], [1.0], "magic", "no detector 'magic'; there are default, auto, zscore"),
    ],
)
def test_what_cannot_be_scored_is_said(t_ms: object, values: object, name: str, sentence: str) -> None:
    """Columns that do not fit and unknown detectors are a sentence, not a traceback."""
    with pytest.raises(ConfigError, match=sentence):
        score_series(t_ms, values, name)


def test_no_rows_no_scores() -> None:
    """Empty columns give empty scores."""
    assert len(score_series([], [])) == len(score_fleet([], [], [])) == 0


# --- a fleet ----------------------------------------------------------------------------------------------


def test_a_fleet_finds_the_odd_source_by_name() -> None:
    """Rows in order of arrival with the names of their sources: only the odd one is beyond the line."""
    t_ms, value = site(12, 500)
    value[400:, 3] += 2.0
    stream = arrival(t_ms, value)
    names = np.array([f"room-{i}" for i in range(12)])[stream.series]
    score = score_fleet(stream.t_ms, names.tolist(), stream.value)
    late = np.arange(len(score)) > 402 * 12
    assert score[late & (names == "room-3")].min() > 1.0
    assert np.mean(score[late & (names != "room-3")] > 1.0) < 0.01


def test_a_fleet_of_several_metrics_has_a_score_for_each() -> None:
    """(n, k) values give (n, k) scores, each metric's those it has alone."""
    t_ms, value = site(8, 120)
    stream = arrival(t_ms, value)
    names = [f"room-{i}" for i in stream.series.tolist()]
    both = np.stack([stream.value, np.round(50.0 - 2.0 * stream.value, 1)], axis=1)
    both[5::11, 1] = np.nan
    scores = score_fleet(stream.t_ms, names, both)
    assert scores.shape == both.shape
    for k in range(2):
        assert np.array_equal(scores[:, k], score_fleet(stream.t_ms, names, both[:, k]), equal_nan=True)
    assert np.isnan(scores[5::11, 1]).all()


def test_a_late_or_repeated_row_of_a_fleet_has_no_score_and_changes_none() -> None:
    """A row that is not newer than one before it of its source is unknown, and the others as without it."""
    t_ms, value = site(8, 120)
    stream = arrival(t_ms, value)
    names = [f"room-{i}" for i in stream.series.tolist()]
    whole = score_fleet(stream.t_ms, names, stream.value)
    at = np.flatnonzero(stream.series == 2)[80]
    times = np.insert(stream.t_ms, at + 1, [stream.t_ms[at], stream.t_ms[at] - 30_000])
    values = np.insert(stream.value, at + 1, [stream.value[at], 1e6])
    more = score_fleet(times, [*names[: at + 1], "room-2", "room-2", *names[at + 1 :]], values)
    assert np.isnan(more[at + 1 : at + 3]).all()
    assert np.array_equal(np.delete(more, [at + 1, at + 2]), whole, equal_nan=True)


@examples(150)
@given(st.integers(1, 1200))
def test_a_fleet_score_uses_no_later_row(n: int) -> None:
    """The scores of a beginning are the beginning of the scores, whoever joins the fleet later."""
    t_ms, value = site(12, 100)
    stream = arrival(t_ms, value)
    names = [f"room-{(7 * i) % 12}" for i in stream.series.tolist()]
    whole = score_fleet(stream.t_ms, names, stream.value)
    part = score_fleet(stream.t_ms[:n], names[:n], stream.value[:n])
    assert np.array_equal(part, whole[:n], equal_nan=True)


def test_fleet_columns_of_different_lengths_are_said() -> None:
    """One column too short is a sentence."""
    with pytest.raises(ConfigError, match="give n times, n sources and n values"):
        score_fleet([1, 2], ["a"], [1.0, 2.0])


def test_the_package_has_both_doors() -> None:
    """``plexus_detect.score_series`` and ``score_fleet`` are the public names."""
    assert plexus_detect.score_series is score_series
    assert plexus_detect.score_fleet is score_fleet


# --- CSV --------------------------------------------------------------------------------------------------


def test_seconds_and_milliseconds_are_told_apart() -> None:
    """A time below 1e12 is in seconds, as on the platform; both come out in milliseconds."""
    t_ms, values = read_csv(["1700000000.25,1", "1700000000250,2", "999999999999,3", "1000000000000,4"])
    assert t_ms.tolist() == [1700000000250, 1700000000250, 999999999999000, 1000000000000]
    assert values.tolist() == [[1], [2], [3], [4]]


def test_header_blank_lines_and_empty_fields() -> None:
    """A header and blank lines are skipped, an empty field is missing, a byte order mark is no header."""
    t_ms, values = read_csv(["ts,v0,v1\n", "1,2,\n", "\n", "2, ,nan\n"])
    assert t_ms.tolist() == [1000, 2000]
    assert np.array_equal(values, [[2, np.nan], [np.nan, np.nan]], equal_nan=True)
    assert read_csv(["\ufeff5,1"])[0].tolist() == [5000]
    assert read_csv(["\ufeffts,v0", "5,1"])[0].tolist() == [5000]


def test_nothing_is_no_rows() -> None:
    """Without a row there are no times and an empty column."""
    t_ms, values = read_csv([])
    assert (t_ms.shape, values.shape) == ((0,), (0, 1))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["1,2", "2"], r"line 2: it has 1 fields; a row is a time .* and 1 number\(s\): ts,v0\[,v1\.\.\.\]"),
        (["1,2,3", "2,3"], r"line 2: it has 2 fields; .* and 2 number\(s\)"),
        (["5"], "line 1: it has 1 fields"),
        (["1,2", "x,3"], "line 2: could not convert string to float: 'x'"),
        (["1,2", "2,high"], "line 2: could not convert string to float: 'high'"),
        (["1,2", "nan,3"], "line 2: time 'nan' is out of range"),
        (["1,2", "1e15,3"], "line 2: time '1e15' is out of range"),
        (["ts,v0", "1,2", '3,"' + "9" * 200_000], "line 3: field larger than field limit"),
    ],
)
def test_a_bad_row_is_named_with_its_line(lines: list[str], sentence: str) -> None:
    """What is no row of numbers is one sentence with the line, what is wrong and what a row looks like."""
    with pytest.raises(ConfigError, match=sentence):
        read_csv(lines)
