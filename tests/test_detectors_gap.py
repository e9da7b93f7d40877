"""gap: broken cadence, clocks that jump, values in another unit; and what is none of these."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from streams import BAD_VALUES, noise, points, series_of

from plexus_detect.detectors import DetectorParams, Gap
from plexus_detect.detectors.units import CHANGES, TOLERANCE, known_factor
from plexus_detect.series import Reason, Scores

QUIET = DetectorParams(window=60, min_points=20)
HOUR_MS = 3_600_000


def gap(params: DetectorParams = QUIET) -> Gap:
    detector = Gap(params)
    detector.grow(1)
    return detector


def at_times(t_ms: np.ndarray, detector: Gap | None = None) -> Scores:
    """Scores of a series of quiet values at these times."""
    return (detector or gap()).step(points(0, t_ms, noise(len(t_ms), deviation=0.1)))


def beyond(scores: Scores) -> list[int]:
    """Where scores are beyond the line."""
    return np.flatnonzero(np.abs(scores.z) > 3.0).tolist()


# --- the laws that are of values in the suite, for times ----------------------------------------------------


def test_two_pasts_give_two_scores() -> None:
    """The same interval is scored differently after a regular and after an irregular past."""
    rng = np.random.default_rng(0)
    z = []
    for spread in (0.0, 1.0):
        steps = 1000.0 * np.exp(spread * rng.normal(0.0, 1.0, 200))
        t_ms = np.cumsum(np.append(steps, 20_000.0)).astype(np.int64)
        z.append(at_times(t_ms).z[-1])
    assert z[0] > 2 * z[1] > 0.0


@pytest.mark.parametrize("factor", [0.02, 60.0, 3600.0])
def test_slower_and_faster_series_have_the_same_scores(factor: float) -> None:
    """Twenty milliseconds or an hour: a score is relative to the usual interval."""
    steps = np.round(np.random.default_rng(0).uniform(500, 1500, 300)) * 50
    steps[200:203] *= 9.0
    before, after = at_times(np.cumsum(steps)), at_times(np.cumsum(steps * factor))
    assert beyond(before)
    assert np.allclose(before.z, after.z, rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize("bad", BAD_VALUES)
@pytest.mark.parametrize("n", [1, 2])
def test_a_bad_value_is_not_a_reason_to_forget(bad: float, n: int) -> None:
    """After bad values (three that are no numbers are a gap) all is normal, and a silence is found."""
    detector = gap()
    values = np.concatenate([noise(100), np.full(n, bad), noise(10, seed=1)])
    assert beyond(detector.step(series_of(values))) == []
    assert detector.step(points(0, 1000 * len(values) + 60_000, 20.0)).z[0] > 10.0
    assert detector.ready_count(np.array([0]))[0] == QUIET.window


@pytest.mark.parametrize("jump_ms", [86_400_000 * 365, -86_400_000 * 365, 1 << 52])
def test_a_bad_time_is_not_a_reason_to_forget(jump_ms: int) -> None:
    """After a point from another year and the way back, intervals are normal, and a silence is found."""
    t_ms = 1000 * np.arange(200)
    t_ms[100] += jump_ms
    t_ms[160:] += 60_000
    assert beyond(at_times(t_ms)) == [100, 101, 160]


# --- cadence ------------------------------------------------------------------------------------------------


def test_a_silence_is_found_at_the_point_that_ends_it() -> None:
    """Sixty seconds in a series of one a second are 20 times the line, which is three intervals."""
    t_ms = 1000 * np.arange(300)
    t_ms[200:] += 59_000
    scores = at_times(t_ms)
    assert beyond(scores) == [200]
    assert scores.z[200] == pytest.approx(3.0 * 60.0 / 3.0)
    assert scores.reason[200] == Reason.GAP
    assert scores.parts[Reason.GAP][200] == scores.z[200]
    assert scores.parts[Reason.UNIT][200] == 0.0


def test_a_clock_set_back_is_negative() -> None:
    """A point that is not late and yet an hour before the last one is beyond the line, below zero."""
    t_ms = 1000 * np.arange(300)
    t_ms[200:] -= HOUR_MS
    scores = at_times(t_ms)
    assert beyond(scores) == [200]
    assert scores.z[200] == pytest.approx(-3599.0)


def test_a_second_outage_is_found_as_well() -> None:
    """One outage of an hour does not make the next one normal."""
    t_ms = 1000 * np.arange(400)
    t_ms[200:] += HOUR_MS
    t_ms[300:] += HOUR_MS
    assert beyond(at_times(t_ms)) == [200, 300]


def test_another_cadence_is_said_and_then_normal() -> None:
    """A series that goes on at a tenth of its rate is beyond the line at once, for at most 5 points."""
    t_ms = np.cumsum(np.append(np.full(300, 1000), np.full(1000, 10_000)))
    found = beyond(at_times(t_ms))
    assert found[0] == 300
    assert len(found) <= 5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["jitter", "dropped", "events", "batches"])
def test_irregular_series_are_normal(kind: str, seed: int) -> None:
    """Jitter, lost points, events at random times and points of one time: hardly ever an alarm."""
    rng = np.random.default_rng(seed)
    steps = {
        "jitter": np.maximum(1.0, rng.normal(1000, 250, 5000)),
        "dropped": 1000.0 * rng.geometric(0.95, 5000),
        "events": rng.exponential(1000, 5000),
        "batches": np.where(np.arange(5000) % 10 == 0, 1000, 0),
    }[kind]
    assert len(beyond(at_times(np.cumsum(steps).astype(np.int64), gap(DetectorParams())))) <= 2


def test_points_of_one_time_say_nothing() -> None:
    """While no time has passed the cadence is unknown, which is not 0."""
    scores = at_times(np.full(100, 5000))
    assert np.isnan(scores.z).all()
    assert (scores.reason == Reason.WARMING).all()


def test_late_and_missing_points_are_no_part_of_the_cadence() -> None:
    """A late point is unknown as stale, a missing value as no number; neither changes what comes after."""
    detector, other = gap(), gap()
    for each in (detector, other):
        each.step(series_of(noise(100)))
    scores = detector.step(points(0, [50_000, 100_000], [20.0, np.nan], [True, False]))
    assert scores.reason.tolist() == [Reason.STALE, Reason.NOT_A_NUMBER]
    assert np.isnan(scores.z).all()
    after = points(0, 101_000, 20.0)
    assert detector.step(after).z[0] == other.step(after).z[0]


# --- unit ---------------------------------------------------------------------------------------------------


def in_another_unit(factor: float, offset: float, n: int = 400, deviation: float = 0.1) -> np.ndarray:
    values = noise(n, deviation=deviation)
    values[200:] = values[200:] * factor + offset
    return values


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.words)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_known_change_of_unit_is_found(change: object, seed: int) -> None:
    """From the third point in another unit on, and no later than the fifth, the score is beyond the line."""
    values = noise(400, seed, mean=80.0, deviation=0.1)
    values[200:] = values[200:] * change.factor + change.offset
    scores = gap().step(series_of(values))
    found = beyond(scores)
    assert 202 <= found[0] <= 204
    assert found == list(range(found[0], 400))
    assert (scores.reason[found] == Reason.UNIT).all()
    assert (np.sign(scores.z[found]) == np.sign(values[300] - 80.0)).all()
    assert scores.centre[300] == pytest.approx(80.0, abs=0.2)


@pytest.mark.parametrize("deviation", [0.0, 0.2, 0.4])
def test_noise_does_not_hide_a_change_of_unit(deviation: float) -> None:
    """Noise of 2 % of the level, as much as the tolerance, leaves a thousandfold value found."""
    found = beyond(gap().step(series_of(in_another_unit(1000.0, 0.0, deviation=deviation))))
    assert 202 <= found[0] <= 204


def test_one_or_two_points_are_no_change_of_unit() -> None:
    """A glitch of two points at ten times the value is not this detector's."""
    values = noise(300, deviation=0.1)
    values[200:202] *= 10.0
    assert beyond(gap().step(series_of(values))) == []


