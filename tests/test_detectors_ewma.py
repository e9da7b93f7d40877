"""ewma: what is learned weighs less with age, moves the mean by a bounded step, and never is an incident."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from profiles import examples
from streams import cut, noise, places, points, series_of, streams

from plexus_detect.detectors import DetectorParams, Ewma
from plexus_detect.series import Points, Reason, Scores

QUIET = DetectorParams(window=60, min_points=20)
TIMED = DetectorParams(window=20, min_points=5, relearn_ms=20_000, window_ms=30_000)


def ewma(params: DetectorParams = QUIET, rows: int = 1) -> Ewma:
    detector = Ewma(params)
    detector.grow(rows)
    return detector


def same(a: Scores, b: Scores) -> bool:
    """Whether scores have the same bits."""
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("z", "centre", "scale", "reason")]
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def two_valued(n: int, seed: int = 0) -> np.ndarray:
    """Values that are all one deviation from the mean: none is so far that it counts as nearer."""
    return np.random.default_rng(seed).choice([19.0, 21.0], n)


def test_while_young_it_is_the_plain_mean() -> None:
    """Up to ``min_points`` all points weigh the same."""
    values = noise(21)
    scores = ewma().step(series_of(values))
    assert scores.centre[20] == pytest.approx(values[:20].mean(), rel=1e-12)
    assert scores.scale[20] == pytest.approx(values[:20].std(), rel=1e-9)
    assert scores.z[20] == pytest.approx((values[20] - values[:20].mean()) / values[:20].std(), rel=1e-9)
    assert scores.reason[20] == Reason.EWMA


def test_weights_fall_by_a_constant_factor() -> None:
    """With a window of 60 points each point weighs 59 / 61 of the one after it: the mean age of the box."""
    values = two_valued(600)
    weights = (59.0 / 61.0) ** np.arange(599, -1, -1)
    centre = ewma().step(series_of(np.append(values, 20.0))).centre[-1]
    assert centre == pytest.approx(np.average(values, weights=weights), rel=1e-9)


def test_with_a_window_of_time_weights_fall_with_time() -> None:
    """Points of any spacing weigh half at a half-life of ln 2 / 2 windows, the mean age of the box."""
    t_ms = np.cumsum(np.random.default_rng(1).integers(100, 3000, 600))
    values = two_valued(600)
    half_life = 0.5 * np.log(2.0) * 120_000
    weights = 2.0 ** -((t_ms[-1] - t_ms) / half_life)
    scores = ewma(replace(QUIET, window_ms=120_000)).step(
        points(0, np.append(t_ms, t_ms[-1] + 1000), np.append(values, 20.0))
    )
    assert scores.centre[-1] == pytest.approx(np.average(values, weights=weights), rel=1e-9)


@examples(500)
@given(stream=streams(size=300), at=places())
def test_a_window_of_time_obeys_the_laws(stream: Points, at: list[int]) -> None:
    """With elapsed times, too: calls of any size, single points and snapshots have the same bits."""
    whole, parted, single = ewma(TIMED, 3), ewma(TIMED, 3), ewma(TIMED, 3)
    scores = whole.step(stream)
    for part in cut(stream, at):
        loaded = Ewma(TIMED)
        loaded.load(parted.dump())
        parted = loaded
        mine = parted.step(part)
        each = [single.step(part.take(slice(i, i + 1))) for i in range(len(part))]
        if each:
            names = ("z", "centre", "scale", "reason")
            columns = [np.concatenate([getattr(s, name) for s in each]) for name in names]
            assert same(mine, Scores(*columns))
        stop = len(mine.z)
        columns = (scores.z, scores.centre, scores.scale, scores.reason)
        assert same(mine, Scores(*(c[:stop] for c in columns)))
        scores = Scores(*(c[stop:] for c in columns))
    states = [detector.dump() for detector in (whole, parted, single)]
    for name, column in states[0].items():
        for other in states[1:]:
            assert np.array_equal(column, other[name], equal_nan=True), name


def test_one_point_after_a_long_silence_is_not_the_baseline() -> None:
    """After a day without points the first one moves the mean by a ``min_points``-th at most."""
    detector = ewma(replace(QUIET, window_ms=60_000))
    detector.step(series_of(noise(300)))
    scores = detector.step(points(0, 86_400_000 + 1000 * np.arange(2), [21.2, 20.0]))
    assert 0.0 < scores.centre[1] - scores.centre[0] <= (21.2 - scores.centre[0]) / QUIET.min_points
    assert scores.scale[1] > 0.8 * scores.scale[0]


def test_the_deviation_of_noise_is_its_deviation() -> None:
    """What is lost by taking no point as further than two deviations is made up for."""
    scale = ewma(DetectorParams(window=600)).step(series_of(noise(20_000, deviation=0.5))).scale
    assert np.mean(scale[2000:]) == pytest.approx(0.5, rel=0.02)


def test_a_point_moves_the_mean_by_a_bounded_step() -> None:
    """Points just inside the line move the mean no further than points at two deviations."""
    moves = []
    for far in (2.0, 2.9):
        detector = ewma()
        before = detector.step(series_of(np.append(noise(400), 20.0)))
        x = before.centre[-1] + far * before.scale[-1]
        scores = detector.step(points(0, 500_000 + 1000 * np.arange(2), [x, 20.0]))
        moves.append(float(scores.centre[1] - scores.centre[0]))
    assert moves[1] == pytest.approx(moves[0], rel=0.02)


def test_an_incident_does_not_become_the_baseline() -> None:
    """A level 8 deviations off stays beyond the line for hundreds of points.

    The rule that learns before it tests, with a step of 0.01, has lost it after the first hundred.
    """
    values = np.append(noise(400), noise(400, seed=1, mean=24.0))
    assert (ewma().step(series_of(values)).z[400:] > 3.0).all()
    mean, variance, beyond = values[0], 0.0, []
    for x in values[1:].tolist():
        away = x - mean
        mean += 0.01 * away
        variance = 0.99 * (variance + 0.01 * away * away)
        beyond.append(abs(x - mean) > 3.0 * np.sqrt(variance))
    assert not any(beyond[500:])


def test_a_level_that_lasts_becomes_normal_and_that_is_said_once() -> None:
    """After ``relearn_ms`` beyond the line the newest points are the baseline; the point is named."""
    detector = ewma(DetectorParams(window=60, min_points=20, relearn_ms=100_000))
    z = detector.step(series_of(np.append(noise(100), noise(200, seed=1, mean=30.0)))).z
    assert detector.relearned().tolist() == [200]
    assert (z[100:201] > 3.0).all()
    assert np.median(np.abs(z[202:])) < 1.0


def test_noise_that_grows_is_learned() -> None:
    """Noise of three times the deviation is the new normal after some windows, though much is cut off."""
    z = ewma().step(series_of(np.append(noise(400), noise(2000, seed=1, deviation=1.5)))).z
    assert np.mean(np.abs(z[-500:]) > 3.0) < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_rarely_passes_the_line(seed: int) -> None:
    """Of normal noise about 0.3 in 100 points pass 3 deviations."""
    z = ewma(DetectorParams()).step(series_of(noise(2000, seed))).z
    assert np.nanmean(np.abs(z) > 3.0) < 0.012
