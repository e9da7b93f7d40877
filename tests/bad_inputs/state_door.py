"""A state file at work: a worker over it that is opened, polls and delivers, and a platform in memory."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fake_platform import FakeClock, FakePlatform, Row
from worker_desk import history, quick

from plexus_detect.series import Derived
from plexus_detect.store import Store
from plexus_detect.store.records import encode_derived
from plexus_detect.worker import open_worker

TICKS = 12
CONFIG = quick(state__snapshot_interval="3s", heartbeat__enabled="false")


async def worked(path: Path, platform: FakePlatform, clock: FakeClock, ticks: int = 1) -> None:
    """Open the file, poll and record some times, deliver once, close. Raises what went wrong."""
    store = Store(path)
    try:
        worker = await open_worker(CONFIG, platform, store)  # type: ignore[arg-type]
        for _ in range(ticks):
            clock.t_ms += 1000
            platform.rows += [(f"dev-{d}", "t", clock.t_ms - 200, 20.0 + clock.t_ms % 7) for d in range(2)]
            await worker.tick()
        await worker.delivery.deliver_all()
    finally:
        store.close()


@dataclass(frozen=True)
class Good:
    """A state file that a worker left, and the platform and the time of it."""

    content: bytes
    rows: tuple[Row, ...]
    t_ms: int


_MADE: list[Good] = []


def good_file(path: Path, clock: FakeClock) -> FakePlatform:
    """Leave a state file with series, coverage, journal, snapshots, tally and a batch that waits.

    It is made once, since a worker takes a second for it.
    """
    if not _MADE:
        platform = FakePlatform(history(clock.t_ms, devices=2))
        asyncio.run(worked(path, platform, clock, TICKS))
        waiting = Derived(*(np.array(column) for column in ([0, 1], [0, 0], [clock.t_ms] * 2, [1.5, 2.5])))
        body = encode_derived(waiting)
        change(path, "INSERT INTO outbox(n, body) VALUES (?,?)", len(waiting), body)
        _MADE.append(Good(path.read_bytes(), tuple(platform.rows), clock.t_ms))
    path.write_bytes(_MADE[0].content)
    clock.t_ms = _MADE[0].t_ms
    return FakePlatform(_MADE[0].rows)


def change(path: Path, sql: str, *values: Any) -> None:
    """One statement on the file, as another program would do it."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA writable_schema=ON")
        db.execute(sql, values)
