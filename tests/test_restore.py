"""restore: killed and continued equals never stopped, bit for bit."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, FakePlatform, Row, settings

from plexus_detect.config import Config
from plexus_detect.store import Store
from plexus_detect.worker import Worker, open_worker

pytestmark = pytest.mark.usefixtures("stopped")

DEVICES = [f"dev-{k}" for k in range(6)]
STEP_MS = 1_000
TICKS = 60


def short(**more: str) -> Config:
    """Settings under which everything happens within a minute; a snapshot every 7 s."""
    given = {
        "fleet__min_points": "10",
        "fleet__settle": "1500ms",
        "poll__interval": "1s",
        "state__snapshot_interval": "7s",
        "post__series": '["zscore","fleet_zscore","zscore_raw","fleet_zscore_raw"]',
    }
    return settings(**(given | more))


def sample(source: str, t_ms: int) -> Row:
    """The one value that a device measures at a time: noise, with a fault of the second device."""
    rng = random.Random(f"{source} {t_ms}")
    fault = 5.0 if source == "dev-1" and START_MS + 20_000 <= t_ms < START_MS + 32_000 else 0.0
    return source, "temperature", t_ms, 20 + DEVICES.index(source) + rng.gauss(0, 0.1) + fault


class Room:
    """A platform that devices fill, and a worker over one state file that can be killed and opened again."""

    def __init__(self, stopped: FakeClock, path: Path, config: Config) -> None:
        self.stopped = stopped
        self.path = path
        self.config = config
        self.platform = FakePlatform()
        for source in DEVICES:
            for k in range(60, 2, -1):
                self.platform.rows.append(sample(source, START_MS - k * STEP_MS))
        self.store: Store | None = None
        self.worker: Worker | None = None

    async def open(self) -> None:
        """Start a worker over what the file holds; one that runs is dropped as a kill would drop it."""
        if self.store is not None:
            self.store.close()
        self.store = Store(self.path)
        self.worker = await open_worker(self.config, self.platform, self.store)  # type: ignore[arg-type]

    def measure(self, number: int) -> None:
        """Let a second pass: most devices send at once, some a poll later and out of order."""
        self.stopped.t_ms = START_MS + number * STEP_MS + 300
        for k, source in enumerate(DEVICES):
            lag = 3 if (number + k) % 11 == 0 else 0
            for n in {number, number - 3} if (number - 3 + k) % 11 == 0 else {number}:
                if n == number and lag:
                    continue
                self.platform.rows.append(sample(source, START_MS + n * STEP_MS))

    async def tick(self) -> None:
        """Poll once and deliver."""
        assert self.worker is not None
        await self.worker.tick()
        assert await self.worker.delivery.deliver_all()

    def posted(self) -> list[Row]:
        """Everything of ours that the platform has stored."""
        return [row for row in self.platform.stored() if row[1] != "temperature"]

    def state(self) -> dict[str, bytes]:
        """Every column of the running state, bit for bit."""
        assert self.worker is not None
        return {name: np.ascontiguousarray(c).tobytes() for name, c in self.worker.running.dump().items()}


async def run(room: Room, kills: set[int]) -> None:
    """Sixty polls; after those in ``kills`` the worker is dropped and opened again."""
    await room.open()
    for number in range(TICKS):
        room.measure(number)
        # Every fifth poll finds nothing new, and time alone lets the fleets go on.
        await room.tick()
        if number % 5 == 0:
            room.stopped.t_ms += 600
            await room.tick()
        if number in kills:
            await room.open()


def same(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    """The names of the columns that differ."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


@pytest.fixture(name="never_stopped")
def _never_stopped(stopped: FakeClock, tmp_path: Path) -> Room:
    """The run without a kill; it finds the fault, and so is worth comparing with."""
    room = Room(stopped, tmp_path / "whole.db", short())
    asyncio.run(run(room, set()))
    values = [row[3] for row in room.posted() if row[0] == "dev-1" and row[1] == "temperature.zscore"]
    assert max(values) > 3
    assert {row[1] for row in room.posted()} == {
        f"temperature.{name}" for name in ("zscore", "fleet_zscore", "zscore_raw", "fleet_zscore_raw")
    }
    return room


@pytest.mark.parametrize("kills", [{5, 6, 7}, {21, 26}, set(range(TICKS))], ids=len)
def test_killed_and_continued_equals_never_stopped(
    never_stopped: Room, tmp_path: Path, kills: set[int]
) -> None:
    """Dropped after any poll and opened again: the same scores, each once, and the same bits."""
    room = Room(never_stopped.stopped, tmp_path / "killed.db", short())
    room.stopped.t_ms = START_MS
    never = never_stopped.state()
    asyncio.run(run(room, kills))
    assert room.posted() == never_stopped.posted()
    assert same(room.state(), never) == []


