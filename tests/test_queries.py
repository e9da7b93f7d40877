"""queries: few and wide, and no row more often than needed."""

from __future__ import annotations

from urllib.parse import quote

import numpy as np
import pytest

from plexus_detect.cursor import Cursors, PollParams, Query
from plexus_detect.queries import METRICS_CHARS_MAX, narrower, next_queries, older_page, shorter, starved
from plexus_detect.series import Points, SeriesKey

NOW = 1_700_000_000_000
POLL = PollParams()


class Desk:
    """Series with cursors; all selected, at one sample a second, read up to a second ago."""

    def __init__(self, keys: list[tuple[str, str]]) -> None:
        self.keys = [SeriesKey(*key) for key in keys]
        self.cursors = Cursors()
        self.cursors.grow(len(keys))
        self.cursors.selected[:] = True
        self.cursors.cadence_ms[:] = 1000
        self.cursors.covered_ms[:] = self.cursors.last_ms[:] = NOW - 1000

    def queries(self, poll: PollParams = POLL, now_ms: int = NOW) -> list[Query]:
        """The requests that are due."""
        return next_queries(self.cursors, self.keys, now_ms, poll)


def fleet(sources: int, metrics: int) -> Desk:
    return Desk([(f"device-{s}", f"metric-{m:02d}") for s in range(sources) for m in range(metrics)])


def covers_each_once(desk: Desk, queries: list[Query]) -> bool:
    """Whether every selected series is in exactly one query, which asks for its source and metric."""
    for query in queries:
        for i in query.series.tolist():
            key = desk.keys[i]
            assert query.source in (None, key.source)
            assert not query.metrics or key.metric in query.metrics
    asked = np.concatenate([q.series for q in queries])
    return np.array_equal(np.sort(asked), np.flatnonzero(desk.cursors.selected))


def rows(series: list[int], t_ms: list[int]) -> Points:
    return Points(np.array(series, np.int64), np.array(t_ms, np.int64), np.zeros(len(series)))


# --- what comes next --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sources", "metrics"), [(10_000, 1), (200, 50)])
def test_ten_thousand_series_are_one_request(sources: int, metrics: int) -> None:
    """A fleet at one point each costs one request, from before the frontier to the server's now."""
    desk = fleet(sources, metrics)
    (query,) = desk.queries()
    assert covers_each_once(desk, [query])
    assert query.source is None
    assert query.metrics == tuple(f"metric-{m:02d}" for m in range(metrics))
    assert query.from_ms == NOW - 1000 - POLL.overlap_ms
    assert (query.to_ms, query.limit, query.cold) == (None, POLL.limit, False)


def test_few_of_many_sources_are_asked_for_one_by_one() -> None:
    """Three selected devices of ten thousand do not read everybody's rows."""
    desk = fleet(10_000, 1)
    desk.cursors.selected[:] = False
    desk.cursors.selected[[5, 77, 4000]] = True
    queries = desk.queries()
    assert [q.source for q in queries] == ["device-5", "device-77", "device-4000"]
    assert covers_each_once(desk, queries)


def test_nobody_selected_asks_nothing() -> None:
    """Without selected series there is no request."""
    desk = fleet(3, 1)
    desk.cursors.selected[:] = False
    assert desk.queries() == []


def test_a_long_list_of_metrics_is_split() -> None:
    """No metric list grows beyond what a query string may hold; every metric is in one of the lists."""
    desk = Desk([("device", f"a rather long name of metric number {m}") for m in range(1000)])
    queries = desk.queries()
    assert len(queries) > 5
    assert all(len(quote(",".join(q.metrics))) <= METRICS_CHARS_MAX for q in queries)
    assert covers_each_once(desk, queries)


@pytest.mark.parametrize("name", ["a,b", " padded", "padded ", ""])
def test_a_name_that_cannot_be_listed_is_read_without_a_list(name: str) -> None:
    """The platform splits metric lists at commas and trims them: it is read with its whole source."""
    desk = Desk([("device-1", name), ("device-1", "t"), ("device-2", "t")])
    queries = desk.queries()
    assert covers_each_once(desk, queries)
    (bare,) = [q for q in queries if 0 in q.series]
    assert (bare.source, bare.metrics, bare.series.tolist()) == ("device-1", (), [0])


def test_cold_series_ask_for_their_newest_history() -> None:
    """A first read looks back ``history_ms`` for no more rows than the window of every series needs."""
    desk = fleet(20, 1)
    desk.cursors.covered_ms[:10] = -1
    cold, warm = desk.queries()
    assert cold.cold
    assert cold.series.tolist() == list(range(10))
    assert (cold.from_ms, cold.to_ms, cold.limit) == (NOW - POLL.history_ms, None, 10 * POLL.history_points)
    assert warm.series.tolist() == list(range(10, 20))


def test_a_series_far_behind_is_asked_for_on_its_own() -> None:
    """One device behind by an hour does not make the wide query read an hour for all."""
    desk = fleet(100, 1)
    desk.cursors.covered_ms[7] = NOW - 3_600_000
    near, behind = desk.queries()
    assert near.from_ms == NOW - 1000 - POLL.overlap_ms
    assert (behind.source, behind.from_ms) == ("device-7", NOW - 3_600_000 - POLL.overlap_ms)
    assert covers_each_once(desk, [near, behind])


