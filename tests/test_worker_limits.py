"""What a worker that is left alone must bound: slow sources, its sign of life, series that come and go."""

from __future__ import annotations

import asyncio
import json
import logging

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, FakePlatform, Row, settings
from worker_desk import events, history, opened, quick, tick

from plexus_detect import clock
from plexus_detect.config import HeartbeatConfig
from plexus_detect.errors import ContractError, TransientError
from plexus_detect.heartbeat import Heartbeat
from plexus_detect.logs import PACKAGE
from plexus_detect.policy import policy_of, poll_params
from plexus_detect.running import Running
from plexus_detect.series import Points
from plexus_detect.store import Store
from plexus_detect.vitals import reads
from plexus_detect.worker import Worker, open_worker

DAY_MS = 86_400_000


# --- slow sources -----------------------------------------------------------------------------------------


class SlowSource(FakePlatform):
    """Requests for one source alone are answered only when ``released``."""

    def __init__(self, rows: list[Row], slow: str) -> None:
        super().__init__(rows)
        self.slow = slow
        self.released = asyncio.Event()
        self.waiting = 0

    async def telemetry(self, params: dict[str, str]) -> bytes:
        """GET /api/v1/telemetry."""
        if params.get("source") == self.slow:
            self.waiting += 1
            await self.released.wait()
        return await super().telemetry(params)


def test_one_slow_source_delays_no_other(stopped: FakeClock) -> None:
    """Two devices among many are read one by one; one does not answer for a minute. The other is scored in
    every tick, the slow one is not asked again meanwhile, and has all its scores in the end."""
    platform = SlowSource(history(START_MS, 2), "dev-1")
    config = quick(series='[{"sources": ["dev-*"]}]', fleet__enabled="false", heartbeat__enabled="false")

    async def body() -> Worker:
        platform.released.set()
        worker = await open_worker(config, platform, Store(":memory:"))  # type: ignore[arg-type]
        # With so many others of the same metric one request for all would bring too many rows.
        worker._meet([(f"x-{d}", "t") for d in range(3000)])
        await worker.tick()
        platform.released.clear()
        platform.waiting = 0
        for k in range(60):
            at = START_MS + 1000 * k
            platform.rows += [(f"dev-{d}", "t", at, 20.0 + d + k % 3 / 10) for d in range(2)]
            stopped.t_ms = at + 300
            report = await worker.tick(patience_s=0.01)
            assert (report.points, report.under_way, report.ok) == (1, 1, True)
        assert platform.waiting == 1
        platform.released.set()
        await worker.tick()
        await worker.tick()
        assert await worker.delivery.deliver_all()
        worker.close()
        return worker

    asyncio.run(body())
    for source in ("dev-0", "dev-1"):
        times = [r[2] for r in platform.stored() if r[0] == source and r[1].startswith("t.zscore")]
        assert times == [START_MS + 1000 * k for k in range(60)]


def test_a_worker_that_ends_gives_up_what_is_under_way(stopped: FakeClock) -> None:
    """No task is left behind by a tick that did not wait."""
    platform = SlowSource(history(START_MS, 2), "dev-1")
    config = quick(series='[{"sources": ["dev-1"], "metrics": ["t"]}]', heartbeat__enabled="false")

    async def body() -> None:
        worker = await open_worker(config, platform, Store(":memory:"))  # type: ignore[arg-type]
        worker._meet([(f"x-{d}", "t") for d in range(3000)])
        report = await worker.tick(patience_s=0.01)
        assert (report.answers, report.under_way, report.ok) == (0, 1, False)
        worker.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(body())


# --- the sign of life -------------------------------------------------------------------------------------


def heartbeats(platform: FakePlatform) -> list[Row]:
    """What was posted as a sign of life."""
    return [row for row in platform.rows if row[1] == "heartbeat"]


def test_a_sign_of_life_is_posted_while_polls_succeed(stopped: FakeClock) -> None:
    """On a source of its own, which is made first; never for a worker that reads nothing; and it is scored by
    nobody, though it is a metric like any other."""
    platform = FakePlatform(history(START_MS))
    assert not opened(platform, quick()).report.ok or heartbeats(platform) == []
    worker = opened(platform, quick(poll__interval="30s"))
    asyncio.run(worker.once())
    assert platform.made == [("plexus-detect", "plexus-detect worker")]
    assert [row[:2] for row in heartbeats(platform)] == [("plexus-detect", "heartbeat")]
    asyncio.run(worker.discover())
    keys = worker.running.table.keys
    assert not any(
        worker.running.cursors.selected[i] for i, k in enumerate(keys) if k.source == "plexus-detect"
    )
    ill = FakePlatform(history(START_MS))
    worker = opened(ill, quick(poll__interval="30s"))
    ill.script["telemetry"] = [TransientError("503", retry_after_s=60)] * 9
    asyncio.run(worker.once())
    assert heartbeats(ill) == []


