"""lane: what a person says of a metric, and how far out the line is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from streams import noise, points
from test_evaluate import FLEET, RAW, T0, posted, run, scored, seconds, site, state_for, told

from plexus_detect.detectors import DetectorParams, ZScore
from plexus_detect.evaluate import Policy, State
from plexus_detect.limits import Limits
from plexus_detect.series import Kind, Points, Reason, Scores, SeriesTable


class TwoChecks(ZScore):
    """A detector whose checks say twice the z-score and, from the fifth point on, a constant."""

    def step(self, points: Points) -> Scores:
        """The z-scores, with the scores of both checks."""
        scores = super().step(points)
        stuck = np.where(np.arange(len(points)) < 5, np.nan, 1.5)
        return dataclasses.replace(scores, parts={Reason.DRIFT: 2.0 * scores.z, Reason.STUCK: stuck})


def test_an_event_says_which_check_found_it() -> None:
    """The reason of an episode is that of its highest score, also when it closes."""
    limits = (("m0", Limits(high=100.0)),)
    values = np.append(noise(100), [21.0, 500.0, 500.0, 500.0, 20.0, 20.0, 20.0])
    opened, closed = run(state_for(policy=Policy((scored(),), limits=limits)), seconds(values)).events
    assert (opened.reason, closed.reason) == (Reason.RANGE, Reason.RANGE)
    assert told((opened, closed)) == [("opened", 0, 103), ("closed", 0, 106)]
    steps = run(state_for(), seconds(np.append(noise(100), [90.0] * 3))).events
    assert [e.reason for e in steps] == [Reason.DEVIATION]


def test_values_out_of_range_alert_before_warm_up_and_are_never_learned() -> None:
    """An impossible value opens while nothing is known, and the baseline is that of the others."""
    policy = Policy((scored(),), limits=(("m*", Limits(low=-40.0, high=60.0)),))
    values = noise(200)
    values[:3] = -127.0
    evaluation = run(state_for(policy=policy), seconds(values))
    assert told(evaluation.events)[0] == ("opened", 0, 2)
    assert evaluation.events[0].expected == -40.0
    clean = run(state_for(), seconds(np.append([np.nan] * 3, values[3:])))
    assert np.array_equal(evaluation.scores.z[3:], clean.scores.z[3:], equal_nan=True)


def test_a_source_out_of_range_does_not_move_its_fleet() -> None:
    """What the others are compared with comes from valid values only."""
    stream = site()
    broken = Points(stream.series, stream.t_ms, np.where(stream.series == 5, 1e6, stream.value))
    limited = dataclasses.replace(FLEET, limits=(("*", Limits(high=1e5)),))
    evaluation = run(state_for(8, limited, 2), broken)
    assert {e.series for e in evaluation.events if e.kind is Kind.FLEET_ZSCORE} == set()
    assert {e.series for e in evaluation.events if e.kind is Kind.ZSCORE} == {5}


def test_limits_keep_episodes_closed() -> None:
    """A fall where only rises matter, or a step too small to matter, opens nothing; the score is there."""
    values = np.append(noise(200), [10.0] * 5)
    for limits in (Limits(direction=1), Limits(min_abs=15.0)):
        evaluation = run(state_for(policy=Policy((scored(),), limits=(("m0", limits),))), seconds(values))
        assert told(evaluation.events) == []
        assert evaluation.scores.z[-5:].tolist() == [-3.0] * 5


def test_sensitivity_moves_the_line_and_not_the_threshold() -> None:
    """A score of four deviations is an anomaly at medium and not at low; the band is as wide as the line."""
    kinds = frozenset({Kind.ZSCORE, Kind.ZSCORE_RAW, Kind.EXPECTED, Kind.LOWER, Kind.UPPER})
    values = np.append(noise(300, 3), [22.0, 22.0, 22.0])
    medium = run(state_for(policy=Policy((scored(),), kinds)), seconds(values))
    low = run(state_for(policy=Policy((scored(sensitivity=1.5),), kinds)), seconds(values))
    assert told(medium.events) == [("opened", 0, 302)]
    assert low.events == ()
    assert posted(low, Kind.ZSCORE_RAW)[302] == pytest.approx(posted(medium, Kind.ZSCORE_RAW)[302] / 1.5)
    expected = posted(medium, Kind.EXPECTED)[302]
    assert posted(low, Kind.EXPECTED)[302] == expected
    for kind in (Kind.UPPER, Kind.LOWER):
        wide, narrow = (posted(evaluation, kind)[302] - expected for evaluation in (low, medium))
        assert wide == pytest.approx(1.5 * narrow)
    # At the upper bound a value is at the line.
    half = posted(low, Kind.UPPER)[302] - expected
    assert (22.0 - expected) / half == pytest.approx(posted(low, Kind.ZSCORE_RAW)[302] / 3.0)


def test_bounds_are_posted_where_a_score_is() -> None:
    """Nothing is said of what is expected while the series warms up, and no NaN is posted."""
    policy = Policy((scored(),), kinds=RAW, limits=(("*", Limits(min_abs=9.0)),))
    values = noise(60)
    values[40] = np.nan
    evaluation = run(state_for(policy=policy), seconds(values))
    wanted = [s for s in range(30, 60) if s != 40]
    for kind in (Kind.EXPECTED, Kind.LOWER, Kind.UPPER):
        assert sorted(posted(evaluation, kind)) == wanted
    assert posted(evaluation, Kind.UPPER)[59] - posted(evaluation, Kind.LOWER)[59] == pytest.approx(18.0)
    assert np.isfinite(evaluation.derived.value).all()


def test_a_budget_raises_the_line_of_a_series_that_alerts_too_often() -> None:
    """A series that opens every day falls silent under a small budget; one that is calm keeps its line."""
    day = 288
    noisy, calm = noise(20 * day, 1), noise(20 * day, 2)
    for k in range(1, 20):
        noisy[day * k : day * k + 3] += 3.0
    calm[-3:] += 3.0
    t_ms = T0 + 300_000 * np.arange(20 * day)
    stream = Points.concat([points(0, t_ms, noisy), points(1, t_ms, calm)])
    rules = (scored(),)
    free = run(state_for(2, Policy(rules)), stream).events
    bound = run(state_for(2, Policy(rules, alerts_per_day=0.02)), stream).events
    assert sum(e.what == "opened" and e.series == 0 for e in free) >= 18
    assert sum(e.what == "opened" and e.series == 0 for e in bound) <= 6
    assert [e.t_ms for e in bound if e.series == 1] == [e.t_ms for e in free if e.series == 1]


def test_a_newcomer_does_not_change_what_a_replay_counts() -> None:
    """Who came less than an hour ago shares the budget with those before it, and not the other way round."""
    state = State(SeriesTable(), Policy((scored(),), alerts_per_day=6.0))
    hour = 3_600_000
    for name, since in (("a", 0), ("b", 0), ("c", 10 * hour)):
        state.admit(state.table.add(name, "t"), 0, since)
    three = np.arange(3)
    assert state.shares(three, 10 * hour + 1).tolist() == [3.0, 3.0, 2.0]
    assert state.shares(three, 12 * hour).tolist() == [2.0, 2.0, 2.0]


def test_single_checks_are_posted_in_units_of_the_line() -> None:
    """Magnitudes of the checks drift and stuck, scaled like the score; a detector without them posts none."""
    policy = Policy((scored(sensitivity=1.5),), kinds=RAW)
    state = state_for(policy=policy)
    state.lanes[0].detector = TwoChecks(DetectorParams())
    state.lanes[0].detector.grow(16)
    evaluation = run(state, seconds(noise(60)))
    raw, drift = posted(evaluation, Kind.ZSCORE_RAW), posted(evaluation, Kind.DRIFT)
    assert drift == pytest.approx({second: 2.0 * abs(z) for second, z in raw.items()})
    assert set(posted(evaluation, Kind.STUCK).values()) == {1.0}
    assert posted(run(state_for(policy=policy), seconds(noise(60))), Kind.DRIFT) == {}
