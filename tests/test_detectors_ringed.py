"""zscore and robust with a window that is a duration: how many points that is, and when it is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, Row
from hypothesis import given
from pipe import Pipe, config, play
from profiles import examples
from streams import noise, points, streams

from plexus_detect.detectors import DetectorParams, Robust, ZScore
from plexus_detect.detectors.guarded import Guarded
from plexus_detect.series import Points
from plexus_detect.stats import usable

TEN_MINUTES = DetectorParams(window=1000, window_ms=600_000)
SMALL = DetectorParams(window=20, min_points=5, relearn_ms=20_000, window_ms=13_000)

both = pytest.mark.parametrize("kind", [ZScore, Robust])


def made(kind: type[ZScore | Robust], params: DetectorParams = TEN_MINUTES, rows: int = 1) -> Guarded:
    detector = kind(params)
    detector.grow(rows)
    return detector


def held_of(t_ms: np.ndarray, params: DetectorParams = TEN_MINUTES) -> int:
    """How many points the baseline of a quiet series with points at these times is in the end."""
    detector = made(ZScore, params)
    detector.step(points(0, t_ms, 20.0 + np.arange(len(t_ms)) % 2))
    return int(detector.ready_count(np.array([0]))[0])


@both
@pytest.mark.parametrize(
    ("step_ms", "held"), [(1000, 600), (5000, 120), (700, 857), (100, 1000), (60_000, 30)]
)
def test_a_duration_is_so_many_points_of_each_cadence(
    kind: type[ZScore | Robust], step_ms: int, held: int
) -> None:
    """Ten minutes are 600 points of one a second and 120 of one in five, at most ``window``, at least
    ``min_points``; the baseline is of exactly those before the point."""
    values = np.append(noise(1500), 30.0)
    detector = made(kind, replace(TEN_MINUTES, threshold=5.0))
    scores = detector.step(points(0, step_ms * np.arange(1501), values))
    centre = np.mean if kind is ZScore else np.median
    for at in (500, 900, 1500):
        expected = centre(values[max(0, at - held) : at])
        assert scores.centre[at] == pytest.approx(expected, rel=1e-12)
    assert scores.z[1500] > 15.0
    assert detector.ready_count(np.array([0]))[0] == held


def test_series_side_by_side_have_their_own_lengths() -> None:
    """A fast and a slow series of one detector hold one duration, each stepped together with the other."""
    detector = made(ZScore, rows=2)
    fast, slow = (
        points(i, step * np.arange(n), noise(n)) for i, step, n in ((0, 1000, 1000), (1, 5000, 200))
    )
    stream = Points.concat([fast, slow])
    stream = stream.take(np.argsort(stream.t_ms, kind="stable"))
    for tick in np.split(np.arange(len(stream)), np.flatnonzero(np.diff(stream.t_ms)) + 1):
        detector.step(stream.take(tick))
    assert detector.ready_count(np.array([0, 1])).tolist() == [600, 120]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["jitter", "dropped", "outages", "jumps"])
def test_irregular_points_have_a_median_interval(kind: str, seed: int) -> None:
    """Jitter, lost points, long outages and a clock that jumps leave ten minutes at about 600 points."""
    rng = np.random.default_rng(seed)
    steps = {
        "jitter": rng.normal(1000, 100, 1500),
        "dropped": 1000.0 * rng.geometric(0.8, 1500),
        "outages": np.where(rng.random(1500) < 0.2, 3_600_000.0, 1000.0),
        "jumps": rng.choice([1000.0, 1000.0, 1000.0, 86_400_000.0, -86_400_000.0], 1500),
    }[kind]
    assert held_of(np.cumsum(steps).astype(np.int64)) == pytest.approx(600, rel=0.08)


def test_points_of_one_time_are_as_many_as_there_may_be() -> None:
    """Where no time passes between points, or it runs backwards, the duration holds ``window`` of them."""
    assert held_of(np.full(1200, 5000)) == 1000
    assert held_of(-1000 * np.arange(1200)) == 1000


@both
def test_late_and_missing_points_have_no_part_in_it(kind: type[ZScore | Robust]) -> None:
    """Between points a minute apart, late ones and missing values leave the intervals minutes."""
    n = 400
    t_ms = 20_000 * np.arange(n)
    late, value = np.arange(n) % 3 == 1, noise(n)
    value[np.arange(n) % 3 == 2] = np.nan
    detector = made(kind, replace(TEN_MINUTES, min_points=5))
    detector.step(points(0, t_ms, value, late))
    assert detector.ready_count(np.array([0]))[0] == 10


@both
def test_another_cadence_counts_when_a_level_is_relearned(kind: type[ZScore | Robust]) -> None:
    """A series that slows down keeps its number of points; with a new level the new cadence is measured, also
    where the ring grows."""
    detector, at = made(kind, replace(TEN_MINUTES, relearn_ms=900_000)), np.array([0])
    t_ms = 0
    for step_ms, n, mean, held in [
        (1000, 1500, 20.0, 600),
        (5000, 1500, 20.0, 600),
        (5000, 1500, 40.0, 120),
        (1000, 1200, 40.0, 120),
        (1000, 2500, 20.0, 600),
    ]:
        values = np.append(noise(n - 1, seed=n, mean=mean), mean)
        scores = detector.step(points(0, t_ms + step_ms * np.arange(n), values))
        t_ms += step_ms * n
        assert detector.ready_count(at)[0] == held
        expected = [v for v, z in zip(values, scores.z, strict=True) if abs(z) <= 3.0][-held - 1 : -1]
        assert len(expected) == held
        centre = np.mean(expected) if kind is ZScore else np.median(expected)
        assert scores.centre[-1] == pytest.approx(centre, rel=1e-12)


@examples(500)
@given(stream=streams(rows=1, size=300))
def test_the_baseline_is_that_of_a_list(stream: Points) -> None:
    """Whatever comes, z is against the mean of as many of the newest learned points as a plain list holds,
    also from a relearned level on."""
    detector, p = made(ZScore, SMALL), SMALL
    known: list[int] = []
    learned: list[float] = []
    beyond: list[float] = []
    limit = p.window
    for i in np.flatnonzero(usable(stream.value)).tolist():
        scores, x = detector.step(stream.take(slice(i, i + 1))), float(stream.value[i])
        if len(learned) >= p.min_points:
            size = max(1.0, float(np.abs(learned[-limit:]).max()))
            assert scores.centre[0] == pytest.approx(np.mean(learned[-limit:]), abs=1e-9 * size)
        if stream.late[i]:
            continue
        known.append(int(stream.t_ms[i]))
        (beyond if abs(float(scores.z[0])) > p.threshold else learned).append(x)
        if len(detector.relearned()):
            learned = beyond[-p.min_points :]
        if len(known) == p.min_points or len(detector.relearned()):
            median = float(np.median(np.diff(known[-p.min_points :])))
            limit = min(max(round(13_000 / median), p.min_points), p.window) if median > 0 else p.window
        assert detector.ready_count(np.array([0]))[0] == min(len(learned), limit)


@examples(500)
@given(stream=streams(rows=1, size=300))
def test_one_point_has_no_cadence(stream: Points) -> None:
    """With ``min_points`` of 1 there is no interval when scores begin: the window is ``window`` points."""
    params = replace(SMALL, min_points=1)
    z = [made(ZScore, p).step(stream).z for p in (params, replace(params, window_ms=None))]
    assert np.array_equal(*z, equal_nan=True)


def test_a_worker_warms_up_for_ten_minutes_of_seconds(stopped: FakeClock) -> None:
    """``window: 10m`` over a platform with half an hour of a point a second: the first score is against the
    mean of the 600 samples before it, which the warm-up read."""
    given = config(
        detect__detector="zscore", detect__window="10m", post__series='["expected"]', fleet__enabled="false"
    )
    value = {t: 20.0 + np.sin(t / 1e5) for t in range(START_MS - 1_800_000, START_MS + 5000, 1000)}

    def rows(first_ms: int, end_ms: int) -> list[Row]:
        return [("dev-0", "temperature", t, value[t]) for t in range(first_ms, end_ms, 1000)]

    async def body(pipe: Pipe) -> None:
        await pipe.steps(5, lambda t_ms: rows(t_ms, t_ms + 1000))
        await pipe.drain()

    pipe = play(stopped, body, past=rows(START_MS - 1_800_000, START_MS), given=given)
    expected = [np.mean([v for t, v in value.items() if at - 600_000 <= t < at]) for at in list(value)[-5:]]
    assert pipe.posted(suffix=".expected") == pytest.approx(expected, rel=1e-9)
