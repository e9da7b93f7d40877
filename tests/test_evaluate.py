"""evaluate: from points to scores, episodes and what is posted; the same numbers on every path."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from streams import noise, points

from plexus_detect import score_series
from plexus_detect.detectors import REGISTRY, DetectorParams
from plexus_detect.episode import EpisodeParams
from plexus_detect.evaluate import Cohort, Evaluation, Event, Policy, Rule, State, dump, evaluate, load
from plexus_detect.fleet import FleetParams
from plexus_detect.limits import Limits
from plexus_detect.scoring import AFTERGLOW_MAX
from plexus_detect.series import Kind, Points, Reason, SeriesTable

T0 = 1_700_000_000_000
TUTORIAL = [22.41, 22.45, 23.18, 24.05, 24.92, 25.78, 26.43]
# The detector whose scores can be worked out by hand, whatever the default is.
scored = partial(Rule, detector="zscore")
PLAIN = Policy((scored(),))
RAW = frozenset(Kind)


def state_for(n: int = 1, policy: Policy = PLAIN, metrics: int = 1, emit_from_ms: int = 0) -> State:
    """Series of ``n`` sources with ``metrics`` metrics each, all under the first rule."""
    state = State(SeriesTable(), policy)
    for i in range(n * metrics):
        state.admit(state.table.add(f"device-{i // metrics}", f"m{i % metrics}"), 0, emit_from_ms)
    return state


def seconds(values: object, series: int = 0, start: int = 0) -> Points:
    """A value a second from ``start`` seconds after T0."""
    return points(series, T0 + 1000 * (start + np.arange(np.size(values))), values)


def run(state: State, stream: Points) -> Evaluation:
    """All points at once, long after they came."""
    return evaluate(state, stream, T0 + 10**9)


def posted(evaluation: Evaluation, kind: Kind = Kind.ZSCORE) -> dict[int, float]:
    """The posted values of a kind by seconds after T0."""
    d = evaluation.derived.take(evaluation.derived.kind == kind)
    return dict(zip(((d.t_ms - T0) // 1000).tolist(), d.value.tolist(), strict=True))


def told(events: tuple[Event, ...]) -> list[tuple[str, int, int]]:
    """What happened to which series, and how many seconds after T0."""
    return [(e.what, e.series, (e.t_ms - T0) // 1000) for e in events]


# --- what an alert is made of -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_the_tutorials_own_readings_fire_on_the_third_anomalous_sample(seed: int) -> None:
    """After a quiet room of sigma 0.05, the readings that the tutorial's formula misses open an episode."""
    evaluation = run(state_for(), seconds(np.append(noise(300, seed, 22.43, 0.05), TUTORIAL)))
    # 22.41 and 22.45 belong to the quiet room; 23.18, 24.05 and 24.92 are the first three anomalous ones.
    assert told(evaluation.events) == [("opened", 0, 304)]
    (event,) = evaluation.events
    assert (event.value, event.since_ms) == (24.92, T0 + 302_000)
    assert event.expected == pytest.approx(22.43, abs=0.02)
    values = posted(evaluation)
    assert [values[s] for s in (300, 301, 302, 303)] == [0, 0, 0, 0]
    assert 20 < values[304] < values[305] < values[306]


