"""cursor: every sample is taken exactly once, and late ones are never lost without a count."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.cursor import (
    REVISIONS_MAX,
    SEEN_MAX,
    Advance,
    Cursors,
    PollParams,
    Query,
    advance,
    retake,
)
from plexus_detect.queries import next_queries
from plexus_detect.series import Points, SeriesKey

T0 = 1_700_000_000_000
POLL = PollParams(overlap_ms=10_000)


def cursors_for(n: int) -> Cursors:
    cursors = Cursors()
    cursors.grow(n)
    cursors.selected[:] = True
    return cursors


def rows(*triples: tuple[int, int, float]) -> Points:
    """Rows of (series, milliseconds after T0, value)."""
    columns = np.array(triples, np.float64).reshape(-1, 3)
    return Points(columns[:, 0].astype(np.int64), T0 + columns[:, 1].astype(np.int64), columns[:, 2])


def asked(cursors: Cursors, from_ms: int = 0) -> Query:
    return Query(None, (), T0 + from_ms, None, 100_000, np.arange(len(cursors)))


def take(cursors: Cursors, answer: Points, to_ms: int, from_ms: int = 0, poll: PollParams = POLL) -> Advance:
    """Take an answer to a query from ``from_ms`` to ``to_ms`` after T0."""
    return advance(cursors, asked(cursors, from_ms), answer, T0 + to_ms, poll)


def seconds(a: int, b: int, series: int = 0) -> Points:
    """A sample a second from ``a`` to before ``b``."""
    return rows(*((series, 1000 * s, float(s)) for s in range(a, b)))


def taken(result: Advance) -> list[tuple[int, int, float]]:
    """What was taken, as (series, milliseconds after T0, value)."""
    points = result.points
    return list(zip(points.series.tolist(), (points.t_ms - T0).tolist(), points.value.tolist(), strict=True))


# --- one answer after another -----------------------------------------------------------------------------


def test_what_repeats_is_dropped_and_counted() -> None:
    """Rows of the overlap, and duplicates within an answer, are taken once, in order of series and time."""
    cursors = cursors_for(2)
    first = take(cursors, rows((1, 2000, 5.0), (0, 1000, 1.0), (1, 1000, 4.0), (0, 1000, 1.0)), 3000)
    assert taken(first) == [(0, 1000, 1.0), (1, 1000, 4.0), (1, 2000, 5.0)]
    assert first.repeats == 1
    second = take(cursors, rows((1, 2000, 5.0), (0, 1000, 1.0), (0, 4000, 2.0)), 5000)
    assert taken(second) == [(0, 4000, 2.0)]
    assert second.repeats == 2


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_ties_do_not_depend_on_the_order_of_rows(order: list[int]) -> None:
    """Of different values at one millisecond, which the platform does not order, the smallest is learned; the
    others are revisions of it, once each."""
    tied, cursors = rows((0, 1000, 2.0), (0, 1000, -1.0), (0, 1000, 7.0), (0, 2000, 3.0)), cursors_for(1)
    result = take(cursors, tied.take(np.array(order)), 3000)
    assert taken(result) == [(0, 1000, -1.0), (0, 1000, 2.0), (0, 1000, 7.0), (0, 2000, 3.0)]
    assert result.points.late.tolist() == [False, True, True, False]
    again = take(cursors, tied, 3500)
    assert (taken(again), again.repeats, result.revised, cursors.revised_n.tolist()) == ([], 4, 2, [2])


def test_a_revised_sample_is_taken_once_and_marked() -> None:
    """Another value of a known sample comes late, whichever is smaller; both rows stay stored and repeat
    from then on. A device that sends ever new ones is heard REVISIONS_MAX times."""
    cursors = cursors_for(2)
    take(cursors, rows((0, 1000, 5.0), (0, 2000, 6.0), (1, 2000, 1.0)), 3000)
    second = take(cursors, rows((0, 1000, 5.0), (0, 1000, 4.5), (0, 2000, 7.0), (0, 2000, 6.0)), 4000)
    assert taken(second) == [(0, 1000, 4.5), (0, 2000, 7.0)]
    assert (second.points.late.all(), second.revised, second.repeats) == (True, 2, 2)
    assert taken(take(cursors, rows((0, 1000, 5.0), (0, 1000, 4.5), (0, 2000, 7.0)), 5000)) == []
    for value in range(100):
        take(cursors, rows((1, 2000, float(value)), (1, 2000, 1.0)), 6000 + value)
    assert cursors.revised_n.tolist() == [2, REVISIONS_MAX]
    take(cursors, rows((0, 600_000, 1.0), (1, 600_000, 1.0)), 601_000)
    assert len(cursors.dump(2)["other"]) == len(cursors.other_value) == 0


def test_the_memory_of_a_fast_series_is_bounded() -> None:
    """A thousand samples a second fill no more than SEEN_MAX places, and repeats are still told."""
    cursors = cursors_for(1)
    n = 20_000
    fast = Points(np.zeros(n, np.int64), T0 + np.arange(n), np.arange(n, dtype=np.float64))
    assert len(take(cursors, fast, n).points) == n
    assert len(cursors.seen) == len(cursors.seen_value) == SEEN_MAX
    assert take(cursors, fast, n + 1).repeats == n


def test_a_late_point_in_the_overlap_is_taken_once_and_marked() -> None:
    """A straggler behind a newer sample is marked late; when it is read again it repeats."""
    cursors = cursors_for(1)
    take(cursors, rows((0, 1000, 1.0), (0, 5000, 5.0)), 6000)
    late = take(cursors, rows((0, 3000, 3.0), (0, 5000, 5.0), (0, 6500, 6.0)), 7000)
    assert taken(late) == [(0, 3000, 3.0), (0, 6500, 6.0)]
    assert late.points.late.tolist() == [True, False]
    assert taken(take(cursors, rows((0, 3000, 3.0)), 8000)) == []


def test_a_point_later_than_the_overlap_is_counted_once() -> None:
    """What comes more than the overlap behind the newest sample is taken as late, and said once."""
    cursors = cursors_for(1)
    take(cursors, rows((0, 1000, 1.0), (0, 30_000, 5.0)), 31_000)
    first = take(cursors, rows((0, 15_000, 3.0), (0, 20_000, 4.0), (0, 30_000, 5.0)), 32_000)
    assert taken(first) == [(0, 15_000, 3.0), (0, 20_000, 4.0)]
    assert (first.points.late.tolist(), cursors.late_n.tolist()) == ([True, True], [2])
    second = take(cursors, rows((0, 15_000, 3.0)), 33_000)
    assert (taken(second), second.repeats) == ([], 1)


def test_an_empty_answer_moves_nothing() -> None:
    """No rows may be the platform's way of failing: frontier, samples and cadence stay."""
    cursors = cursors_for(1)
    take(cursors, seconds(0, 5), 5000)
    before = {name: column.copy() for name, column in cursors.dump(1).items()}
    assert taken(take(cursors, Points.empty(), 60_000)) == []
    assert all(np.array_equal(before[name], column) for name, column in cursors.dump(1).items())