def test_one_source_that_cannot_be_read_is_no_dead_worker(stopped: FakeClock) -> None:
    """Its query fails in every tick and the others are read: the tick is no success, but the worker gives its
    sign of life."""
    platform = FakePlatform(history(START_MS, 2))
    worker = opened(platform, quick(poll__interval="30s", fleet__enabled="false"))
    worker._meet([(f"x-{d}", "t,x") for d in range(1)])
    asyncio.run(worker.tick())
    platform.script["telemetry"] = [None, ContractError("an odd row")] * 5
    stopped.t_ms += 30_000
    platform.rows += [(f"dev-{d}", "t", stopped.t_ms - 500, 20.0) for d in range(2)]
    report = asyncio.run(worker.tick())
    assert (report.ok, report.reads, len(report.errors)) == (False, True, 1)
    assert reads(worker.vitals, clock.monotonic_s())


def test_the_loop_beats_at_its_interval_and_stops_when_polls_fail() -> None:
    """Running: one sign of life soon, then at the interval; none while the platform cannot be read."""
    platform = FakePlatform(history(clock.now_ms()))
    config = quick(heartbeat__interval="1s", poll__interval="100ms")

    async def body() -> tuple[int, int]:
        worker = await open_worker(config, platform, Store(":memory:"))  # type: ignore[arg-type]
        stop = asyncio.Event()
        running = asyncio.ensure_future(worker.run(stop))
        await asyncio.sleep(2.3)
        lively = len(heartbeats(platform))
        worker.vitals.last_read_s = -1e9  # as if the last answer were long ago
        platform.script["telemetry"] = [TransientError("503", retry_after_s=60)] * 10_000
        await asyncio.sleep(0.3)
        before = len(heartbeats(platform))
        await asyncio.sleep(1.5)
        after = len(heartbeats(platform))
        stop.set()
        await running
        return lively, after - before

    lively, after = asyncio.run(body())
    assert 2 <= lively <= 4
    assert after == 0


