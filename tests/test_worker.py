"""worker: ticks that survive failures, and what is said about them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from fake_platform import START_MS, FakeClock, FakePlatform
from worker_desk import events, history, opened, quick, tick

from plexus_detect.errors import AuthError, ContractError, RejectedError, TransientError
from plexus_detect.store import Store
from plexus_detect.telling import stamp

pytestmark = pytest.mark.usefixtures("stopped")


# --- start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["telemetry", "check_write"])
@pytest.mark.parametrize(
    "error", [AuthError("403"), RejectedError("404"), ContractError("html")], ids=lambda e: type(e).__name__
)
def test_a_start_that_cannot_work_raises(stopped: FakeClock, method: str, error: Exception) -> None:
    """A key without read, without write, a wrong address: a person must act."""
    platform = FakePlatform(history(START_MS))
    platform.script[method] = [error]
    with pytest.raises(type(error)):
        opened(platform, quick())


def test_discovery_that_fails_at_start_stops_nobody_who_knows_a_series(
    stopped: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Series named in full, or known from before, are polled; otherwise there is nothing to do."""
    platform = FakePlatform(history(START_MS, 2))

    def broken() -> None:
        platform.script = {"fleet_health": [RejectedError("404")], "telemetry": [None, RejectedError("400")]}

    broken()
    with pytest.raises(RejectedError):
        opened(platform, quick())
    broken()
    named = opened(platform, quick(series='[{"sources": ["dev-1"], "metrics": ["t"]}]'))
    assert named.running.series_count() == 1
    assert len(events(caplog, "discovery_failed")) == 1
    store = Store(tmp_path / "s.db")
    tick(opened(platform, quick(), store))
    broken()
    assert opened(platform, quick(), store).running.series_count() == 2


def test_our_own_series_are_never_watched(stopped: FakeClock) -> None:
    """Neither what the detector posts nor the platform's internal rows are scored or even asked for."""
    rows = history(START_MS) + [("dev-0", m, START_MS - 9000, 1.0) for m in ("t.zscore", "_frame", "t.drift")]
    platform = FakePlatform(rows)
    worker = opened(platform, quick())
    for _ in range(3):
        stopped.t_ms += 1000
        tick(worker)
    assert worker.running.series_count() == 1
    assert [tuple(key) for key in worker.running.table.keys] == [("dev-0", "t")]
    assert {asked["metric"] for asked in platform.asked[1:]} == {"t"}


@pytest.mark.parametrize("ahead_ms", [-3_600_000, 3_600_000])
def test_a_wrong_clock_of_ours_changes_nothing(stopped: FakeClock, ahead_ms: int) -> None:
    """New samples are posted from the start, and history is not, although our clock is an hour off."""
    platform = FakePlatform(history(START_MS + ahead_ms), ahead_ms=ahead_ms)
    worker = opened(platform, quick())
    tick(worker)
    assert platform.stored(".zscore") == []
    platform.rows.append(("dev-0", "t", START_MS + ahead_ms + 500, 20.1))
    stopped.t_ms += 1000
    tick(worker)
    assert [row[2] for row in platform.stored(".zscore")] == [START_MS + ahead_ms + 500]


# --- ticks ------------------------------------------------------------------------------------------------


def test_a_tick_asks_once(stopped: FakeClock) -> None:
    """A hundred series of two metrics are one request, and the report says so."""
    rows = [(s, m, t, v) for s, _m, t, v in history(START_MS, 50, 12) for m in ("t", "h")]
    platform = FakePlatform(rows)
    worker = opened(platform, quick())
    tick(worker)
    stopped.t_ms += 1000
    platform.rows += [(f"dev-{d}", "t", START_MS + 900, 20.0) for d in range(50)]
    asked = len(platform.asked)
    report = tick(worker)
    assert (report.requests, len(platform.asked) - asked, report.points, report.series) == (1, 1, 50, 100)


def test_fleets_are_scored_when_nothing_new_comes(stopped: FakeClock) -> None:
    """What waited for stragglers is posted by a later tick, although that one brings no point."""
    platform = FakePlatform(history(START_MS, 6))
    worker = opened(platform, quick())
    tick(worker)
    stopped.t_ms = START_MS + 1000
    platform.rows += [(f"dev-{d}", "t", START_MS + 900, 20.0 + d) for d in range(6)]
    assert tick(worker).points == 6
    assert platform.stored(".fleet_zscore") == []
    stopped.t_ms = START_MS + 4000
    assert tick(worker).points == 0
    assert [row[2] for row in platform.stored(".fleet_zscore")] == [START_MS + 900] * 6


