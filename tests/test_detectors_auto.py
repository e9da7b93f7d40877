"""detectors: "auto" and its single checks, which learn in panes of 16 points against lines of their own."""

from __future__ import annotations

import numpy as np
import pytest
from streams import BAD_VALUES, noise, points, series_of, ticks

from plexus_detect.detectors import REGISTRY, Auto, DetectorParams
from plexus_detect.series import Points, Reason, Scores

DAY_MS = 86_400_000
# A Monday, midnight UTC.
MONDAY = 1_704_067_200_000
PANED = ("auto", "drift", "season", "noise", "stuck")


def scored(
    values: np.ndarray, step_ms: int = 1000, params: DetectorParams | None = None, name: str = "auto"
) -> Scores:
    """The scores of one series with a value every ``step_ms``, from Monday on."""
    detector = REGISTRY[name](params or DetectorParams())
    detector.grow(1)
    return detector.step(points(0, MONDAY + step_ms * np.arange(len(values)), values))


def room(days: float, seed: int = 0, minutes: int = 1) -> np.ndarray:
    """Temperatures of a room with a daily cycle of 2.5 degrees, slow weather and a noisy sensor."""
    rng = np.random.default_rng(seed)
    n = round(days * 1440 / minutes)
    hour = np.arange(n) * minutes / 60.0
    weather = np.zeros(n)
    shocks = rng.normal(0.0, 0.02 * np.sqrt(minutes), n)
    for i in range(1, n):
        weather[i] = 0.999**minutes * weather[i - 1] + shocks[i]
    return np.round(
        21.0 + 2.5 * np.sin(2 * np.pi * (hour - 9) / 24) + 0.5 * weather + rng.normal(0.0, 0.05, n), 2
    )


@pytest.mark.parametrize("name", PANED)
def test_scores_begin_after_two_panes(name: str) -> None:
    """The first 32 points have no score, every later one has."""
    z = scored(noise(80), name=name).z
    assert np.isnan(z[:32]).all()
    assert np.isfinite(z[32:]).all()


@pytest.mark.parametrize("bad", BAD_VALUES)
@pytest.mark.parametrize("n", [1, 3])
def test_after_bad_values_it_goes_on(bad: float, n: int) -> None:
    """Soon after bad values normal ones are normal again, and a step of ten deviations is still found."""
    detector = Auto(DetectorParams())
    detector.grow(1)
    detector.step(series_of(noise(200)))
    detector.step(points(0, 200_000 + 1000 * np.arange(n), np.full(n, bad)))
    after = detector.step(
        points(0, 210_000 + 1000 * np.arange(53), np.append(noise(50, seed=1), [25.0] * 3))
    ).z
    assert (np.abs(after[24:50]) < 3.0).all()
    assert (after[51:] > 3.0).all()


def test_one_wild_value_is_one_alarm() -> None:
    """A single value off by a hundred deviations is beyond the line, and neither of its neighbours is."""
    values = noise(400)
    values[300] += 50.0
    z = scored(values).z
    assert z[300] > 30.0
    assert (np.abs(np.delete(z, 300)[32:]) < 3.0).all()


@pytest.mark.parametrize("n", [60, 120, 300])
def test_the_public_tutorials_readings_are_found(n: int) -> None:
    """The printed readings that its own formula misses are beyond the line from the first that is off."""
    quiet = np.round(22.4 + 0.05 * np.random.default_rng(0).normal(size=n), 2)
    z = scored(np.append(quiet, [22.41, 22.45, 23.18, 24.05, 24.92, 25.78, 26.43]), 2000).z
    assert (np.abs(z[n : n + 2]) < 3.0).all()
    assert (z[n + 2 :] > 3.0).all()


@pytest.mark.parametrize(("shape", "reason"), [("stuck", Reason.STUCK), ("noise", Reason.NOISE)])
def test_the_reason_names_the_check(shape: str, reason: Reason) -> None:
    """A sensor that stands still is stuck, one that becomes restless is noisy."""
    values = np.round(noise(2000, deviation=0.05), 2)
    values[1500:1600] = values[1500] if shape == "stuck" else np.round(noise(100, 5, deviation=0.4), 2)
    scores = scored(values)
    beyond = np.flatnonzero(np.abs(scores.z) > 3.0)
    assert 1500 <= beyond[0] < 1512
    assert reason in scores.reason[1500:1600][np.abs(scores.z[1500:1600]) > 3.0]


def test_a_status_that_never_changes_is_not_stuck_and_its_first_change_is_rare() -> None:
    """Days of zeros are the habit of a status; the first one is news."""
    values = np.zeros(4000)
    values[3500:] = 1.0
    scores = scored(values)
    assert (np.abs(scores.z[32:3500]) < 3.0).all()
    assert abs(scores.z[3500]) > 3.0
    assert scores.reason[3500] in (Reason.RARE, Reason.NOVEL)


