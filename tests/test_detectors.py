"""detectors: the laws that every detector obeys, and what the z-score means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from profiles import examples
from streams import BAD_VALUES, cut, noise, places, points, series_of, streams, ticks

from plexus_detect.detectors import REGISTRY, Detector, DetectorParams, ZScore
from plexus_detect.series import Points, Reason, Scores
from plexus_detect.stats import Z_MAX, usable

SMALL = DetectorParams(window=20, min_points=5, relearn_ms=20_000)
QUIET = DetectorParams(window=60, min_points=20)


# Detectors whose window may be a duration, by what they are called here when it is one.
TIMED = {f"{name}, timed": name for name in ("zscore", "robust", "ewma")}
EVERY = (*REGISTRY, *TIMED)

# Of one point a second, what a window that is a duration holds of the points that it may hold at most.
PART = 0.65


def empty(name: str, params: DetectorParams = SMALL) -> Detector:
    """A detector of no series."""
    if name in TIMED:
        params = replace(params, window_ms=round(1000 * PART * params.window))
    return REGISTRY[TIMED.get(name, name)](params)


def made(name: str, params: DetectorParams = SMALL, rows: int = 3) -> Detector:
    """A detector with room for a few series."""
    detector = empty(name, params)
    detector.grow(rows)
    return detector


def stepped(detector: Detector, parts: list[Points]) -> tuple[Scores, list[int]]:
    """The scores of all parts, and where in them a level was relearned."""
    scores, relearned, before = [], [], 0
    for part in parts:
        scores.append(detector.step(part))
        relearned += [before + at for at in detector.relearned().tolist()]
        before += len(part)
    columns = (np.concatenate([getattr(s, name) for s in scores]) for name in ("z", "centre", "scale"))
    return Scores(*columns), relearned


def same(a: Scores, b: Scores) -> bool:
    """Whether scores have the same bits."""
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        for name in ("z", "centre", "scale")
    )


def same_state(a: Detector, b: Detector) -> bool:
    """Whether two detectors hold the same bits."""
    mine, other = a.dump(), b.dump()
    return mine.keys() == other.keys() and all(
        np.array_equal(mine[k], other[k], equal_nan=mine[k].dtype.kind == "f") for k in mine
    )


every_detector = pytest.mark.parametrize("name", EVERY)

# "auto" and its single checks learn in panes: what only they promise is in test_detectors_auto.py.
IN_PANES = ("auto", "drift", "season", "noise", "stuck")
every_windowed_detector = pytest.mark.parametrize("name", [n for n in EVERY if n not in (*IN_PANES, "gap")])

# "gap" looks at times and at changes of unit: quiet and lively values are one to it, and a silence of 100 s
# between points is what it is there to find. The twins of these laws for times are in test_detectors_gap.py.


# --- the laws ---------------------------------------------------------------------------------------------


@every_detector
@examples(300)
@given(stream=streams(), at=places())
def test_stepping_a_then_b_is_stepping_both(name: str, stream: Points, at: list[int]) -> None:
    """However a stream is cut into calls, scores, relearned points and state have the same bits."""
    whole, parted = made(name), made(name)
    (scores, relearned), (other, other_relearned) = stepped(whole, [stream]), stepped(parted, cut(stream, at))
    assert same(scores, other)
    assert relearned == other_relearned
    assert same_state(whole, parted)


@every_detector
@examples(300)
@given(stream=streams(rows=2, size=400))
def test_a_long_run_is_the_same_point_by_point(name: str, stream: Points) -> None:
    """A long stretch of few series has the bits of one call a point."""
    whole, single = made(name), made(name)
    assert same(
        stepped(whole, [stream])[0],
        stepped(single, [stream.take(slice(i, i + 1)) for i in range(len(stream))])[0],
    )
    assert same_state(whole, single)


@every_detector
@examples(200)
@given(stream=streams(rows=3))
def test_series_do_not_see_each_other(name: str, stream: Points) -> None:
    """A series among others has the scores it has alone, in whatever row it stands."""
    among = made(name).step(stream)
    for row in range(3):
        mine = np.flatnonzero(stream.series == row)
        alone = (
            points(0, stream.t_ms[mine], stream.value[mine], stream.late[mine])
            if len(mine)
            else Points.empty()
        )
        assert same(
            made(name, rows=1).step(alone), Scores(among.z[mine], among.centre[mine], among.scale[mine])
        )


@every_detector
@examples(300)
@given(stream=streams(), at=places())
def test_a_snapshot_changes_nothing(name: str, stream: Points, at: list[int]) -> None:
    """Dumped and loaded into a fresh detector between any two calls, it goes on with the same bits."""
    steady, other = made(name), made(name)
    for part in cut(stream, at):
        loaded = empty(name)
        loaded.load({key: column.copy() for key, column in other.dump().items()})
        other = loaded
        assert same(steady.step(part), other.step(part))
    assert same_state(steady, other)


@every_detector
@examples(300)
@given(stream=streams(), other=streams())
def test_a_score_never_depends_on_the_future(name: str, stream: Points, other: Points) -> None:
    """Whatever comes after a point in the same call, its score is the same."""
    alone, followed = made(name).step(stream), made(name).step(Points.concat([stream, other]))
    n = len(stream)
    assert same(alone, Scores(followed.z[:n], followed.centre[:n], followed.scale[:n]))


@every_detector
@pytest.mark.parametrize(("shift", "factor"), [(1e6, 1.0), (0.0, 1e6), (-40.0, -3.0), (273.15, 1e-6)])
def test_shifted_and_scaled_data_has_the_same_relative_score(name: str, shift: float, factor: float) -> None:
    """Degrees or kelvin, volts or microvolts: a relative score is the same but for rounding."""
    values = np.round(noise(400, mean=0.0), 3)
    values[200:210] += 8.0
    before = made(name, QUIET, 1).step(series_of(values)).z
    after = made(name, QUIET, 1).step(series_of(values * factor + shift)).z
    assert np.array_equal(np.isnan(before), np.isnan(after))
    assert np.nanmax(np.abs(np.abs(after) - np.abs(before)) / np.maximum(np.abs(before), 1.0)) < 1e-6


@pytest.mark.parametrize("name", [n for n in EVERY if n not in IN_PANES])
def test_cold_is_nan_and_not_zero(name: str) -> None:
    """Before ``min_points`` points are learned there is no score; then there is one for every point."""
    z = made(name, QUIET, 1).step(series_of(noise(60))).z
    assert np.isnan(z[:20]).all()
    assert np.isfinite(z[20:]).all()


@every_detector
def test_an_empty_call_is_no_call(name: str) -> None:
    """No points: no scores, no change."""
    detector, other = made(name), made(name)
    assert len(detector.step(Points.empty()).z) == 0
    assert same_state(detector, other)


@pytest.mark.parametrize("name", [n for n in EVERY if n not in ("gap", "drift", "season", "stuck")])
def test_two_pasts_give_two_scores(name: str) -> None:
    """The same value is scored differently after a quiet and after a lively past."""
    scores = [
        made(name, QUIET, 1).step(series_of(np.append(noise(100, deviation=d), 22.0))).z[-1]
        for d in (0.1, 1.0)
    ]
    assert abs(scores[0]) > 2 * abs(scores[1])


@every_detector
def test_state_is_bounded(name: str) -> None:
    """A hundred windows of points, half of them anomalous, take no more room than the first."""
    detector = made(name, SMALL, 4)
    values = noise(2000 * 4).reshape(2000, 4)
    values[1000:] *= 1.0 + (np.arange(1000) % 2)[:, None]
    detector.step(ticks(values[:20]))
    size = {key: column.nbytes for key, column in detector.dump().items()}
    detector.step(ticks(values))
    assert {key: column.nbytes for key, column in detector.dump().items()} == size


@every_detector
@examples(300)
@given(stream=streams())
def test_no_input_raises_or_gives_an_infinite_score(name: str, stream: Points) -> None:
    """NaN, infinities, 1e308, sentinels, clocks that jump by days: scores are NaN or within bounds."""
    z = made(name).step(stream).z
    assert (np.isnan(z) | (np.abs(z) <= Z_MAX)).all()


@every_windowed_detector
@pytest.mark.parametrize("bad", BAD_VALUES)
@pytest.mark.parametrize("n", [1, 3])
def test_a_bad_value_is_not_a_reason_to_forget(name: str, bad: float, n: int) -> None:
    """After bad values a normal one is still normal, and a step of ten deviations is still found."""
    detector = made(name, QUIET, 1)
    detector.step(series_of(noise(100)))
    detector.step(points(0, 100_000 + 1000 * np.arange(n), np.full(n, bad)))
    after = detector.step(points(0, 200_000 + 1000 * np.arange(11), np.append(noise(10, seed=1), 25.0))).z
    assert (np.abs(after[:10]) < 3.5).all()
    assert after[10] > 8.0
    held = {"zscore, timed": PART, "robust, timed": PART}.get(name, 1.0)
    assert detector.ready_count(np.array([0]))[0] == held * QUIET.window


@every_detector
@examples(300)
@given(stream=streams(), at=places())
def test_every_score_has_its_reason_and_what_is_new_in_it(name: str, stream: Points, at: list[int]) -> None:
    """The code says which check gave a score or why there is none, whatever the calls; NaN has its own.

    ``fresh`` is |z| or less, and known where z is.
    """
    whole, parted = made(name), made(name)
    scores = whole.step(stream)
    assert ((scores.reason >= Reason.WARMING) == np.isnan(scores.z)).all()
    assert ((scores.reason == Reason.NOT_A_NUMBER) == ~usable(stream.value)).all()
    parts = [parted.step(part) for part in cut(stream, at)]
    assert np.array_equal(scores.reason, np.concatenate([part.reason for part in parts]))
    assert np.array_equal(scores.fresh, np.concatenate([part.fresh for part in parts]), equal_nan=True)
    assert np.array_equal(np.isnan(scores.fresh), np.isnan(scores.z))
    assert not (scores.fresh > np.abs(scores.z)).any()


@every_detector
@pytest.mark.parametrize(
    "values",
    [np.full(50, 20.1), np.full(50, np.nan), np.array([1e308]), noise(50, mean=1e9, deviation=1e-6)],
    ids=["constant", "all missing", "one point", "huge mean, tiny noise"],
)
def test_a_poor_series_has_poor_scores_and_no_error(name: str, values: np.ndarray) -> None:
    """A series that says nothing is never an anomaly."""
    z = made(name, QUIET, 1).step(series_of(values)).z
    assert (np.isnan(z) | (np.abs(z) < 4.0)).all()


# --- the z-score ------------------------------------------------------------------------------------------


def zscore(params: DetectorParams = QUIET, rows: int = 1) -> ZScore:
    detector = ZScore(params)
    detector.grow(rows)
    return detector


def test_z_is_against_the_window_without_the_point() -> None:
    """z is (x - mean) / std of the 60 points before, and so can exceed what a point in its own window can."""
    values = np.append(noise(200), 30.0)
    scores = zscore().step(series_of(values))
    window = values[140:200]
    assert np.abs(scores.z[140:200]).max() < 3.0
    assert scores.centre[200] == pytest.approx(window.mean(), rel=1e-12)
    assert scores.scale[200] == pytest.approx(window.std(), rel=1e-12)
    assert scores.z[200] == pytest.approx((30.0 - window.mean()) / window.std(), rel=1e-12)
    assert scores.z[200] > np.sqrt(60 - 1)


def test_an_anomaly_cannot_hide_itself() -> None:
    """A level beyond the line stays beyond it for as long as it lasts, up to relearning."""
    values = np.append(noise(100), noise(400, seed=1, mean=23.5))
    assert (zscore().step(series_of(values)).z[100:] > 3.0).all()


def test_a_level_that_lasts_becomes_normal_and_that_is_said_once() -> None:
    """After ``relearn_ms`` beyond the line the newest points are the baseline; the point is named."""
    params = DetectorParams(window=60, min_points=20, relearn_ms=100_000)
    detector = zscore(params)
    z = detector.step(series_of(np.append(noise(100), noise(200, seed=1, mean=30.0)))).z
    assert detector.relearned().tolist() == [200]
    assert (z[100:201] > 3.0).all()
    assert (np.abs(z[202:]) < 5.0).all()
    assert np.median(np.abs(z[202:])) < 1.0
    detector.step(Points.empty())
    assert detector.relearned().tolist() == []


def test_a_clock_set_back_does_not_put_off_relearning() -> None:
    """A suspicion that began under a clock a year ahead ends when it has lasted by the new clock."""
    params = DetectorParams(window=60, min_points=20, relearn_ms=100_000)
    detector = zscore(params)
    stream = series_of(np.append(noise(100), noise(200, seed=1, mean=30.0)))
    stream.t_ms[100] += 31_536_000_000
    detector.step(stream)
    assert detector.relearned().tolist() == [201]


def test_a_late_point_is_scored_and_not_learned() -> None:
    """A point marked late gets its score and leaves the state as it was."""
    detector, other = zscore(), zscore()
    for each in (detector, other):
        each.step(series_of(noise(100)))
    assert detector.step(points(0, 50_000, 25.0, [True])).z[0] > 8.0
    assert same_state(detector, other)


def test_one_step_of_the_resolution_is_one_deviation() -> None:
    """A constant series that moves by its smallest step is one deviation away, not infinitely many."""
    z = zscore().step(series_of(np.append(np.full(100, 20.1), [20.2, 20.1, 20.4]))).z
    assert z[100] == pytest.approx(1.0, abs=1e-6)
    assert z[102] < 3.0


def test_rounding_is_not_the_resolution() -> None:
    """Steps of a few units in the last place do not make the resolution, and so do not alarm."""
    values = np.full(100, 0.1 + 0.2)
    values[::3] = 0.3
    values = np.append(values, 0.3 + 1e-9)
    assert abs(zscore().step(series_of(values)).z[100]) <= 1.0


def test_the_scale_floor_is_the_least_deviation() -> None:
    """With a floor of 0.5 in the metric's unit, 1.0 off a constant is two deviations."""
    params = DetectorParams(window=60, min_points=20, scale_floor=0.5)
    z = zscore(params).step(series_of(np.append(np.full(100, 20.0), [20.25, 21.0]))).z
    assert z[101] == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("seed", range(25))
def test_noise_alone_rarely_passes_the_line(seed: int) -> None:
    """Of normal noise about 0.3 in 100 points pass 3 deviations of 300 points."""
    z = zscore(DetectorParams()).step(series_of(noise(2000, seed))).z
    assert np.nanmean(np.abs(z) > 3.0) < 0.012


def test_fingerprint_tells_settings_apart() -> None:
    """Different settings have different fingerprints, equal ones the same."""
    assert DetectorParams().fingerprint() == DetectorParams().fingerprint()
    assert DetectorParams().fingerprint() != DetectorParams(window=301).fingerprint()
