"""fleet: who is odd among its peers, and who only has a wrong clock."""

from __future__ import annotations

import numpy as np
import pytest
from sites import DAY, T0, arrival, episodes_of, fleet_of, site, z_of
from streams import BAD_VALUES

from plexus_detect.fleet import FleetParams
from plexus_detect.series import Points, Reason

# --- what it finds ----------------------------------------------------------------------------------------


def test_an_odd_device_is_found_and_no_other() -> None:
    """One of twelve that leaves its peers by a few deviations has an episode; the others have none."""
    t_ms, value = site(12, 600)
    value[500:, 3] += 1.0
    stream = arrival(t_ms, value)
    scores = fleet_of(12).step(stream)
    assert episodes_of(stream, scores.z, 12) == {3}
    odd = (stream.series == 3) & (np.arange(len(stream)) >= 500 * 12)
    assert np.mean(scores.z[odd] > 3.0) > 0.9
    assert np.median(np.abs(scores.centre[odd] - (stream.value[odd] - 1.0))) < 0.3
    assert set(scores.reason[odd].tolist()) <= {Reason.FLEET, Reason.DRIFT}


def test_always_different_is_not_odd() -> None:
    """A device that has read 50 more than its peers from the start is expected to."""
    t_ms, value = site()
    value[:, 5] += 50.0
    stream = arrival(t_ms, value)
    scores = fleet_of(12).step(stream)
    assert episodes_of(stream, scores.z, 12) == set()
    mine = (stream.series == 5) & np.isfinite(scores.z)
    assert np.abs(scores.centre[mine] - stream.value[mine]).max() < 1.0


def test_always_noisy_is_not_odd() -> None:
    """A device ten times as noisy as its peers, from the start, is measured by its own spread."""
    t_ms, value = site()
    value[:, 7] += np.random.default_rng(3).normal(0.0, 1.0, 200)
    stream = arrival(t_ms, value)
    assert episodes_of(stream, z_of(stream, 12), 12) == set()


@pytest.mark.parametrize("what", ["step", "ramp", "spike"])
def test_what_all_do_together_is_no_anomaly_of_one(what: str) -> None:
    """A fleet event, many sources moving together, opens no episode."""
    t_ms, value = site(20)
    value[150:] += {"step": 5.0, "ramp": 1.0 * np.arange(50)[:, None], "spike": 0.0}[what]
    value[150:151] += 8.0 if what == "spike" else 0.0
    stream = arrival(t_ms, value)
    assert episodes_of(stream, z_of(stream, 20), 20) == set()


def test_an_odd_device_is_found_while_the_fleet_moves() -> None:
    """A common ramp hides nobody who does not take part in it."""
    t_ms, value = site(20, 700)
    others = np.arange(20) != 4
    value[600:, others] += 0.3 * np.arange(100)[:, None]
    stream = arrival(t_ms, value)
    assert episodes_of(stream, z_of(stream, 20), 20) == {4}


MINUTE = 60_000