def test_a_daily_cycle_is_silent_and_a_drift_over_hours_is_not() -> None:
    """Ten days of weather, day and night alarm hardly ever; 5 degrees in 8 hours on the last do, as drift."""
    values = room(11.0)
    calm = scored(values, 60_000)
    assert (np.abs(calm.z[2 * 1440 :]) > 3.0).mean() < 0.002
    fault = np.minimum(np.maximum(np.arange(len(values)) - 10 * 1440, 0) / 480.0, 1.0) * 5.0
    found = scored(np.round(values + fault, 2), 60_000)
    beyond = np.flatnonzero(np.abs(found.z[10 * 1440 :]) > 3.0)
    assert len(beyond) > 60
    assert beyond[0] < 360
    assert Reason.DRIFT in found.reason[10 * 1440 + beyond]


def test_the_season_is_that_of_the_time_zone_also_when_clocks_change() -> None:
    """A machine that starts at eight o'clock local time starts an hour earlier in UTC in summer: no alarm."""
    start = 1_742_774_400_000  # Monday 24 March 2025, six days before clocks change in Berlin.
    t_ms = start + 60_000 * np.arange(14 * 1440)
    summer = t_ms >= 1_743_296_400_000
    local_hour = (t_ms // 60_000 + 60 + 60 * summer) % 1440 / 60.0
    values = np.where((local_hour >= 8) & (local_hour < 18), 30.0, 20.0)
    values = np.round(values + noise(len(values), 3, 0.0, 0.1), 2)

    def season(timezone: str) -> np.ndarray:
        detector = REGISTRY["season"](DetectorParams(timezone=timezone))
        detector.grow(1)
        day = (t_ms >= start + 8 * DAY_MS) & (t_ms < start + 12 * DAY_MS)
        return np.abs(detector.step(points(0, t_ms, values)).centre - values)[day]

    assert np.mean(season("Europe/Berlin") > 5.0) < 0.5 * np.mean(season("UTC") > 5.0)


def test_a_level_that_lasts_becomes_normal_and_that_is_said() -> None:
    """After ``relearn_ms`` beyond the line the new level is the expected one; the point is named once."""
    detector = Auto(DetectorParams(relearn_ms=600_000))
    detector.grow(1)
    values = np.append(noise(2000), noise(3000, 1, 40.0))
    scores = detector.step(series_of(values))
    assert len(detector.relearned()) >= 1
    first = int(detector.relearned()[0])
    assert 2600 <= first < 2700
    assert (np.abs(scores.z[2000:first]) > 3.0).mean() > 0.95
    assert (np.abs(scores.z[first + 600 :]) < 3.0).all()
    assert abs(scores.centre[first + 100] - 40.0) < 1.0


def test_an_incident_does_not_become_the_baseline() -> None:
    """Half an hour of 20 degrees more does not make the same half an hour normal a while later."""
    values = np.round(noise(6000, deviation=0.1), 2)
    values[3000:3300] += 20.0
    values[5000:5300] += 20.0
    z = np.abs(scored(values).z)
    assert (z[3000:3300] > 3.0).all()
    assert (z[5000:5300] > 3.0).all()
    assert (z[3400:5000] < 3.0).mean() > 0.999


def test_after_an_outage_the_baseline_is_not_the_outage() -> None:
    """A night of silence, then another place in the swing it was in: no alarm, and scores go on."""
    t_ms = np.append(2000 * np.arange(2000), 2000 * 2000 + DAY_MS // 2 + 2000 * np.arange(1000))
    values = 20.0 + 4.0 * np.sin(t_ms / 1_200_000) + noise(3000, 1, 0.0, 0.1)
    values[2000:] += 3.0 - values[2000] + 20.0
    detector = Auto(DetectorParams())
    detector.grow(1)
    z = np.abs(detector.step(points(0, t_ms, np.round(values, 2))).z)
    assert np.isfinite(z[2000:]).all()
    assert (z[2000:2300] < 3.0).all()


def test_many_series_side_by_side_are_each_as_alone() -> None:
    """Series of other lengths, phases and cadences in the same call change nothing, bit for bit."""
    rng = np.random.default_rng(3)
    matrix = np.round(rng.normal(20.0, 1.0, (300, 40)), 2)
    stream = ticks(matrix)
    keep = rng.random(len(stream)) < np.linspace(0.5, 1.0, 40)[stream.series]
    stream = stream.take(keep)
    together = Auto(DetectorParams())
    together.grow(40)
    parts = [together.step(stream.take(slice(i, i + 97))) for i in range(0, len(stream), 97)]
    z = np.concatenate([part.z for part in parts])
    for row in (0, 7, 39):
        mine = stream.series == row
        alone = Auto(DetectorParams())
        alone.grow(1)
        one = Points(np.zeros(int(mine.sum()), np.int64), stream.t_ms[mine], stream.value[mine])
        assert np.array_equal(alone.step(one).z, z[mine], equal_nan=True)


def test_the_news_of_a_lasting_alarm_is_at_its_beginning() -> None:
    """``fresh`` discounts what was alarmed: of a level that lasts it is beyond the line for a short while."""
    values = np.append(noise(3000), noise(600, 1, 30.0))
    scores = scored(values)
    assert (np.abs(scores.z[3000:3500]) > 3.0).all()
    assert scores.fresh[3000] > 3.0
    assert (scores.fresh[3040:3500] < 3.0).mean() > 0.9