def test_a_cold_series_stays_cold_until_rows_come() -> None:
    """A first answer without rows leaves the series cold, so that its history is still asked for."""
    cursors = cursors_for(1)
    take(cursors, Points.empty(), 1000)
    assert cursors.covered_ms.tolist() == [-1]
    take(cursors, seconds(0, 2), 2000)
    assert cursors.covered_ms[0] > 0


def test_rows_of_series_that_were_not_asked_for_are_left() -> None:
    """A wide answer holds other series too: they are counted as foreign and taken when it is their turn."""
    cursors = cursors_for(3)
    cursors.selected[2] = False
    answer = rows((0, 1000, 1.0), (1, 1000, 2.0), (2, 1000, 3.0))
    query = replace(asked(cursors), series=np.array([0, 2]))
    first = advance(cursors, query, answer, T0 + 2000, POLL)
    assert (taken(first), first.foreign) == ([(0, 1000, 1.0)], 2)
    assert cursors.covered_ms[1] == -1
    second = advance(cursors, replace(query, series=np.array([1])), answer, T0 + 2000, POLL)
    assert taken(second) == [(1, 1000, 2.0)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_no_number_is_unusable(value: float) -> None:
    """Missing values, infinities and numbers that cannot be squared are counted and not taken."""
    result = take(cursors_for(1), rows((0, 1000, value), (0, 2000, 1.0)), 3000)
    assert (taken(result), result.unusable) == ([(0, 2000, 1.0)], 1)


@pytest.mark.parametrize("t_ms", [0, -1, -T0])
def test_a_time_at_or_before_the_epoch_is_unusable(t_ms: int) -> None:
    """The score of such a sample could not be posted; a device that never set its clock after 1970 can be."""
    odd = Points(np.zeros(2, np.int64), np.array([t_ms, 1]), np.ones(2))
    result = take(cursors_for(1), odd, 1000)
    assert result.unusable == 1
    assert result.points.t_ms.tolist() == [1]


def test_a_sample_from_the_future_waits_for_its_time() -> None:
    """A sample from after the server's own time makes nothing late, and is taken when that time has come."""
    cursors = cursors_for(1)
    year = 365 * 86_400_000
    assert taken(take(cursors, rows((0, 1000, 1.0), (0, year, 9.0)), 2000)) == [(0, 1000, 1.0)]
    assert taken(take(cursors, rows((0, 2500, 2.0), (0, year, 9.0)), 3000)) == [(0, 2500, 2.0)]
    assert cursors.last_ms[0] == T0 + 2500
    assert (0, year, 9.0) in taken(take(cursors, rows((0, year, 9.0)), year + 1000))


def test_settle_leaves_the_youngest_for_the_next_answer() -> None:
    """With ``settle_ms`` of 2 s, stragglers of the last two seconds fall into order and none is late."""
    cursors, poll = cursors_for(1), PollParams(settle_ms=2_000)
    assert taken(take(cursors, rows((0, 1000, 1.0), (0, 4500, 4.0)), 5000, poll=poll)) == [(0, 1000, 1.0)]
    result = take(cursors, rows((0, 1000, 1.0), (0, 4000, 3.0), (0, 4500, 4.0)), 7000, poll=poll)
    assert taken(result) == [(0, 4000, 3.0), (0, 4500, 4.0)]
    assert not result.points.late.any()


def test_the_hole_of_an_offline_device_is_read_from_its_last_sample() -> None:
    """New samples behind a long silence wait for a query that starts where the silence did."""
    cursors = cursors_for(1)
    take(cursors, seconds(0, 100), 100_000)
    back = rows((0, 400_000, 1.0), (0, 401_000, 2.0))
    held = take(cursors, back, 402_000, from_ms=390_000)
    assert (taken(held), held.held_back) == ([], 2)
    (query,) = next_queries(cursors, [SeriesKey("a", "t")], T0 + 403_000, POLL)
    assert query.from_ms <= T0 + 99_000
    buffered = rows(*((0, 1000 * s, 0.0) for s in range(100, 400)))
    whole = take(cursors, Points.concat([buffered, back]), 403_000, from_ms=query.from_ms - T0)
    assert len(taken(whole)) == 302
    assert not whole.points.late.any()


def test_a_hole_longer_than_any_query_reaches_is_not_waited_for() -> None:
    """After more than ``catchup_ms_max`` of silence the new samples are taken at once."""
    cursors, poll = cursors_for(1), PollParams(catchup_ms_max=60_000)
    take(cursors, seconds(0, 100), 100_000, poll=poll)
    assert len(taken(take(cursors, rows((0, 400_000, 1.0)), 401_000, from_ms=390_000, poll=poll))) == 1


def test_cadence_is_the_usual_gap_and_a_hole_does_not_change_it_much() -> None:
    """A sample a second makes a cadence of a second; an hour's hole counts as three seconds at most."""
    cursors = cursors_for(1)
    take(cursors, seconds(0, 300), 300_000)
    assert cursors.cadence_ms[0] == pytest.approx(1000)
    take(cursors, rows((0, 3_900_000, 1.0)), 3_901_000)
    assert cursors.cadence_ms[0] < 1500


def test_memory_of_samples_is_bounded() -> None:
    """However long it runs, what was seen is remembered for twice the overlap and a minute only."""
    cursors = cursors_for(2)
    for start in range(0, 3000, 10):
        both = Points.concat([seconds(start, start + 10), seconds(start, start + 10, series=1)])
        assert len(take(cursors, both, 1000 * (start + 10)).points) == 20
        assert len(cursors.seen) <= 2 * 2 * 81
    assert len(cursors.dump(2)["seen"]) <= 2 * 81


def test_a_snapshot_and_the_replay_of_a_journal_change_nothing() -> None:
    """Loaded, or led again through what was accepted, cursors take what those that never stopped take."""
    steady, replayed = cursors_for(2), cursors_for(2)
    answers = [
        Points.concat([seconds(0, 30), seconds(3, 20, series=1)]),
        rows((0, 25_500, 0.5), (1, 19_500, 0.1), (1, 40_000, 0.2)),
        rows((0, 41_000, 0.5), (1, 40_000, 0.2)),
    ]
    for number, answer in enumerate(answers):
        retake(replayed, take(steady, answer, 30_000 + 10_000 * number).points, POLL)
    loaded = Cursors()
    loaded.load({name: column.copy() for name, column in steady.dump(2).items()})
    loaded.selected[:] = True
    replayed.covered_ms = steady.covered_ms.copy()
    more = rows((0, 41_000, 0.5), (0, 38_000, 0.4), (0, 12_000, 9.0), (1, 50_000, 0.3), (1, 19_600, 1.0))
    results = [take(each, more, 60_000, from_ms=20_000) for each in (steady, loaded, replayed)]
    assert taken(results[0]) == taken(results[1]) == taken(results[2]) != []
    for each in (loaded, replayed):
        assert all(np.array_equal(column, each.dump(2)[name]) for name, column in steady.dump(2).items())


# --- whatever the sequence of polls -----------------------------------------------------------------------


@dataclass
class World:
    """A platform where samples become visible after a delay, and where every fifth answer or so is empty."""

    stamps: list[tuple[int, int, int]]  # series, sample's time, when it becomes visible
    cursors: Cursors
    found: list[tuple[int, int]] = field(default_factory=list)

    def poll(self, now_ms: int, rng: np.random.Generator, fail: float) -> None:
        """One tick: the queries that are due, each answered in any order, some rows twice, or not at all."""
        keys = [SeriesKey(f"source-{i}", "t") for i in range(len(self.cursors))]
        for query in next_queries(self.cursors, keys, now_ms, POLL):
            if rng.random() < fail:
                visible = []
            else:
                to_ms = query.to_ms or now_ms
                visible = [
                    (s, t - T0, float(t % 97))
                    for s, t, at in self.stamps
                    if at <= now_ms and query.from_ms <= t <= to_ms
                ]
                visible += visible[: int(rng.integers(0, 4))]
                rng.shuffle(visible)
            result = advance(self.cursors, query, rows(*visible), query.to_ms or now_ms, POLL)
            pairs = zip(result.points.series.tolist(), result.points.t_ms.tolist(), strict=True)
            self.found += pairs


@examples(600)
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(100, 20_000), min_size=3, max_size=30),
    st.sampled_from([200, 1000, 4000, 30_000]),
    st.sampled_from([0.0, 0.2]),
)
def test_every_sample_is_taken_exactly_once(seed: int, waits: list[int], cadence: int, fail: float) -> None:
    """Polls at any time, delays within the overlap, empty answers, duplicates: none twice, none lost."""
    rng = np.random.default_rng(seed)
    span, stamps = sum(waits) + 20_000, []
    for series in range(3):
        at = T0 + int(rng.integers(0, 1000))
        while at < T0 + span:
            stamps.append((series, at, at + int(rng.integers(0, POLL.overlap_ms))))
            at += max(1, int(rng.normal(cadence, cadence / 10)))
    world, now = World(stamps, cursors_for(3)), T0 + 11_000
    for wait in waits:
        world.poll(now, rng, fail)
        now += wait
    for _ in range(12):
        now += 15_000
        world.poll(now, rng, 0.0)
    assert sorted(world.found) == sorted((s, t) for s, t, _ in stamps)
