"""limits: what is possible and what matters is said by a person, not by a detector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import BAD_VALUES, points

from plexus_detect.limits import Limits, LimitsBank
from plexus_detect.series import Points, Reason, Scores
from plexus_detect.stats import Z_MAX

LINE = 3.0


def bank(*rows: Limits) -> LimitsBank:
    out = LimitsBank()
    out.grow(len(rows))
    for row, limits in enumerate(rows):
        out.put(row, limits)
    return out


def at(*values: float) -> Points:
    """A value of each row."""
    return points(np.arange(len(values)), 0, np.array(values))


def scored(
    z: list[float], centre: float = 20.0, reason: Reason = Reason.DEVIATION, **parts: list[float]
) -> Scores:
    n = len(z)
    columns = {Reason[name.upper()]: np.array(column) for name, column in parts.items()}
    return Scores(np.array(z), np.full(n, centre), np.ones(n), np.full(n, reason, np.int8), columns)


def test_a_deviation_below_the_least_is_never_beyond_the_line() -> None:
    """Less than ``min_abs`` or ``min_rel`` of what is expected is brought back to the line, more is left."""
    limits = bank(
        Limits(min_abs=0.5), Limits(min_abs=0.5), Limits(min_rel=0.1), Limits(min_rel=0.1), Limits()
    )
    out = limits.apply(at(20.4, 20.6, 21.9, 17.9, 20.1), scored([9.0, 9.0, 9.0, -9.0, 9.0]), LINE)
    assert out.z.tolist() == [3.0, 9.0, 3.0, -9.0, 9.0]


@pytest.mark.parametrize("reason", [Reason.STUCK, Reason.NOISE, Reason.GAP, Reason.UNIT])
def test_a_check_without_a_distance_has_no_least_and_no_direction(reason: Reason) -> None:
    """A sensor that is stuck at its expected value is stuck all the same."""
    scores = scored([9.0], reason=reason)
    assert bank(Limits(direction=-1, min_abs=5.0)).apply(at(20.0), scores, LINE) is scores


def test_only_the_wanted_direction_counts() -> None:
    """With ``up`` what is too low is at the line at most, and the other way round."""
    limits = bank(Limits(direction=1), Limits(direction=1), Limits(direction=-1), Limits(direction=-1))
    out = limits.apply(at(30.0, 10.0, 30.0, 10.0), scored([9.0, -9.0, 9.0, -9.0]), LINE)
    assert out.z.tolist() == [9.0, -3.0, 3.0, -9.0]


def test_another_check_that_matters_takes_the_place_of_one_that_does_not() -> None:
    """A drift that is too small, or in a direction nobody minds, gives way to a stuck sensor."""
    scores = scored([9.0, 9.0], reason=Reason.DRIFT, drift=[9.0, 9.0], stuck=[5.0, 2.0])
    for limits in (Limits(min_abs=1.0), Limits(direction=-1)):
        out = bank(limits, limits).apply(at(20.1, 20.1), scores, LINE)
        assert out.z.tolist() == out.fresh.tolist() == [5.0, 3.0]
        assert out.reason.tolist() == [Reason.STUCK, Reason.DRIFT]


def test_the_side_of_the_expected_value_is_the_direction_of_a_check_without_sign() -> None:
    """A rare move downwards is unwanted where only rises count, whatever the sign of its score."""
    scores = scored([9.0, 9.0], reason=Reason.RARE)
    out = bank(Limits(direction=1), Limits(direction=1)).apply(at(10.0, 30.0), scores, LINE)
    assert out.z.tolist() == [3.0, 9.0]


def test_out_of_range_is_beyond_the_line_also_while_nothing_is_known() -> None:
    """The further out the larger, with the bound as what was expected; the bounds themselves are valid."""
    limits = bank(*[Limits(low=-40.0, high=60.0)] * 5)
    cold = Scores(*np.full((3, 5), np.nan))
    out = limits.flag(at(60.0, 60.1, 110.0, -90.0, -40.0), cold, LINE)
    assert np.isnan(out.z[[0, 4]]).all()
    assert out.z[1:4].tolist() == pytest.approx([6.003, 7.5, -7.5])
    assert out.centre[1:4].tolist() == [60.0, 60.0, -40.0]
    assert out.reason.tolist() == [Reason.WARMING, *[Reason.RANGE] * 3, Reason.WARMING]


def test_a_larger_score_is_kept_and_the_range_named() -> None:
    """A value far from its past and out of range has the larger of both scores."""
    out = bank(Limits(high=30.0)).flag(at(31.0), scored([50.0]), LINE)
    assert (out.z[0], out.centre[0], out.reason[0]) == (50.0, 20.0, Reason.RANGE)


def test_no_detector_learns_from_values_out_of_range() -> None:
    """They become NaN on the way to the detector; without a limit nothing is touched."""
    seen = bank(Limits(low=0.0), Limits(high=1.0), Limits()).valid(at(-1.0, 0.5, -1e300))
    assert np.array_equal(seen.value, [np.nan, 0.5, -1e300], equal_nan=True)
    unlimited = at(-1.0, np.nan)
    assert bank(Limits(), Limits()).valid(unlimited) is unlimited


def test_the_band_is_as_wide_as_what_matters() -> None:
    """Threshold deviations to each side, or the least deviation where that is more."""
    limits = bank(Limits(), Limits(min_abs=5.0), Limits(min_rel=0.5))
    lower, upper = limits.band(at(0.0, 0.0, 0.0), scored([0.0] * 3), LINE)
    assert lower.tolist() == [17.0, 15.0, 10.0]
    assert upper.tolist() == [23.0, 25.0, 30.0]


odd = st.one_of(st.floats(), st.sampled_from(BAD_VALUES))
some_limits = st.builds(
    Limits,
    st.sampled_from([-1, 0, 1]),
    st.floats(0, 1e300),
    st.floats(0, 1e3),
    st.sampled_from([-np.inf, -1.0, 5.0]),
    st.sampled_from([np.inf, 5.0, 10.0]),
)


@given(some_limits, odd, odd, st.one_of(st.just(np.nan), st.floats(-Z_MAX, Z_MAX)))
def test_no_value_makes_a_score_infinite(limits: Limits, value: float, centre: float, z: float) -> None:
    """Whatever comes in, nothing is raised, a score stays finite or unknown, and its sign stays."""
    rows, scores = bank(limits), scored([z], centre)
    out = rows.apply(at(value), scores, LINE)
    assert np.isnan(z) == np.isnan(out.z[0])
    assert np.isnan(z) or np.sign(out.z[0]) == np.sign(z)
    assert abs(rows.flag(at(value), out, LINE).z[0]) <= Z_MAX or np.isnan(z)
    rows.band(at(value), out, LINE)