@pytest.mark.parametrize("lag_ms", [0, 8_000, 20_000, 40_000])
@pytest.mark.parametrize("batch", [1, 15])
def test_devices_that_send_late_lose_nothing(stopped: FakeClock, lag_ms: int, batch: int) -> None:
    """A clock that runs behind, or uploads of several samples at once, beside a device that is punctual."""
    lagged = [("slow", m, t - lag_ms, v) for _s, m, t, v in history(START_MS)]
    platform = FakePlatform(history(START_MS) + lagged)
    worker = opened(platform, quick())
    tick(worker)
    for k in range(60):
        stopped.t_ms = START_MS + 1000 * k + 300
        platform.rows.append(("dev-0", "t", START_MS + 1000 * k, 20.1))
        if k % batch == batch - 1:
            times = [START_MS + 1000 * (k - b) - lag_ms for b in range(batch)]
            platform.rows += [("slow", "t", t, 20.1) for t in times]
        tick(worker)
    posted = [row[2] for row in platform.stored("t.zscore") if row[0] == "slow"]
    assert posted == [START_MS + 1000 * k for k in range(60 - lag_ms // 1000)]


def test_failures_are_told_once_and_then_ever_more_rarely(
    stopped: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of ten ticks is four lines, its end one; the series keeps its place."""
    caplog.set_level(logging.INFO)
    platform = FakePlatform(history(START_MS))
    worker = opened(platform, quick())
    tick(worker)
    platform.script["telemetry"] = [ContractError("out of order")] * 10
    for _ in range(10):
        stopped.t_ms += 1000
        assert tick(worker).errors == ["out of order"]
    platform.rows.append(("dev-0", "t", START_MS + 1500, 20.1))
    tick(worker)
    tick(worker)
    told = events(caplog, "query_failed")
    assert [fields["ticks"] for fields in told] == [1, 2, 4, 8]
    assert told[0] == {"err": "out of order", "queries": 1, "ticks": 1}
    assert events(caplog, "query_recovered") == [{"ticks": 10}]
    assert [row[2] for row in platform.stored(".zscore")] == [START_MS + 1500]
    assert len(events(caplog, "tick")) == 13


def test_a_refused_key_is_borne_with_for_minutes(stopped: FakeClock) -> None:
    """The key server may be in trouble; after five minutes without a break the key is bad."""
    platform = FakePlatform(history(START_MS))
    worker = opened(platform, quick())
    for wait_ms in (0, 200_000, 99_000):
        stopped.t_ms += wait_ms
        platform.script["telemetry"] = [AuthError("401")]
        assert tick(worker).errors == ["401"]
    stopped.t_ms += 2_000
    platform.script["telemetry"] = [AuthError("401")]
    with pytest.raises(AuthError):
        tick(worker)


def test_a_gap_that_is_never_read_is_told_once(stopped: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """After an outage longer than poll.catchup_max the worker goes on near now, and says since when."""
    platform = FakePlatform(history(START_MS))
    worker = opened(platform, quick(poll__catchup_max="1m"))
    tick(worker)
    stopped.t_ms += 600_000
    platform.rows.append(("dev-0", "t", stopped.t_ms - 100, 20.1))
    tick(worker)
    stopped.t_ms += 1000
    tick(worker)
    (gap,) = events(caplog, "gap_skipped")
    assert gap["series"] == 1
    assert gap["since"] < gap["till"]
    assert [row[2] for row in platform.stored(".zscore")] == [START_MS + 599_900]


def test_the_outbox_is_bounded(stopped: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """While nothing can be posted the oldest scores go, counted and told."""
    platform = FakePlatform(history(START_MS))
    worker = opened(platform, quick(state__outbox_points_max="5"))
    tick(worker)
    platform.script["ingest"] = [TransientError("503")] * 20
    for k in range(12):
        platform.rows.append(("dev-0", "t", START_MS + 1000 * k + 500, 20.1))
        stopped.t_ms += 1000
        report = tick(worker)
    assert report.outbox == 5
    assert worker._store.tally()["dropped"] == 7
    assert len(events(caplog, "outbox_full")) == 7


def test_an_anomaly_is_told_in_words(stopped: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """What, where, value, expected, score and since when; and again when it is over."""
    platform = FakePlatform(history(START_MS))
    worker = opened(platform, quick())
    tick(worker)
    for k in range(20):
        usual = 20.0 + k * 7 % 5 / 10
        platform.rows.append(("dev-0", "t", START_MS + 1000 * k + 500, 29.0 if 2 <= k < 7 else usual))
        stopped.t_ms += 1000
        tick(worker)
    (start,) = events(caplog, "anomaly_opened")
    assert start["source"] == "dev-0"
    assert (start["series"], start["value"]) == ("t.zscore", 29.0)
    assert start["msg"].startswith("t on dev-0 is anomalous: 29, expected 20.")
    assert start["since"] == stamp(START_MS + 2500)
    (end,) = events(caplog, "anomaly_closed")
    assert "is back to normal" in end["msg"]


# --- once -------------------------------------------------------------------------------------------------


def test_once_reads_everything_and_again_nothing(stopped: FakeClock, tmp_path: Path) -> None:
    """Twice in a row: the first posts what is new, the second nothing twice."""
    platform = FakePlatform(history(START_MS))
    config = quick(poll__interval="30s")
    for _ in range(2):
        store = Store(tmp_path / "s.db")
        worker = opened(platform, config, store)
        report = asyncio.run(worker.once())
        assert not report.failed
        assert report.outbox == 0
        store.close()
    posted = [row[2] for row in platform.stored(".zscore")]
    assert len(posted) == len(set(posted)) == 29


def test_once_reads_a_series_that_it_meets_on_the_way(stopped: FakeClock) -> None:
    """A source that speaks for the first time after discovery is read in the same run."""
    platform = FakePlatform(history(START_MS))
    worker = opened(platform, quick(poll__interval="30s"))
    platform.rows += [("dev-9", "t", START_MS - 1000 * k, 5.0 + k % 3) for k in range(40)]
    asyncio.run(worker.once())
    assert {row[0] for row in platform.stored(".zscore")} == {"dev-0", "dev-9"}


def test_once_ends_after_the_tick_when_told_to(stopped: FakeClock) -> None:
    """A signal does not wait for retries of the delivery; the outbox keeps what was not posted."""
    platform = FakePlatform(history(START_MS))
    stop = asyncio.Event()
    worker = opened(platform, quick(poll__interval="30s"), on_tick=lambda report: stop.set())
    platform.script["ingest"] = [TransientError("503")] * 9
    report = asyncio.run(worker.once(stop))
    assert report.tick == 1
    assert report.outbox == 29
    assert platform.calls.count("ingest") == 1