@pytest.mark.parametrize("sigmas", [5.0, 20.0, 1e6])
def test_a_step_fires_within_a_few_samples(sigmas: float) -> None:
    """Steps of five deviations and more open an episode within eight samples, for many seeds."""
    late = []
    for seed in range(60):
        values = noise(310, seed, 20.0, 0.5)
        values[300:] += sigmas * 0.5
        opened = [e.t_ms for e in run(state_for(), seconds(values)).events if e.t_ms >= T0 + 300_000]
        late.append((opened[0] - T0) // 1000 - 300 if opened else 99)
    assert np.median(late) == 2
    assert np.mean(np.array(late) <= 8) >= 0.95


def test_zeros_while_normal_the_magnitude_while_open_and_zeros_again() -> None:
    """Every scored sample has a value at its own time; after recovery zeros keep coming."""
    values = noise(400, mean=20.0)
    values[300:320] -= 8.0
    state = state_for()
    evaluation = run(state, seconds(values))
    out = posted(evaluation)
    assert sorted(out) == list(range(30, 400))
    assert all(out[s] == 0.0 for s in range(280, 302))
    assert all(out[s] > 10.0 for s in range(302, 320))
    assert all(out[s] == 0.0 for s in range(322, 400))
    opened, closed = [e for e in evaluation.events if e.t_ms >= T0 + 300_000]
    assert (opened.what, opened.since_ms, closed.what, closed.since_ms) == (
        "opened",
        T0 + 300_000,
        "closed",
        T0 + 300_000,
    )
    assert opened.score < -10.0
    assert closed.score == pytest.approx(max(out.values()), rel=0.5)


def test_a_missing_or_cold_score_is_not_posted_as_zero() -> None:
    """NaN posts nothing: while warming up, and for a value that is no number."""
    values = noise(60)
    values[40] = np.nan
    evaluation = run(state_for(), seconds(values))
    assert sorted(posted(evaluation)) == [s for s in range(30, 60) if s != 40]
    assert evaluation.unknown == {Reason.WARMING: 30, Reason.NOT_A_NUMBER: 1}


def test_nothing_is_posted_or_told_from_before_emit_from() -> None:
    """History warms the detector up; what happened in it is neither posted nor told."""
    values = noise(400)
    values[200:210] += 9.0
    values[300:310] += 9.0
    evaluation = run(state_for(emit_from_ms=T0 + 250_000), seconds(values))
    assert min(posted(evaluation)) == 250
    assert told(evaluation.events) == [("opened", 0, 302), ("closed", 0, 312)]


def test_a_new_normal_level_is_said_at_the_sample_that_makes_it() -> None:
    """After ``relearn_ms`` a level is normal; the event names the sample, however the points came."""
    policy = Policy((scored(params=DetectorParams(relearn_ms=60_000)),))
    stream = seconds(np.append(noise(300), noise(120, 1, 30.0)))
    whole = run(state_for(policy=policy), stream).events
    assert ("relearned", 0, 360) in told(whole)
    state = state_for(policy=policy)
    single = [e for i in range(len(stream)) for e in run(state, stream.take(slice(i, i + 1))).events]
    assert tuple(single) == whole


def test_late_points_are_scored_and_change_no_episode() -> None:
    """A late sample gets its own value under the name of late ones, 0 while normal; it neither opens nor
    closes, and has nothing where that name is not wanted."""
    state = state_for(policy=Policy((scored(),), kinds=frozenset({Kind.ZSCORE, Kind.ZSCORE_LATE})))
    run(state, seconds(noise(100)))
    late = points(0, T0 + 1000 * np.array([50, 51, 52]) + 500, [30.0, 30.0, 30.0], [True] * 3)
    evaluation = run(state, late)
    assert evaluation.events == ()
    assert evaluation.derived.value.tolist() == [0.0, 0.0, 0.0]
    assert set(evaluation.derived.kind.tolist()) == {Kind.ZSCORE_LATE}
    assert (evaluation.scores.z > 10.0).all()
    other = state_for()
    run(other, seconds(noise(100)))
    assert len(run(other, late).derived) == 0


def test_only_the_wanted_kinds_are_posted() -> None:
    """Raw scores are signed and only there when asked for."""
    values = np.append(noise(100), [10.0, 10.0, 10.0])
    both = run(state_for(policy=Policy((scored(),), kinds=RAW)), seconds(values))
    raw = posted(both, Kind.ZSCORE_RAW)
    assert raw[102] < -10.0
    assert posted(both)[102] == -raw[102]
    assert posted(run(state_for(), seconds(values)), Kind.ZSCORE_RAW) == {}


def test_rules_have_their_own_settings() -> None:
    """Each series is scored by the rule it was admitted under."""
    strict, lax = (
        scored(),
        scored(params=DetectorParams(threshold=50.0), episode=EpisodeParams(threshold=50.0)),
    )
    state = State(SeriesTable(), Policy((strict, lax)))
    state.admit(state.table.add("a", "t"), 0)
    state.admit(state.table.add("b", "t"), 1)
    values = np.append(noise(100), [25.0] * 5)
    stream = Points.concat([seconds(values), seconds(values, series=1)])
    assert told(run(state, stream).events) == [("opened", 0, 102)]


def test_fingerprints_tell_rules_apart() -> None:
    """Everything that a snapshot depends on is in the fingerprint of its rule."""
    rules = [
        scored(),
        scored(params=DetectorParams(window=301)),
        scored(episode=EpisodeParams(m=2)),
        scored(fleet=FleetParams()),
        scored(fleet=FleetParams(group_min=7)),
        scored(fleet=FleetParams(), fleet_episode=EpisodeParams(m=2)),
    ]
    assert len({rule.fingerprint() for rule in rules}) == len(rules)
    policies = [
        Policy((scored(),)),
        Policy((scored(), scored())),
        Policy((scored(sensitivity=0.7),)),
        Policy((scored(),), limits=(("*", Limits(min_abs=1.0)),)),
        Policy((scored(),), cohorts=(Cohort("a", ("a*",)),)),
        Policy((scored(),), rest=False),
        Policy((scored(),), alerts_per_day=1.0),
    ]
    assert len({policy.fingerprint() for policy in policies}) == len(policies)


# --- fleets -----------------------------------------------------------------------------------------------


FLEET = Policy((scored(fleet=FleetParams(min_points=10)),), kinds=RAW, fleet_settle_ms=2_000)


def site(n: int = 8, metrics: int = 2, k: int = 90) -> Points:
    """``n`` sources with common weather, in order of series within each second."""
    rng = np.random.default_rng(4)
    parts = []
    weather = np.cumsum(rng.normal(0.0, 0.05, k))
    for second in range(k):
        value = np.arange(n * metrics) * 3.0 + weather[second] + rng.normal(0.0, 0.1, n * metrics)
        if second >= 60:
            value[5] += 2.0
        t_ms = T0 + 1000 * second + np.sort(rng.integers(0, 900, n * metrics))
        parts.append(points(np.arange(n * metrics), t_ms, value))
    return Points.concat(parts)


def test_the_odd_device_is_named_with_its_metric() -> None:
    """In a fleet of eight with two metrics, the one series that leaves its peers has the fleet episode."""
    evaluation = run(state_for(8, FLEET, 2), site())
    assert {e.series for e in evaluation.events if e.kind is Kind.FLEET_ZSCORE} == {5}


def test_fleets_wait_for_stragglers() -> None:
    """A point is scored ``fleet_settle_ms`` after its time, the same whichever poll brought it."""
    stream = site()
    at_once, bit_by_bit = state_for(8, FLEET, 2), state_for(8, FLEET, 2)
    whole = run(at_once, stream)
    assert len(evaluate(bit_by_bit, stream.take(slice(0, 16)), T0 + 2_000).derived) == 0
    rng, parts = np.random.default_rng(6), []
    for start in range(16, len(stream), 48):
        part = stream.take(slice(start, start + 48))
        order = np.lexsort((part.t_ms, rng.permutation(16)[part.series]))
        parts.append(evaluate(bit_by_bit, part.take(order), int(part.t_ms.max()) + 900))
    parts.append(evaluate(bit_by_bit, Points.empty(), T0 + 10**6))
    fleet = {}
    for part in parts:
        d = part.derived.take(part.derived.kind == Kind.FLEET_ZSCORE_RAW)
        fleet |= dict(
            zip(zip(d.series.tolist(), d.t_ms.tolist(), strict=True), d.value.tolist(), strict=True)
        )
    d = whole.derived.take(whole.derived.kind == Kind.FLEET_ZSCORE_RAW)
    assert fleet == dict(
        zip(zip(d.series.tolist(), d.t_ms.tolist(), strict=True), d.value.tolist(), strict=True)
    )
    assert len(fleet) > 500


def test_a_point_from_the_future_is_not_waited_for() -> None:
    """What is stamped long after now is taken as of now: nothing piles up."""
    state = state_for(8, FLEET, 2)
    ahead = site().take(slice(0, 160))
    evaluate(state, Points(ahead.series, ahead.t_ms + 31_536_000_000, ahead.value), T0 + 20_000)
    assert len(state.waiting) == 0


def test_cohorts_are_compared_among_themselves() -> None:
    """Half the sources 50 degrees apart are two fleets; a source of no cohort is in none without ``rest``."""
    cohorts = (Cohort("low", ("device-[0-3]",)), Cohort("high", ("device-[4-7]",)))
    policy = dataclasses.replace(FLEET, cohorts=cohorts, rest=False)
    state = state_for(9, policy, 2)
    assert state.lanes[0].fleet is not None
    group = state.lanes[0].fleet.group[:16]
    assert group.tolist() == [0, 1] * 4 + [2, 3] * 4
    evaluation = run(state, site(9))
    fleet = evaluation.derived.take(evaluation.derived.kind == Kind.FLEET_ZSCORE_RAW)
    assert set(fleet.series.tolist()) <= set(range(16))
    assert state_for(9, dataclasses.replace(policy, rest=True), 2).compared[:18].all()


def test_unknown_fleet_scores_have_their_reasons() -> None:
    """Scores missing against the fleet are counted beside those of the series' own past."""
    evaluation = run(state_for(8, FLEET, 2), site(k=5))
    assert evaluation.unknown == {Reason.WARMING: 80}
    assert sum(evaluation.fleet_unknown.values()) == 80


def test_a_rule_without_fleets_has_none() -> None:
    """Series under a rule without fleets take part in none, beside one that has them."""
    state = State(SeriesTable(), Policy((scored(fleet=FleetParams(min_points=5)), scored())))
    for i in range(12):
        state.admit(state.table.add(f"device-{i}", "t"), int(i >= 6))
    stream = Points.concat(
        [points(np.arange(12), T0 + 1000 * k + np.arange(12), noise(12, k)) for k in range(60)]
    )
    derived = run(state, stream).derived
    assert set(derived.series[derived.kind == Kind.FLEET_ZSCORE].tolist()) == set(range(6))
    assert set(derived.series[derived.kind == Kind.ZSCORE].tolist()) == set(range(12))


# --- one path ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zscore", "auto"])
def test_scores_are_those_of_the_detector(name: str) -> None:
    """Without limits, budget or sensitivity an evaluation has the bits of the detector, the news included."""
    stream = seconds(np.append(noise(600), noise(200, 1, 25.0)))
    detector = REGISTRY[name](DetectorParams())
    detector.grow(1)
    own, scores = detector.step(stream), run(state_for(1, Policy((Rule(detector=name),))), stream).scores
    for column in ("z", "centre", "scale", "reason", "fresh"):
        assert np.array_equal(getattr(own, column), getattr(scores, column), equal_nan=True)


BUDGETED = dataclasses.replace(
    FLEET, alerts_per_day=1.0, cohorts=(Cohort("some", ("device-[0-5]",)),), limits=(("m1", Limits(1, 0.2)),)
)


def same(a: Evaluation, b: Evaluation) -> bool:
    return (
        np.array_equal(a.scores.z, b.scores.z, equal_nan=True)
        and all(
            np.array_equal(getattr(a.derived, c), getattr(b.derived, c))
            for c in ("series", "kind", "t_ms", "value")
        )
        and a.events == b.events
    )


@examples(250)
@given(
    st.sampled_from([FLEET, BUDGETED]),
    st.lists(st.integers(1, 120), min_size=1, max_size=12),
    st.sets(st.integers(0, 11)),
)
def test_dump_and_load_continue_with_the_same_bits(
    policy: Policy, sizes: list[int], restarts: set[int]
) -> None:
    """Stopped and loaded between any ticks, also with fleets waiting: the same derived points and events."""
    stream, start = site(), 0
    steady, other = state_for(8, policy, 2), state_for(8, policy, 2)
    for number, size in enumerate([*sizes, len(stream)]):
        part = stream.take(slice(start, start + size))
        start += size
        if number in restarts:
            other = load(other.table, policy, {k: v.copy() for k, v in dump(other).items()})
        now = (int(part.t_ms.max()) if len(part) else T0 + 90_000) + 300
        assert same(evaluate(steady, part, now), evaluate(other, part, now))
    mine, theirs = dump(steady), dump(other)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[k], theirs[k], equal_nan=mine[k].dtype.kind == "f") for k in mine)