def test_a_snapshot_that_is_damaged_costs_nothing(never_stopped: Room, tmp_path: Path) -> None:
    """The one before it and a longer replay give the same bits."""
    path = tmp_path / "damaged.db"
    room = Room(never_stopped.stopped, path, short())
    room.stopped.t_ms = START_MS

    async def damaged() -> None:
        await room.open()
        for number in range(TICKS):
            room.measure(number)
            await room.tick()
            if number % 5 == 0:
                room.stopped.t_ms += 600
                await room.tick()
            if number == 30:
                assert room.store is not None
                room.store.close()
                with sqlite3.connect(path) as db:
                    newest = "(SELECT MAX(id) FROM snapshot)"
                    db.execute(f"UPDATE snapshot SET body = zeroblob(9) WHERE id = {newest}")
                db.close()
                await room.open()

    asyncio.run(damaged())
    assert room.posted() == never_stopped.posted()
    assert same(room.state(), never_stopped.state()) == []


def test_a_clean_stop_continues_the_same(never_stopped: Room, tmp_path: Path) -> None:
    """Saving at the end and starting again is no different from going on."""
    room = Room(never_stopped.stopped, tmp_path / "saved.db", short())
    room.stopped.t_ms = START_MS

    async def stopping() -> None:
        await room.open()
        for number in range(TICKS):
            room.measure(number)
            await room.tick()
            if number % 5 == 0:
                room.stopped.t_ms += 600
                await room.tick()
            if number % 10 == 4:
                assert room.worker is not None
                room.worker.save()
                await room.open()

    asyncio.run(stopping())
    assert room.posted() == never_stopped.posted()
    assert same(room.state(), never_stopped.state()) == []


@pytest.mark.parametrize(
    "changed",
    [{"detect__relearn_after": "2h"}, {"detect__threshold": "4"}, {"fleet__group_min": "4"}],
    ids=lambda c: next(iter(c)),
)
def test_changed_settings_warm_up_anew_and_post_nothing_twice(
    stopped: FakeClock, tmp_path: Path, changed: dict[str, str]
) -> None:
    """The platform's history takes the place of the old state; what was posted is not posted again."""
    room = Room(stopped, tmp_path / "s.db", short())

    async def change() -> None:
        await room.open()
        for number in range(20):
            room.measure(number)
            await room.tick()
        room.config = short(**changed)
        await room.open()
        assert room.worker is not None
        assert (room.worker.running.cursors.covered_ms[:6] == -1).all()
        for number in range(20, 40):
            room.measure(number)
            await room.tick()
            if number == 30:
                await room.open()

    asyncio.run(change())
    keys = [row[:3] for row in room.posted()]
    assert len(keys) == len(set(keys))
    after = [row for row in room.posted() if row[1] == "temperature.zscore" and row[2] > START_MS + 20_000]
    assert len(after) > 15 * len(DEVICES)


def test_settings_that_leave_the_state_alone_keep_it(stopped: FakeClock, tmp_path: Path) -> None:
    """Another poll interval is no reason to forget what was learned."""
    room = Room(stopped, tmp_path / "s.db", short())

    async def change() -> None:
        await room.open()
        for number in range(20):
            room.measure(number)
            await room.tick()
        before = room.state()
        room.config = short(poll__interval="2s")
        await room.open()
        assert same(room.state(), before) == []

    asyncio.run(change())


def test_a_series_wanted_for_the_first_time_is_posted_from_now_on(stopped: FakeClock, tmp_path: Path) -> None:
    """It warms up from history like any new one, and its past is not posted, killed or not."""
    one = '[{"sources": ["dev-0"]}]'
    room = Room(stopped, tmp_path / "s.db", short(series=one))

    async def change() -> None:
        await room.open()
        for number in range(20):
            room.measure(number)
            await room.tick()
        assert {row[0] for row in room.posted()} == {"dev-0"}
        room.config = short()
        changed_ms = stopped.t_ms
        await room.open()
        for number in range(20, 40):
            room.measure(number)
            await room.tick()
            if number == 21:
                await room.open()
        others = [row for row in room.posted() if row[0] != "dev-0" and row[1] == "temperature.zscore"]
        assert min(row[2] for row in others) >= changed_ms
        assert len(others) > 15 * (len(DEVICES) - 1)

    asyncio.run(change())


def test_with_both_snapshots_gone_nothing_is_posted_twice(stopped: FakeClock, tmp_path: Path) -> None:
    """What was covered bounds what can have been posted."""
    path = tmp_path / "s.db"
    room = Room(stopped, path, short())

    async def lose() -> None:
        await room.open()
        for number in range(30):
            room.measure(number)
            await room.tick()
        assert room.store is not None
        room.store.close()
        with sqlite3.connect(path) as db:
            db.execute("UPDATE snapshot SET body = x''")
        db.close()
        await room.open()
        for number in range(30, 40):
            room.measure(number)
            await room.tick()

    asyncio.run(lose())
    keys = [row[:3] for row in room.posted()]
    assert len(keys) == len(set(keys))
    assert max(row[2] for row in room.posted()) > START_MS + 36_000
