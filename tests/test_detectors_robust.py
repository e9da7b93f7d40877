"""robust: exact sliding medians, and what they see that a mean does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from streams import noise, points, series_of

from plexus_detect.detectors import DetectorParams, Robust, ZScore
from plexus_detect.detectors.medians import MedianBank
from plexus_detect.series import Reason

QUIET = DetectorParams(window=60, min_points=20)


def robust(params: DetectorParams = QUIET) -> Robust:
    detector = Robust(params)
    detector.grow(1)
    return detector


@examples(800)
@given(
    window=st.integers(1, 9),
    values=st.lists(
        st.tuples(st.sampled_from([-1e100, -2.0, -0.0, 0.0, 0.5, 2.0, 3.0, 1e100]), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    width=st.integers(1, 3),
)
def test_the_bank_has_the_median_and_its_deviation(
    window: int, values: list[tuple[float, bool]], width: int
) -> None:
    """After any pushes a ring says what NumPy says of its last values; a row that does not accept rests."""
    bank = MedianBank(0, window)
    bank.grow(width)
    kept: list[float] = []
    for value, accept in values:
        bank.push(slice(0, width), np.full(width, value), np.array([accept] * (width - 1) + [True]))
        kept += [value] if accept or width == 1 else []
    if not kept:
        return
    last = np.array(kept[-window:])
    _, median, spread = bank.sums(slice(0, 1)).deviation(np.zeros(1))
    away = np.abs(last - np.median(last))
    expected = 1.4826 * np.median(away) or 1.2533 * away.mean()
    assert median[0] == np.median(last)
    assert spread[0] == pytest.approx(expected, rel=1e-12)


def test_z_is_against_the_median_of_the_window_without_the_point() -> None:
    """z is (x - median) / (1.4826 median absolute deviation) of the 60 points before, to the last bit."""
    values = np.append(noise(200), 30.0)
    scores = robust().step(series_of(values))
    window = values[140:200]
    centre = np.median(window)
    scale = 1.4826 * np.median(np.abs(window - centre))
    assert (np.abs(scores.z[140:200]) <= 3.0).all()
    assert (scores.centre[200], scores.scale[200]) == (centre, scale)
    assert scores.z[200] == (30.0 - centre) / scale
    assert scores.reason[200] == Reason.ROBUST


def test_a_bad_beginning_does_not_blind_it() -> None:
    """With four in ten of the first points far off, 20 deviations are found; a mean does not see them."""
    values = noise(60, deviation=0.1)
    values[::5] += 50.0
    values[1::5] -= 30.0
    values = np.append(values, 22.0)
    params = DetectorParams(window=60, min_points=60)
    assert robust(params).step(series_of(values)).z[-1] > 8.0
    mean = ZScore(params)
    mean.grow(1)
    assert abs(mean.step(series_of(values)).z[-1]) < 1.0


def test_more_than_half_of_one_value_has_the_mean_deviation() -> None:
    """Where the median deviation is 0, as of a valve mostly shut, the mean deviation is the scale."""
    values = np.concatenate([[0.0, 0.01], np.tile([0.0, 0.0, 0.0, 0.0, 10.0], 30)])
    scores = robust(DetectorParams(window=50, min_points=20, threshold=1e4)).step(series_of(values))
    assert (scores.centre[-1], scores.scale[-1]) == (0.0, pytest.approx(1.2533 * 2.0, rel=1e-12))


def test_one_step_of_the_resolution_is_one_deviation() -> None:
    """A constant series that moves by its smallest step is one deviation away, not infinitely many."""
    z = robust().step(series_of(np.append(np.full(100, 20.1), [20.2, 20.1, 20.4]))).z
    assert z[100] == pytest.approx(1.0, abs=1e-6)
    assert z[102] < 3.0 + 1e-6


def test_a_level_that_lasts_becomes_normal_and_that_is_said_once() -> None:
    """After ``relearn_ms`` beyond the line the newest points are the baseline; the point is named."""
    detector = robust(DetectorParams(window=60, min_points=20, relearn_ms=100_000))
    z = detector.step(series_of(np.append(noise(100), noise(200, seed=1, mean=30.0)))).z
    assert detector.relearned().tolist() == [200]
    assert (z[100:201] > 3.0).all()
    assert np.median(np.abs(z[202:])) < 1.0


def test_a_late_point_is_scored_and_not_learned() -> None:
    """A point marked late gets its score and changes none that come after."""
    detector, other = robust(), robust()
    for each in (detector, other):
        each.step(series_of(noise(100)))
    assert detector.step(points(0, 50_000, 25.0, [True])).z[0] > 7.0
    after = points(0, 200_000, 20.3)
    assert detector.step(after).z[0] == other.step(after).z[0]


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_rarely_passes_the_line(seed: int) -> None:
    """Of normal noise about 0.3 in 100 points pass 3 deviations of 300 points."""
    z = robust(DetectorParams()).step(series_of(noise(2000, seed))).z
    assert np.nanmean(np.abs(z) > 3.0) < 0.015
