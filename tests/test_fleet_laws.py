"""fleet: the laws of a detector hold for the cross-section too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from profiles import examples
from sites import SMALL, arrival, fleet_of, same, same_state, site, two_groups, z_of
from streams import cut, places, streams

from plexus_detect.fleet import Fleet, FleetParams
from plexus_detect.series import Points, Scores
from plexus_detect.stats import Z_MAX


@examples(250)
@given(stream=streams(rows=12, late=False, size=200), at=places(200))
def test_stepping_a_then_b_is_stepping_both(stream: Points, at: list[int]) -> None:
    """However a stream is cut into calls, scores and state have the same bits."""
    whole, parted = two_groups(), two_groups()
    scores = whole.step(stream)
    parts = [parted.step(part) for part in cut(stream, at)]
    columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("z", "centre", "scale"))
    assert same(scores, Scores(*columns))
    assert same_state(whole, parted)


def test_a_busy_stream_is_the_same_point_by_point() -> None:
    """The same with a fleet that works: strays, leaps, dropouts and relearning, one call a point."""
    t_ms, value = site(12, 150)
    t_ms[:, 1] += 600_000
    t_ms[100:, 2] -= 700_000
    t_ms[120:] += 3_600_000
    value[60:, 4] += 5.0
    value[70:75, 5] = np.nan
    stream = arrival(t_ms, value)
    params = FleetParams(min_points=10, relearn_ms=20_000)
    whole, single = two_groups(12, params), two_groups(12, params)
    scores = whole.step(stream)
    parts = [single.step(stream.take(slice(i, i + 1))) for i in range(len(stream))]
    columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("z", "centre", "scale"))
    assert same(scores, Scores(*columns))
    assert same_state(whole, single)
    assert len(whole.relearned()) > 0


@examples(250)
@given(stream=streams(rows=12, late=False, size=200), at=places(200))
def test_a_snapshot_changes_nothing(stream: Points, at: list[int]) -> None:
    """Dumped and loaded into a fresh one between any two calls, a fleet goes on with the same bits."""
    steady, other = two_groups(), two_groups()
    for part in cut(stream, at):
        loaded = Fleet(SMALL)
        loaded.load({key: column.copy() for key, column in other.dump().items()})
        other = loaded
        assert same(steady.step(part), other.step(part))
    assert same_state(steady, other)
    assert (steady.join(3), steady.join(0)) == (other.join(3), other.join(0)) == (12, 13)
    assert same_state(steady, other)


@examples(200)
@given(stream=streams(rows=12, late=False, size=200), other=streams(rows=12, late=False, size=200))
def test_a_score_never_depends_on_the_future(stream: Points, other: Points) -> None:
    """Whatever comes after a point, its score is the same."""
    alone, followed = two_groups().step(stream), two_groups().step(Points.concat([stream, other]))
    n = len(stream)
    assert same(alone, Scores(followed.z[:n], followed.centre[:n], followed.scale[:n]))


@examples(200)
@given(stream=streams(rows=12, late=False, size=200))
def test_fleets_do_not_see_each_other(stream: Points) -> None:
    """A fleet in a bank with another has the scores it has alone."""
    among = two_groups().step(stream)
    mine = np.flatnonzero(stream.series % 3 != 2)
    row = stream.series[mine] // 3 * 2 + stream.series[mine] % 3
    alone = fleet_of(8, SMALL).step(Points(row, stream.t_ms[mine], stream.value[mine]))
    assert same(alone, Scores(among.z[mine], among.centre[mine], among.scale[mine]))


@pytest.mark.parametrize(("shift", "factor"), [(1e5, 1.0), (0.0, 1e6), (273.15, -1e-3)])
def test_shifted_and_scaled_data_has_the_same_relative_score(shift: float, factor: float) -> None:
    """Degrees or kelvin: the score is the same but for rounding."""
    t_ms, value = site()
    value[150:, 3] += 1.0
    before, after = z_of(arrival(t_ms, value), 12), z_of(arrival(t_ms, value * factor + shift), 12)
    assert np.array_equal(np.isnan(before), np.isnan(after))
    assert np.nanmax(np.abs(np.abs(after) - np.abs(before)) / np.maximum(np.abs(before), 1.0)) < 1e-4


@examples(400)
@given(stream=streams(rows=12, late=False))
def test_no_input_raises_or_gives_an_infinite_score(stream: Points) -> None:
    """NaN, infinities, sentinels, clocks that jump by days: scores are NaN or within bounds."""
    z = two_groups().step(stream).z
    assert (np.isnan(z) | (np.abs(z) <= Z_MAX)).all()


def test_cold_is_nan_and_state_is_bounded() -> None:
    """No score before ``min_points`` comparable points, and no more room however many points come."""
    t_ms, value = site(12, 400)
    fleet = fleet_of(12)
    stream = arrival(t_ms, value)
    z = fleet.step(stream.take(slice(0, 29 * 12))).z
    assert np.isnan(z).all()
    size = {key: column.nbytes for key, column in fleet.dump().items()}
    assert np.isfinite(fleet.step(stream.take(slice(29 * 12, len(stream)))).z[120:]).all()
    assert {key: column.nbytes for key, column in fleet.dump().items()} == size


def test_two_pasts_give_two_scores() -> None:
    """The same excess is scored differently in a quiet and in a lively fleet."""
    scores = []
    for noise in (1.0, 5.0):
        t_ms, value = site()
        value += np.random.default_rng(9).normal(0.0, 0.1 * noise, value.shape)
        value[-1, 3] += 3.0
        stream = arrival(t_ms, value)
        scores.append(z_of(stream, 12)[np.flatnonzero(stream.series == 3)[-1]])
    assert scores[0] > 2 * scores[1]


def test_fingerprint_tells_settings_apart() -> None:
    """Different settings have different fingerprints."""
    assert FleetParams().fingerprint() != FleetParams(group_min=6).fingerprint()