def test_a_silent_series_is_left_alone_until_its_time() -> None:
    """A series that is behind is not asked for before ``ask_ms``."""
    desk = fleet(100, 1)
    desk.cursors.covered_ms[7] = NOW - 3_600_000
    desk.cursors.ask_ms[7] = NOW + 5000
    assert len(desk.queries()) == 1
    desk.cursors.covered_ms[:] -= 5000
    assert len(desk.queries(now_ms=NOW + 5000)) == 2


def test_an_outage_longer_than_catchup_is_skipped() -> None:
    """After an outage the read goes back ``catchup_ms_max`` and no further."""
    desk = fleet(5, 1)
    desk.cursors.covered_ms[:] = NOW - 100 * 3_600_000
    (query,) = desk.queries()
    assert query.from_ms == NOW - POLL.catchup_ms_max - POLL.overlap_ms


def test_catching_up_is_done_in_parts() -> None:
    """A read that would take more pages than ``pages_max`` asks for the oldest part first."""
    desk = fleet(100, 1)
    desk.cursors.covered_ms[:] = NOW - 3_600_000
    poll = PollParams(pages_max=4, limit=10_000)
    (query,) = desk.queries(poll)
    assert query.to_ms is not None
    assert (query.to_ms - query.from_ms) / 1000 * 100 == pytest.approx(20_000, rel=0.01)


# --- after a cut-off answer -------------------------------------------------------------------------------


QUERY = Query(None, ("a", "b"), NOW - 10_000, None, 4, np.array([0, 1, 2]))
KEYS = [SeriesKey("x", "a"), SeriesKey("x", "b"), SeriesKey("y", "a")]


def test_a_whole_answer_has_no_older_page() -> None:
    """Fewer rows than the limit are all there is."""
    assert older_page(QUERY, rows([0], [NOW]), 3) is None
    assert older_page(QUERY, rows([], []), 4) is None


def test_an_older_page_ends_where_the_last_one_began() -> None:
    """The newest rows survive a limit, and the oldest millisecond may lack some: it is read again."""
    page = older_page(QUERY, rows([0, 0, 1, 2], [NOW, NOW - 5, NOW - 7, NOW - 7]), 4)
    assert page is not None
    assert (page.from_ms, page.to_ms, page.metrics) == (QUERY.from_ms, NOW - 7, QUERY.metrics)


@pytest.mark.parametrize("oldest", [NOW - 7, NOW - 10_000])
def test_a_millisecond_with_more_rows_than_a_page_needs_a_narrower_query(oldest: int) -> None:
    """When paging cannot get any further it says so and does not ask the same again."""
    again = Query(None, ("a", "b"), NOW - 10_000, oldest, 4, QUERY.series)
    with pytest.raises(ValueError, match=str(oldest)):
        older_page(again, rows([0, 0, 1, 2], [oldest] * 4), 4)


def test_narrower_halves_the_metrics_then_the_sources() -> None:
    """Every series is in exactly one of the parts; one series of one source cannot be narrowed."""
    first, second = narrower(QUERY, KEYS)
    assert (first.metrics, first.series.tolist()) == (("a",), [0, 2])
    assert (second.metrics, second.series.tolist()) == (("b",), [1])
    parts = narrower(first, KEYS)
    assert [(p.source, p.series.tolist()) for p in parts] == [("x", [0]), ("y", [2])]
    assert narrower(parts[0], KEYS) == []


def test_a_first_start_reads_more_of_few_series_than_of_many() -> None:
    """A season is learned over days: few new series get more of their past, many share what is read."""
    poll = PollParams(history_points=331, history_points_max=20_000, history_rows=500_000)
    assert [poll.wanted(n) for n in (1, 25, 100, 10_000)] == [20_000, 20_000, 5_000, 331]
    assert PollParams(history_points=331).wanted(1) == 331


def test_series_that_busy_ones_pushed_out_are_asked_for_by_source() -> None:
    """Of a cut-off cold answer, those without their share of rows get their own, with room for all of it."""
    poll = PollParams(history_points=2, limit=100)
    poor = starved(QUERY, rows([0, 0, 0, 1], [1, 2, 3, 4]), poll, KEYS)
    assert [(q.source, q.metrics, q.series.tolist(), q.cold) for q in poor] == [
        ("x", ("b",), [1], True),
        ("y", ("a",), [2], True),
    ]
    assert all(q.limit >= 2 for q in poor)
    assert starved(QUERY, rows([0, 0, 1, 1, 2, 2], [1] * 6), poll, KEYS) == []


def test_a_starved_series_whose_name_cannot_be_listed_is_asked_for_with_its_source() -> None:
    """With a comma in a name there is no list, rather than a list without that name."""
    keys = [SeriesKey("x", "a,b"), SeriesKey("x", "b")]
    query = Query("x", (), 0, None, 4, np.array([0, 1]))
    (poor,) = starved(query, rows([], []), POLL, keys)
    assert (poor.source, poor.metrics, poor.series.tolist()) == ("x", (), [0, 1])


@pytest.mark.parametrize(("to_ms", "half"), [(None, NOW - 5_000), (NOW - 6_000, NOW - 8_000)])
def test_shorter_is_the_first_half(to_ms: int | None, half: int) -> None:
    """The older half of a window is asked for first."""
    query = Query(None, ("a",), NOW - 10_000, to_ms, 4, QUERY.series)
    assert (shorter(query, NOW).from_ms, shorter(query, NOW).to_ms) == (NOW - 10_000, half)