def test_a_unit_that_lasts_becomes_normal_and_that_is_said_once() -> None:
    """After ``relearn_ms`` in another unit that is the level; the point is named; the way back is found."""
    detector = gap(DetectorParams(window=60, min_points=20, relearn_ms=100_000))
    values = np.concatenate([in_another_unit(1.8, 32.0, 600), noise(50, deviation=0.1)])
    scores = detector.step(series_of(values))
    assert detector.relearned().tolist() == [300]
    assert beyond(scores) == [*range(202, 301), *range(602, 650)]
    assert scores.centre[400] == pytest.approx(68.0, abs=0.5)


def test_a_level_where_the_series_has_been_is_no_change_of_unit() -> None:
    """A machine that works at ten times its idle level is noticed the first time only."""
    values = noise(800, deviation=0.1) * np.where(np.arange(800) // 100 % 2 == 0, 1.0, 10.0)
    found = beyond(gap().step(series_of(values)))
    assert found[0] == 102
    assert found[-1] < 200


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["noise", "walk", "heavy", "counts", "states", "season"])
def test_lively_values_are_no_change_of_unit(kind: str, seed: int) -> None:
    """Values that move by themselves hardly ever pass for a change of unit."""
    rng = np.random.default_rng(seed)
    values = {
        "noise": rng.normal(0.0, 1.0, 5000),
        "walk": np.cumsum(rng.normal(0.0, 1.0, 5000)),
        "heavy": rng.standard_t(2, 5000),
        "counts": np.round(np.exp(rng.normal(3.0, 1.0, 5000))),
        "states": rng.choice([0.0, 1.0, 10.0, 60.0], 5000),
        "season": 20.0 + 15.0 * np.sin(np.arange(5000) / 200.0) + rng.normal(0.0, 0.2, 5000),
    }[kind]
    scores = gap(DetectorParams()).step(series_of(values))
    assert np.count_nonzero(np.diff(np.flatnonzero(scores.reason == Reason.UNIT), prepend=-9) > 1) <= 1