def test_series_admitted_after_a_load_join_their_fleet() -> None:
    """A source that is new after a restart goes into the group of its metric."""
    state = state_for(8, FLEET, 2)
    run(state, site())
    state = load(state.table, FLEET, dump(state))
    state.admit(state.table.add("device-8", "m1"), 0)
    assert state.lanes[0].fleet is not None
    assert state.lanes[0].fleet.group[16] == state.lanes[0].fleet.group[1]


def test_the_scoring_door_gives_the_workers_numbers() -> None:
    """``score_series`` over a column is |z| over the line of what ``evaluate`` gives for the same points, but
    where that is less than the glow that an anomaly leaves below the line."""
    values = noise(2000)
    values[500:520] += 6.0
    values[700] = np.nan
    stream = seconds(values)
    z = run(state_for(3), points(2, stream.t_ms, stream.value)).scores.z
    score, own = score_series(stream.t_ms, values, "zscore"), np.abs(z) / 3.0
    assert np.array_equal(np.isnan(score), np.isnan(own))
    known = ~np.isnan(own)
    glows = known & (score != own)
    assert (score[glows] > own[glows]).all()
    assert score[glows].max() < AFTERGLOW_MAX < 1.0
    assert (score[500:503] > 1.0).all()
    assert not glows[500:503].any()
