"""Series that are silent, slow of clock, or back after a silence: read, at no great cost to the others."""

from __future__ import annotations

import numpy as np
import pytest
from fake_platform import FakeClock, FakePlatform, Row
from worker_desk import history, opened, quick, tick

from plexus_detect.cursor import Cursors, PollParams, advance
from plexus_detect.queries import BEHIND_MAX, next_queries
from plexus_detect.series import Points, SeriesKey

START_MS = 1_800_000_000_000


def lagged(rows: list[Row], source: str, lag_ms: int) -> list[Row]:
    """The same samples from a device whose clock is behind."""
    return [(source, metric, t - lag_ms, value) for _source, metric, t, value in rows]


@pytest.mark.parametrize("lag_ms", [90_000, 110_000, 600_000])
def test_a_clock_that_is_minutes_behind_is_read_for_ever(stopped: FakeClock, lag_ms: int) -> None:
    """Every sample of a device whose clock is minutes slow is taken, beside a punctual one."""
    platform = FakePlatform(history(START_MS) + lagged(history(START_MS), "slow", lag_ms))
    worker = opened(platform, quick())
    tick(worker)
    taken = 0
    for k in range(300):
        stopped.t_ms = START_MS + 1000 * k + 300
        platform.rows.append(("dev-0", "t", START_MS + 1000 * k, 20.1))
        platform.rows.append(("slow", "t", START_MS + 1000 * k - lag_ms, 20.1))
        taken += tick(worker).points
    assert taken == 600


def test_a_dead_device_is_asked_for_ever_more_rarely(stopped: FakeClock) -> None:
    """An hour of silence of one of three devices costs few requests, and its return is seen at once."""
    platform = FakePlatform(history(START_MS, devices=3))
    worker = opened(platform, quick())
    tick(worker)
    asked = 0
    for k in range(720):
        stopped.t_ms = START_MS + 5000 * k + 300
        platform.rows += [(f"dev-{d}", "t", START_MS + 5000 * k, 20.1) for d in range(2)]
        asked += tick(worker).requests - 1
    assert asked < 100
    back = [("dev-2", "t", START_MS + 5000 * k, 20.1) for k in range(720)]
    platform.rows += back
    stopped.t_ms += 1000
    taken = tick(worker).points + tick(worker).points
    assert taken == len(back)


@pytest.mark.parametrize("away", [3, 7, 40])
@pytest.mark.parametrize("cadence_ms", [8_000, 30_000, 60_000])
def test_what_a_device_measured_while_offline_is_read(cadence_ms: int, away: int) -> None:
    """However long it was away, and however rarely it measures: its buffer is read from the first sample."""
    keys, params, cursors = [SeriesKey("dev", "t"), SeriesKey("slow", "t")], PollParams(), Cursors()
    cursors.grow(2)
    cursors.selected[:] = True
    cursors.cadence_ms[:] = 4_000, cadence_ms
    cursors.last_ms[:] = cursors.covered_ms[:] = START_MS
    stored, kept, taken = list[tuple[int, int]](), list[tuple[int, int]](), set[tuple[int, int]]()
    for k in range(1, (away + 10) * cadence_ms // 4_000):
        now = START_MS + 4_000 * k
        stored.append((0, now - 100))
        number = 4_000 * k // cadence_ms
        if number > 4_000 * (k - 1) // cadence_ms:
            kept.append((1, START_MS + number * cadence_ms))
        if not 5 <= number < 5 + away:
            stored, kept = stored + kept, []
        for query in next_queries(cursors, keys, now, params):
            shown = np.array([row for row in stored if query.from_ms <= row[1] <= now])
            rows = Points(shown[:, 0], shown[:, 1], np.ones(len(shown)))
            new = advance(cursors, query, rows, now, params).points
            taken |= set(zip(new.series.tolist(), new.t_ms.tolist(), strict=True))
    assert taken == set(stored)


def test_a_slow_series_drags_nobody_back(stopped: FakeClock) -> None:
    """A metric every ten minutes beside one every second does not widen the reads of the other."""
    slow = [("dev-0", "slow", START_MS - 600_000 * k, 5.0 + k % 2) for k in range(40, 0, -1)]
    platform = FakePlatform(history(START_MS) + slow)
    worker = opened(platform, quick())
    tick(worker)
    rows = []
    for k in range(700):
        stopped.t_ms = START_MS + 1000 * k + 300
        platform.rows.append(("dev-0", "t", START_MS + 1000 * k, 20.1))
        if k % 600 == 0:
            platform.rows.append(("dev-0", "slow", START_MS + 1000 * k, 5.0))
        rows.append(tick(worker).rows)
    assert max(rows[5:]) < 100


def test_every_dead_device_gets_its_turn() -> None:
    """With more silent devices than requests a tick may make, those left out come first in the next tick."""
    dead, living, now = BEHIND_MAX + 30, 2000, START_MS
    keys = [SeriesKey(f"dev-{i}", "t") for i in range(dead + living)]
    cursors = Cursors()
    cursors.grow(len(keys))
    cursors.selected[:] = True
    cursors.cadence_ms[:] = 1000.0
    cursors.last_ms[:] = cursors.covered_ms[:] = now
    cursors.last_ms[:dead] = cursors.covered_ms[:dead] = now - 100_000
    asked: set[str | None] = set()
    for _tick in range(2):
        now += 1000
        for query in next_queries(cursors, keys, now, PollParams()):
            if query.source is not None:
                asked.add(query.source)
                advance(cursors, query, Points.empty(), now, PollParams())
    assert asked == {f"dev-{i}" for i in range(dead)}