def days(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sensors that send every minute, under one daily cycle."""
    t_ms, value = site(n, k, seed, cadence_ms=MINUTE)
    return t_ms, value + 4.0 * np.sin(np.arange(k) / 1440 * 2 * np.pi)[:, None]


def beyond(stream: Points, scores: np.ndarray, since_minute: int) -> np.ndarray:
    """The sources with a score beyond the line since then, each once."""
    late = stream.t_ms >= T0 + since_minute * MINUTE
    return np.unique(stream.series[late & (np.abs(scores) > 3.0)])


def test_a_heat_wave_and_a_sensor_2_degrees_warmer_for_ever_are_silent() -> None:
    """Eight degrees in three hours on all, and one device that always reads 2 more, accuse nobody."""
    t_ms, value = days(20, 1700)
    value += 8.0 / (1.0 + np.exp(-(np.arange(1700) - 1300) / 60.0))[:, None]
    value[:, 5] = value[:, 6] + 2.0 + np.random.default_rng(2).normal(0.0, 0.1, 1700)
    value[:, 9] += 60.0
    stream = arrival(t_ms, value)
    fleet = fleet_of(20)
    scores = fleet.step(stream)
    assert len(beyond(stream, scores.z, 800)) <= 1
    assert fleet.different(np.arange(20))[9]
    assert fleet.different(np.arange(20)).sum() <= 4


def test_a_roll_out_that_reaches_one_device_after_the_other_is_silent() -> None:
    """A step of twenty deviations on all within half an hour: the first may be odd for a while, the others
    not, and nobody is after it."""
    t_ms, value = days(20, 1600)
    when = 1200 + np.random.default_rng(4).integers(0, 30, 20)
    value += 2.0 * (np.arange(1600)[:, None] >= when)
    stream = arrival(t_ms, value)
    scores = fleet_of(20).step(stream)
    assert len(beyond(stream, scores.z, 1200)) <= 8
    assert len(beyond(stream, scores.z, 1400)) == 0


@pytest.mark.parametrize(
    ("what", "reasons"),
    [
        ("drift", {Reason.FLEET, Reason.DRIFT}),
        ("stuck", {Reason.STUCK}),
        ("noise", {Reason.NOISE, Reason.FLEET}),
        ("spike", {Reason.FLEET, Reason.NOISE}),
    ],
)
def test_each_kind_of_fault_is_found_and_named(what: str, reasons: set[Reason]) -> None:
    """A drift of a degree an hour, a stuck sensor, noise sixfold, a spike: found in time, by its check."""
    t_ms, value = days(12, 1200)
    value = np.round(value, 2)
    after = np.arange(1200) >= 1000
    if what == "drift":
        value[after, 3] += (np.arange(1200)[after] - 1000) / 60.0
    elif what == "stuck":
        value[after, 3] = value[1000, 3]
    elif what == "noise":
        value[after, 3] += np.random.default_rng(6).normal(0.0, 0.6, 200)
    else:
        value[1000, 3] += 5.0
    stream = arrival(t_ms, value)
    scores = fleet_of(12).step(stream)
    assert 3 in beyond(stream, scores.z, 1000)
    found = np.flatnonzero((stream.series == 3) & (np.abs(scores.z) > 3.0) & (stream.t_ms >= t_ms[1000, 3]))
    assert stream.t_ms[found[0]] - t_ms[1000, 3] <= {"drift": 90, "spike": 0}.get(what, 30) * MINUTE
    assert Reason(scores.reason[found[0]]) in reasons


def test_why_there_is_no_score_is_said() -> None:
    """Too small a group, too few points, no number: each unknown has its reason, none is 0."""
    t_ms, value = site(6, 100)
    value[60, 2] = np.nan
    stream = arrival(t_ms, value)
    scores = fleet_of(6).step(stream)
    assert Reason.GROUP_SMALL in scores.reason[:8]
    unknown = np.isnan(scores.z)
    assert (scores.reason[unknown] >= Reason.WARMING).all()
    assert (scores.reason[~unknown] < Reason.WARMING).all()
    assert set(scores.reason[10 * 6 : 25 * 6].tolist()) == {Reason.WARMING}
    assert scores.reason[np.isnan(stream.value)].tolist() == [Reason.NOT_A_NUMBER]


def test_clocks_a_little_ahead_do_not_drive_the_time_of_the_fleet() -> None:
    """With a tenth of the clocks two and a half buckets ahead, the buckets keep pace with the minutes."""
    t_ms, value = days(20, 600)
    t_ms[:, [3, 8]] += 150_000
    fleet = fleet_of(20)
    fleet.step(arrival(t_ms, value))
    width = int(fleet.groups.bucket_ms[0])
    assert fleet.groups.turns[0] <= 600 * MINUTE / width
    assert abs(fleet.groups.slot[0] * width - t_ms[-1, 0]) <= 90_000


def test_too_small_a_group_has_no_score() -> None:
    """Four sources are no fleet of five, and five are none when two have gone silent."""
    t_ms, value = site(4)
    assert np.isnan(z_of(arrival(t_ms, value), 4)).all()
    t_ms, value = site(5)
    keep = np.ones_like(value, np.bool_)
    keep[100:, :2] = False
    stream = arrival(t_ms, value, keep)
    z = z_of(stream, 5)
    gone = stream.t_ms >= T0 + 105_000
    assert np.isfinite(z[(stream.t_ms >= T0 + 60_000) & (stream.t_ms < T0 + 99_000)]).all()
    assert np.isnan(z[gone]).all()


def test_a_new_offset_that_lasts_becomes_normal_and_is_said() -> None:
    """After ``relearn_ms`` the offset is that of the flagged points, and the point is named."""
    t_ms, value = site(12, 300)
    value[100:, 3] += 5.0
    stream = arrival(t_ms, value)
    fleet = fleet_of(12, FleetParams(relearn_ms=60_000))
    z = fleet.step(stream).z
    (at,) = fleet.relearned().tolist()
    assert stream.series[at] == 3
    assert abs(stream.t_ms[at] - (T0 + 160_000)) < 2_000
    later = (stream.series == 3) & (np.arange(len(z)) > at)
    assert np.isfinite(z[later][40:]).all()
    assert np.nanmax(np.abs(z[later])) < 4.0


def test_identical_sensors_have_a_resolution() -> None:
    """Where all read the same and MAD is 0, one step of the sensor is not infinitely many deviations."""
    t_ms, _ = site(10, 400)
    value = np.full((400, 10), 20.0)
    value[20, 0] = 20.5
    value[200:, 1] = 20.5
    value[350:, 2] = 24.0
    stream = arrival(t_ms, value)
    z = z_of(stream, 10)
    assert np.nanmax(np.abs(z[stream.series == 1])) <= 1.0
    assert episodes_of(stream, z, 10) == {2}


# --- clocks, cadences, dropouts ---------------------------------------------------------------------------


@pytest.mark.parametrize("off_ms", [600_000, -600_000, 365 * DAY, -365 * DAY])
@pytest.mark.parametrize("who", [[0], [0, 5, 9], list(range(8))])
def test_a_wrong_clock_silences_nobody(off_ms: int, who: list[int]) -> None:
    """Devices minutes or a year off are scored themselves, and the others as if nothing were wrong."""
    t_ms, value = site(20)
    value[150:, 3] += 1.5
    right = z_of(arrival(t_ms, value), 20)
    wrong = t_ms.copy()
    wrong[:, who] += off_ms
    stream = arrival(wrong, value)
    z = z_of(stream, 20)
    warm = np.arange(len(z)) >= 50 * 20
    assert np.isfinite(z[warm]).all()
    assert np.median(np.abs(z[warm] - right[warm])) < 0.5
    assert episodes_of(stream, z, 20) == {3}


@pytest.mark.parametrize("off_ms", [600_000, -600_000, 365 * DAY])
def test_a_clock_that_goes_wrong_and_is_put_right_freezes_nobody(off_ms: int) -> None:
    """The first to speak may be a year off, and be corrected later: the fleet's time stays the others'."""
    t_ms, value = site(20, 300)
    t_ms[:100, 0] += off_ms
    stream = arrival(t_ms, value)
    first = np.flatnonzero(stream.series == 0)[0]
    stream = Points.concat([stream.take(slice(first, first + 1)), stream])
    z = z_of(stream, 20)
    assert np.isfinite(z[60 * 20 :]).all()
    assert episodes_of(stream, z, 20) == set()


def test_a_common_leap_in_time_is_followed() -> None:
    """After an hour without any source, the fleet goes on; also when half of them never come back."""
    t_ms, value = site(20, 300)
    t_ms[150:] += 3_600_000
    keep = np.ones_like(value, np.bool_)
    keep[150:, :12] = False
    value[250:, 15] += 2.0
    stream = arrival(t_ms, value, keep)
    fleet = fleet_of(20)
    z = fleet.step(stream).z
    assert fleet.groups.slot[0] == stream.t_ms[-1] // fleet.groups.bucket_ms[0]
    assert np.isfinite(z[stream.t_ms >= T0 + 3_600_000 + 250_000]).all()
    assert episodes_of(stream, z, 20) == {15}


def test_a_fleet_that_all_but_dies_is_not_scored_against_its_past() -> None:
    """When too few come back after a leap, the scores end: the last centre is not kept for ever."""
    t_ms, value = site(20, 400)
    t_ms[150:] += 3_600_000
    keep = np.ones_like(value, np.bool_)
    keep[150:, :17] = False
    z = z_of(arrival(t_ms, value, keep), 20)
    assert np.isnan(z[-300:]).all()


def test_dropouts_change_little() -> None:
    """With a third of all samples missing the odd device is found and nobody else."""
    t_ms, value = site(20, 300)
    value[200:, 3] += 1.5
    keep = np.random.default_rng(5).random(value.shape) > 0.33
    stream = arrival(t_ms, value, keep)
    z = z_of(stream, 20)
    assert episodes_of(stream, z, 20) == {3}


def test_missing_values_are_points_without_a_score() -> None:
    """NaN, infinities and sentinels of one device leave the scores of the others near what they were."""
    t_ms, value = site(12)
    right = z_of(arrival(t_ms, value), 12)
    for bad in BAD_VALUES:
        broken = value.copy()
        broken[100:, 2] = bad
        stream = arrival(t_ms, broken)
        z = z_of(stream, 12)
        others = (stream.series != 2) & np.isfinite(right)
        assert np.isfinite(z[others]).all()
        assert np.median(np.abs(z[others] - right[others])) < 0.3


def test_sources_of_different_cadence_are_compared() -> None:
    """Half the sources send every second, half every five: all are scored, the odd one is found."""
    t_ms, value = site(20, 600)
    value[500:, 3] += 2.0
    value[500:, 14] += 2.0
    keep = np.ones_like(value, np.bool_)
    keep[:, 10:] = (np.arange(600) % 5 == 0)[:, None]
    stream = arrival(t_ms, value, keep)
    z = z_of(stream, 20)
    assert np.isfinite(z[stream.t_ms > T0 + 300_000]).all()
    assert episodes_of(stream, z, 20) == {3, 14}


@pytest.mark.parametrize("cadence_ms", [100, 1_000, 17_000, 60_000, 300_000, DAY])
def test_the_bucket_follows_the_cadence(cadence_ms: int) -> None:
    """Whatever the cadence, the bucket is between a third and the double of it, and scores come."""
    t_ms, value = site(8, 100, cadence_ms=cadence_ms)
    fleet = fleet_of(8)
    z = fleet.step(arrival(t_ms, value)).z
    assert cadence_ms / 3 <= fleet.groups.bucket_ms[0] <= 2 * cadence_ms
    assert np.isfinite(z[-200:]).all()


def test_a_configured_bucket_stays() -> None:
    """``bucket_ms`` is taken as given."""
    t_ms, value = site(8)
    fleet = fleet_of(8, FleetParams(bucket_ms=5_000))
    fleet.step(arrival(t_ms, value))
    assert fleet.groups.bucket_ms[0] == 5_000


def test_stale_after_counts_in_time() -> None:
    """With ``stale_ms`` of a minute, sources that are silent for half a minute still make the group."""
    t_ms, value = site(6)
    keep = np.ones_like(value, np.bool_)
    keep[100:, :2] = False
    stream = arrival(t_ms, value, keep)
    z = z_of(stream, 6, FleetParams(stale_ms=60_000))
    assert np.isfinite(z[(stream.t_ms >= T0 + 110_000) & (stream.t_ms < T0 + 155_000)]).all()
    assert np.isnan(z[stream.t_ms >= T0 + 170_000]).all()
