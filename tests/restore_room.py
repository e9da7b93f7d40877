"""A worker over one state file that can be dropped and opened again, with devices that a seed makes.

What it posts and the state it ends with can be compared with those of a run that was never disturbed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fake_platform import START_MS, FakeClock, FakePlatform, Row, settings

from plexus_detect.config import Config
from plexus_detect.store import Store
from plexus_detect.worker import Worker, open_worker

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

    def new_store(self) -> Store:
        """The state file."""
        return Store(self.path)

    async def open(self) -> None:
        """Start a worker over what the file holds; one that runs is dropped as a kill would drop it."""
        if self.store is not None:
            self.store.close()
        self.store = self.new_store()
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


async def run(
    room: Room, kills: set[int], meanwhile: Callable[[], object] = lambda: None, *, save: bool = False
) -> None:
    """Sixty polls; after those in ``kills`` the worker is dropped, or with ``save`` stops as one that was
    asked to, and is opened again; in between ``meanwhile`` happens to its file."""
    await room.open()
    for number in range(TICKS):
        room.measure(number)
        # Every fifth poll finds nothing new, and time alone lets the fleets go on.
        await room.tick()
        if number % 5 == 0:
            room.stopped.t_ms += 600
            await room.tick()
        if number in kills:
            assert room.store is not None
            assert room.worker is not None
            if save:
                room.worker.save()
            room.store.close()
            meanwhile()
            await room.open()


def same(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    """The names of the columns that differ."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
