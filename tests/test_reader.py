"""reader: an answer is whole or says that it is not, whatever the platform's limit cuts off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, FakePlatform, Row, answer

from plexus_detect.cursor import PollParams, Query
from plexus_detect.errors import AuthError, ConfigError, ContractError, RejectedError, TransientError
from plexus_detect.reader import LOOKUPS_MAX, Answer, Reader
from plexus_detect.series import Points, SeriesTable

pytestmark = pytest.mark.usefixtures("stopped")

HOUR_MS = 3_600_000


class Desk:
    """A reader of a fake platform, with a table that knows the platform's series."""

    def __init__(self, platform: FakePlatform, params: PollParams) -> None:
        self.platform = platform
        self.table = SeriesTable()
        for source, metric, _t, _v in platform.rows:
            self.table.add(source, metric)
        self.params = params
        self.reader = Reader(platform, self.table, params)  # type: ignore[arg-type]

    def query(self, keys: Sequence[tuple[str, str]] | None = None, *, cold: bool = False, **given) -> Query:
        """A query for ``keys`` (all when None) of all sources from a minute ago on."""
        series = [self.table.add(*key) for key in keys or list(self.table.keys)]
        metrics = tuple(sorted({self.table.keys[i].metric for i in series}))
        window = {"source": None, "from_ms": START_MS - 60_000, "to_ms": None, **given}
        return Query(
            window["source"],
            metrics,
            window["from_ms"],
            window["to_ms"],
            self.params.limit,
            np.array(series, np.int64),
            cold,
        )

    def read(self, *queries: Query) -> list[Answer]:
        """The answers."""
        return asyncio.run(self.reader.read(queries))

    def discover(self, wanted=lambda slug: True) -> set[tuple[str, str]]:
        """One round of discovery."""
        return asyncio.run(self.reader.discover(wanted))

    def rows(self, points: Points) -> list[Row]:
        """Points as the platform has them, sorted and without repeats."""
        keys = [self.table.keys[i] for i in points.series.tolist()]
        times, values = points.t_ms.tolist(), points.value.tolist()
        return sorted({(k.source, k.metric, t, v) for k, t, v in zip(keys, times, values, strict=True)})


def series(source: str, metric: str, n: int, step_ms: int = 100) -> list[Row]:
    """``n`` rows that end now."""
    return [(source, metric, START_MS - (n - 1 - k) * step_ms, float(k)) for k in range(n)]


# --- completing an answer ---------------------------------------------------------------------------------


def test_a_cut_off_answer_is_paged_back_until_it_is_whole() -> None:
    """The limit keeps the newest rows; the older ones come page by page, and none is missing."""
    platform = FakePlatform(series("a", "t", 95))
    desk = Desk(platform, PollParams(limit=20))
    (whole,) = desk.read(desk.query())
    assert desk.rows(whole.points) == platform.stored()
    assert (whole.error, whole.cut_off, whole.to_ms) == (None, False, START_MS)
    assert len(platform.asked) == desk.reader.requests == 5
    ends = [asked.get("to") for asked in platform.asked]
    assert ends[0] is None
    assert sorted(ends[1:], reverse=True) == ends[1:]