def test_a_sign_of_life_that_fails_is_told_once(stopped: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Also when the gateway says 200 and drops it, as a plan's limit of devices does."""
    caplog.set_level(logging.INFO, PACKAGE)
    platform = FakePlatform()
    beat = Heartbeat(platform, HeartbeatConfig(), lambda: stopped.t_ms)  # type: ignore[arg-type]
    dropped = json.dumps({"success": True, "count": 1, "dropped": 1}).encode()
    platform.script["ingest"] = [TransientError("503"), dropped, None]
    for _ in range(3):
        asyncio.run(beat.beat(7))
    (told,) = events(caplog, "heartbeat_failed")
    assert told["err"] == "503"
    assert len(events(caplog, "heartbeat_recovered")) == 1
    assert platform.made == [("plexus-detect", "plexus-detect worker")]
    assert heartbeats(platform) == [("plexus-detect", "heartbeat", stopped.t_ms, 7.0)]


# --- series that come and go ------------------------------------------------------------------------------


def living(stopped: FakeClock, platform: FakePlatform, worker: Worker, names: list[str], n: int) -> None:
    """``n`` ticks in which these devices send."""
    for k in range(n):
        platform.rows += [(s, "t", stopped.t_ms - 500, 20.0 + (k * 7 + len(s)) % 5 / 10) for s in names]
        tick(worker)
        stopped.t_ms += 1000


def test_a_series_that_vanished_is_forgotten_and_its_place_used_again(
    stopped: FakeClock, caplog: pytest.LogCaptureFixture, tmp_path
) -> None:
    """Devices are replaced by others, day after day: state does not grow, each new one is scored, and all of
    it survives a restart. One that comes back is watched again."""
    caplog.set_level(logging.INFO, PACKAGE)
    config = quick(state__expire_after="12h", heartbeat__enabled="false", fleet__group_min="3")
    platform, store = FakePlatform(), Store(tmp_path / "s.db")
    names = [f"d0-{i}" for i in range(4)]
    platform.rows = [
        (s, "t", START_MS - 1000 * k, 20.0 + k % 5 / 10) for s in names for k in range(60, 0, -1)
    ]
    worker, sizes, rows = opened(platform, config, store), [], []
    for day in range(1, 4):
        living(stopped, platform, worker, names, 40)
        sizes.append(sum(c.nbytes for c in worker.running.dump().values()))
        rows.append(len(worker.running.state.lanes[0].members))
        stopped.t_ms += DAY_MS
        names = [f"d{day}-{i}" for i in range(4)]
        platform.rows = [
            (s, "t", stopped.t_ms - 1000 * k, 20.0 + k % 5 / 10) for s in names for k in range(60, 0, -1)
        ]
        asyncio.run(worker.discover())
        tick(worker)
        if day == 2:
            store.close()
            store = Store(tmp_path / "s.db")
            worker = opened(platform, config, store)
            assert worker.running.series_count() == 4
    assert rows == [4, 8, 8]
    assert sizes[2] < 1.1 * sizes[1]
    assert [e["series"] for e in events(caplog, "series_expired")] == [4, 4, 4]
    living(stopped, platform, worker, names, 30)
    assert {"d3-0", "d3-3"} <= {row[0] for row in platform.stored(".zscore")}
    # d1-0 is back after two days: warmed up from what it sends, and watched.
    living(stopped, platform, worker, [*names, "d1-0"], 5)
    asyncio.run(worker.discover())
    living(stopped, platform, worker, [*names, "d1-0"], 50)
    key = worker.running.table.by_source["d1-0"]["t"]
    assert worker.running.cursors.selected[key]
    assert not worker.running.cursors.expired[key]
    assert np.isfinite(worker.running.state.last_z[key])
    store.close()


def test_a_row_used_again_scores_like_a_new_one() -> None:
    """Nothing of the old series is left in the row: the same bits as in a lane of its own."""
    config = settings(fleet__min_points="10", fleet__group_min="3")
    rng = np.random.default_rng(5)

    def points(series: list[int], start: int, level: float) -> Points:
        t = np.tile(START_MS + 1000 * np.arange(start, start + 120), len(series))
        value = level + rng.normal(0, 0.1, len(t))
        return Points(np.repeat(np.array(series), 120), t, value)

    from plexus_detect.evaluate import State, evaluate
    from plexus_detect.series import SeriesTable

    def state_of(n: int) -> State:
        state = State(SeriesTable(), policy_of(config))
        for i in range(n):
            state.admit(state.table.add(f"dev-{i}", "t"), 0)
        return state

    old = points(list(range(5)), 0, 99.0)
    used, new = state_of(5), state_of(0)
    evaluate(used, old, START_MS + 200_000)
    used.release([1, 3])
    for state in (used, new):
        while len(state.table) < 7:
            state.table.add(f"dev-{len(state.table)}", "t")
        for series in (5, 6):
            state.admit(series, 0)
    assert used.row_of[[5, 6]].tolist() == [1, 3]
    later = points([5, 6], 100_000, 20.0)
    a = evaluate(used, later, START_MS + 200_000_000).scores
    b = evaluate(new, later, START_MS + 200_000_000).scores
    assert np.array_equal(a.z, b.z, equal_nan=True)
    assert np.isfinite(a.z).sum() > 100


def test_too_many_series_are_refused_and_told(
    stopped: FakeClock, caplog: pytest.LogCaptureFixture, tmp_path
) -> None:
    """The bound holds, also after a restart; when room is made the next in line is taken."""
    config = quick(state__series_max="3", state__expire_after="1h", heartbeat__enabled="false")
    platform = FakePlatform(history(START_MS, 5))
    store = Store(tmp_path / "s.db")
    worker = opened(platform, config, store)
    tick(worker)
    assert worker.running.series_count() == 3
    assert events(caplog, "series_refused") == [{"series": 2, "series_max": 3}]
    worker.save()
    store.close()
    store = Store(tmp_path / "s.db")
    worker = opened(platform, config, store)
    assert worker.running.series_count() == 3
    assert worker.vitals.series_refused == 2
    living(stopped, platform, worker, ["dev-3", "dev-4"], 3)
    stopped.t_ms += 2 * 3_600_000
    living(stopped, platform, worker, ["dev-3", "dev-4"], 3)
    for _ in range(2):
        asyncio.run(worker.discover())
    assert worker.running.series_count() == 2
    chosen = {worker.running.table.keys[i].source for i in np.flatnonzero(worker.running.cursors.selected)}
    assert chosen == {"dev-3", "dev-4"}
    assert worker.vitals.series_refused == 0
    store.close()


@pytest.mark.parametrize("detector", ["auto", "zscore", "robust", "ewma"])
def test_memory_of_a_series_is_what_the_readme_says(detector: str) -> None:
    """State with fleets, a full window and a full memory of samples stays below 12 KB a series."""
    config = settings(detect__detector=detector)
    running = Running(policy_of(config), poll_params(config), config.rule_for)
    n = 200
    for i in range(n):
        running.table.add(f"dev-{i}", "t")
    running.admit_new(0)
    rng = np.random.default_rng(1)
    for k in range(0, 400, 20):
        t = np.tile(START_MS + 1000 * np.arange(k, k + 20), n)
        values = rng.normal(20, 0.1, len(t))
        points = Points(np.repeat(np.arange(n), 20), t, values)
        query = running.queries(START_MS + 1000 * (k + 20))[0]
        running.take([(query, points, START_MS + 1000 * (k + 20))], START_MS + 1000 * (k + 20))
    size = sum(column.nbytes for column in running.dump().values())
    assert size / n < 12_000