# --- known_factor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (20.0, 200.0, "x10"),
        (20.0, 2.01, "/10"),
        (21.5, 21_480.0, "x1000"),
        (21.5, 22_010.0, "x1024"),
        (20.0, 68.0, "degC to degF"),
        (68.2, 20.1, "degF to degC"),
        (20.0, 293.1, "degC to K"),
        (-5.0, 268.0, "degC to K"),
        (10.0, 32.8, "m to ft"),
        (14.7, 101.35, "psi to kPa"),
        (1.0, 101.3, "atm to kPa"),
        (2.0, 50.8, "in to mm"),
        (70.0, 154.3, "kg to lb"),
        (1.5, 90.2, "x60"),
        (3.0, 10_790.0, "x3600"),
    ],
)
def test_known_factor_names_what_happened(before: float, after: float, words: str) -> None:
    """The change that explains two values best, in words."""
    assert known_factor(before, after) == words


@pytest.mark.parametrize(
    ("before", "after"),
    [(20.0, 20.0), (20.0, 21.0), (20.0, 100.0), (0.0, 32.0), (5.0, 0.0), (-40.0, -40.0), (np.nan, 1.0)],
)
def test_known_factor_of_other_changes_is_none(before: float, after: float) -> None:
    """No change, a small one, an unknown factor, 0, the degree at which scales meet, no number: None."""
    assert known_factor(before, after) is None


@examples(1000)
@given(before=st.floats(width=64), after=st.floats(width=64))
def test_known_factor_takes_any_numbers(before: float, after: float) -> None:
    """Whatever the numbers, an answer is true: the change gives the second value of the first, within 2 %."""
    words = known_factor(before, after)
    if words is not None:
        change = next(c for c in CHANGES if c.words == words)
        expected = before * change.factor + change.offset
        assert abs(after - expected) <= TOLERANCE * abs(expected) * (1 + 1e-12)