def test_rows_of_the_millisecond_at_a_cut_are_not_lost() -> None:
    """Of rows that share the oldest time some may have been cut: that time is read again."""
    platform = FakePlatform([(f"dev-{k % 7}", "t", START_MS - 1000 * (k // 7), float(k)) for k in range(70)])
    desk = Desk(platform, PollParams(limit=10))
    (whole,) = desk.read(desk.query())
    assert desk.rows(whole.points) == platform.stored()


def test_a_window_of_too_many_pages_is_halved() -> None:
    """The answer then covers the older half, whole, and says up to where."""
    platform = FakePlatform(series("a", "t", 300))
    desk = Desk(platform, PollParams(limit=10, pages_max=4))
    (part,) = desk.read(desk.query(from_ms=START_MS - 30_000))
    assert part.error is None
    assert part.to_ms == part.query.to_ms
    assert START_MS - 30_000 < part.to_ms < START_MS
    assert desk.rows(part.points) == [row for row in platform.stored() if row[2] <= part.to_ms]


def test_a_crowded_millisecond_is_read_series_by_series() -> None:
    """More rows on one time than a page holds: first fewer metrics are asked for, then one source each."""
    rows = [(f"dev-{s}", f"m{m}", START_MS - 5, float(s + m)) for s in range(6) for m in range(4)]
    platform = FakePlatform(rows)
    desk = Desk(platform, PollParams(limit=5))
    (whole,) = desk.read(desk.query())
    assert desk.rows(whole.points) == platform.stored()
    assert not whole.cut_off


def test_one_series_with_a_crowded_millisecond_ends() -> None:
    """Repeats of one point beyond the limit cannot be paged through; the answer says that it is cut."""
    platform = FakePlatform([("a", "t", START_MS - 5, 1.0)] * 30)
    desk = Desk(platform, PollParams(limit=10))
    (part,) = desk.read(desk.query())
    assert part.cut_off
    assert desk.rows(part.points) == [("a", "t", START_MS - 5, 1.0)]


def test_parts_cover_no_more_than_the_shortest_of_them() -> None:
    """A query that was narrowed, one part of which was halved, claims only what every part has read."""
    crowd = [(f"dev-{s}", "t", START_MS - 1, float(s)) for s in range(30)]
    platform = FakePlatform(series("busy", "t", 200) + crowd)
    desk = Desk(platform, PollParams(limit=20, pages_max=3))
    (part,) = desk.read(desk.query(from_ms=START_MS - 30_000))
    missing = [row for row in platform.stored() if row[2] <= part.to_ms]
    assert set(missing) <= set(desk.rows(part.points))
    assert part.to_ms < START_MS


def test_a_cold_query_ends_when_there_is_enough() -> None:
    """A warm-up needs only the newest points, however long the past is."""
    platform = FakePlatform(series("a", "t", 500))
    desk = Desk(platform, PollParams(limit=20, history_points=40))
    (part,) = desk.read(desk.query(cold=True))
    assert part.cut_off
    assert len(platform.asked) == 3
    assert desk.rows(part.points)[-40:] == platform.stored()[-40:]
    assert part.to_ms == START_MS


def test_a_cold_query_of_very_many_series_ends_at_the_page_limit() -> None:
    """It keeps the newest rows; halving the window would only lead away from them."""
    platform = FakePlatform(series("a", "t", 500))
    desk = Desk(platform, PollParams(limit=10, history_points=400, pages_max=3))
    (part,) = desk.read(desk.query(cold=True))
    assert part.cut_off
    assert len(platform.asked) == 3 + 1  # the fourth is for the series that did not get its share
    assert START_MS in part.points.t_ms


def test_slow_series_are_not_starved_by_busy_ones() -> None:
    """Busy series push slow ones out of a cold answer: those get a request of their own (trap 4)."""
    slow = series("slow", "t", 10, 60_000)
    platform = FakePlatform(series("busy", "t", 600, 10) + slow)
    desk = Desk(platform, PollParams(limit=40, history_points=10))
    (part,) = desk.read(desk.query(cold=True, from_ms=START_MS - HOUR_MS))
    assert set(slow) <= set(desk.rows(part.points))
    assert platform.asked[-1]["source"] == "slow"


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [AuthError("403"), RejectedError("400"), ContractError("html"), TransientError("503")]
)
def test_a_failing_query_leaves_the_others(error: Exception) -> None:
    """Its answer carries the error, the others are whole."""
    platform = FakePlatform(series("a", "t", 5) + series("b", "u", 5))
    desk = Desk(platform, PollParams())
    platform.script["telemetry"] = [error, None, error, error, error]
    failed, whole = desk.read(desk.query([("a", "t")]), desk.query([("b", "u")]))
    assert failed.error is error
    assert len(failed.points) == 0
    assert whole.error is None
    assert len(whole.points) == 5


def test_a_failure_on_a_later_page_fails_the_query() -> None:
    """Half an answer is no answer: the cursor stays where it is."""
    platform = FakePlatform(series("a", "t", 50))
    platform.script["telemetry"] = [None, ContractError("not JSON")]
    desk = Desk(platform, PollParams(limit=20))
    (failed,) = desk.read(desk.query())
    assert isinstance(failed.error, ContractError)
    assert len(failed.points) == 0


def test_an_unknown_shape_fails_the_query() -> None:
    """An answer that is not telemetry is an error of that query."""
    platform = FakePlatform(series("a", "t", 1))
    platform.script["telemetry"] = [b'{"rows": []}']
    desk = Desk(platform, PollParams())
    (failed,) = desk.read(desk.query())
    assert isinstance(failed.error, ContractError)


def test_a_transient_error_is_tried_again(stopped: FakeClock) -> None:
    """Within the tick, with a pause, and each attempt is counted as a request."""
    platform = FakePlatform(series("a", "t", 5))
    platform.script["telemetry"] = [TransientError("503"), TransientError("429", retry_after_s=2.0)]
    desk = Desk(platform, PollParams())
    (whole,) = desk.read(desk.query())
    assert len(whole.points) == 5
    assert desk.reader.requests == 3
    assert stopped.slept_s[1] >= 2.0


def test_a_mistake_of_the_configuration_is_not_a_failing_query() -> None:
    """An address that cannot be used at all ends the run instead of failing every tick."""
    platform = FakePlatform(series("a", "t", 1))
    platform.script["telemetry"] = [ConfigError("check the address")]
    desk = Desk(platform, PollParams())
    with pytest.raises(ConfigError):
        desk.read(desk.query())


# --- clocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [-7_200_000, -1500, 0, 1500, 7_200_000])
def test_the_platforms_clock_is_learned(ahead_ms: int) -> None:
    """The end of the window tells the server's now; from then on that is the time."""
    platform = FakePlatform(series("a", "t", 1), ahead_ms=ahead_ms)
    desk = Desk(platform, PollParams())
    asyncio.run(desk.reader.check())
    assert desk.reader.skew_ms == ahead_ms
    assert desk.reader.now_ms() == START_MS + ahead_ms


@pytest.mark.parametrize("jump_ms", [-30_000_000, 30_000_000])
def test_a_clock_that_jumps_moves_no_time(monkeypatch: pytest.MonkeyPatch, jump_ms: int) -> None:
    """While nothing answers, hours that the wall clock jumps are not taken for hours that have passed."""
    desk = Desk(FakePlatform(series("a", "t", 1), ahead_ms=700), PollParams())
    asyncio.run(desk.reader.check())
    monkeypatch.setattr("plexus_detect.clock.now_ms", lambda: START_MS + jump_ms)
    assert desk.reader.now_ms() == START_MS + 700


def test_a_slow_answer_is_not_taken_for_a_wrong_clock(stopped: FakeClock) -> None:
    """Between its two ends a request cannot prove a difference."""

    class Slow(FakePlatform):
        async def telemetry(self, params: dict[str, str]) -> bytes:
            await stopped.sleep_s(3)
            body = await super().telemetry(params)
            await stopped.sleep_s(5)
            return body

    desk = Desk(Slow(series("a", "t", 1)), PollParams())
    asyncio.run(desk.reader.check())
    assert desk.reader.skew_ms == 0


# --- discovery --------------------------------------------------------------------------------------------


def test_one_request_names_every_series_of_the_last_hour() -> None:
    """The summary is enough: no device is looked up that it knows."""
    platform = FakePlatform(series("a", "t", 2) + series("b", "u", 2))
    desk = Desk(platform, PollParams())
    assert desk.discover() == {("a", "t"), ("b", "u")}
    assert platform.calls == ["fleet_health", "sources"]


def test_devices_silent_for_longer_are_looked_up_once() -> None:
    """The read API knows every name ever stored; only wanted sources are asked for, and only once."""
    platform = FakePlatform(series("a", "t", 2))
    platform.silent = {"quiet": ("t", "h"), "other": ("t",)}
    desk = Desk(platform, PollParams())
    found = desk.discover(lambda slug: slug != "other")
    assert found == {("a", "t"), ("quiet", "t"), ("quiet", "h")}
    assert platform.calls.count("source_metrics") == 1
    desk.discover(lambda slug: slug != "other")
    assert platform.calls.count("source_metrics") == 1


def test_a_fleet_that_was_silent_for_an_hour_is_found_all_the_same() -> None:
    """An empty summary says nothing of older series."""
    platform = FakePlatform()
    platform.silent = {"quiet": ("t",)}
    desk = Desk(platform, PollParams())
    assert desk.discover() == {("quiet", "t")}


def test_lookups_are_bounded_a_round() -> None:
    """A thousand silent devices are looked up some at a time."""
    platform = FakePlatform()
    platform.silent = {f"dev-{k}": ("t",) for k in range(LOOKUPS_MAX + 10)}
    desk = Desk(platform, PollParams())
    assert len(desk.discover()) == LOOKUPS_MAX
    assert len(desk.discover()) == 10


@pytest.mark.parametrize("error", [TransientError("no answer"), AuthError("402"), ContractError("html")])
def test_a_read_api_that_is_down_is_asked_again_in_another_round(error: Exception) -> None:
    """Its first failure ends the round's lookups, nothing is taken as looked up, and nothing fails."""
    platform = FakePlatform(series("a", "t", 1))
    platform.silent = {"x": ("t",), "y": ("t",)}
    platform.script["source_metrics"] = [error]
    desk = Desk(platform, PollParams())
    assert desk.discover() == {("a", "t")}
    assert platform.calls.count("source_metrics") == 1
    assert desk.discover() == {("a", "t"), ("x", "t"), ("y", "t")}


def test_a_source_that_the_read_api_refuses_does_not_block_the_others() -> None:
    """It counts as looked up, with nothing found."""
    platform = FakePlatform()
    platform.silent = {"x": ("t",), "y": ("t",)}
    platform.script["source_metrics"] = [RejectedError("404")]
    desk = Desk(platform, PollParams())
    assert desk.discover() == {("y", "t")}


@pytest.mark.parametrize("error", [RejectedError("404"), ContractError("html")])
def test_without_a_summary_a_sample_serves(error: Exception) -> None:
    """A platform without the summary route shows its series in the newest rows."""
    platform = FakePlatform(series("a", "t", 2) + series("b", "u", 2))
    platform.script["fleet_health"] = [error]
    desk = Desk(platform, PollParams())
    assert desk.discover() == {("a", "t"), ("b", "u")}
    assert "metric" not in platform.asked[0]


def test_discovery_that_gets_nothing_at_all_raises() -> None:
    """Neither summary nor sample: the caller decides whether it can go on."""
    platform = FakePlatform(series("a", "t", 2))
    platform.script["fleet_health"] = [ContractError("html")]
    platform.script["telemetry"] = [RejectedError("404")]
    desk = Desk(platform, PollParams())
    with pytest.raises(RejectedError):
        desk.discover()


def test_a_refused_key_is_not_hidden_by_discovery() -> None:
    """401 from the summary is the key's business."""
    platform = FakePlatform()
    platform.script["fleet_health"] = [AuthError("401")]
    desk = Desk(platform, PollParams())
    with pytest.raises(AuthError):
        desk.discover()


def test_an_answer_without_its_window_still_counts() -> None:
    """A platform that does not echo the window is read up to the moment of asking."""
    platform = FakePlatform(series("a", "t", 1))
    body = answer(platform.rows, START_MS).replace(b'"to"', b'"till"')
    platform.script["telemetry"] = [body]
    desk = Desk(platform, PollParams())
    (whole,) = desk.read(desk.query())
    assert whole.to_ms == START_MS
