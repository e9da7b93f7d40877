"""The whole pipe: devices, the sandbox over real HTTP, and the worker, on one clock that is stepped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

from fake_platform import START_MS, FakeClock, Row, settings

from plexus_detect import clock
from plexus_detect.client import Client, Endpoints
from plexus_detect.config import Config
from plexus_detect.report import TickReport
from plexus_detect.sandbox import Sandbox, Settings
from plexus_detect.sandbox.points import StoredRow
from plexus_detect.store import Store
from plexus_detect.worker import Worker, open_worker

DEVICES = [f"dev-{k}" for k in range(8)]
QUIET = "temperature"


def config(**more: str) -> Config:
    """Settings with a poll a second; the detectors are the defaults."""
    given = {"poll__interval": "1s", "fleet__settle": "1500ms"}
    return settings(**(given | more))


def noise(source: str, t_ms: int, sigma: float = 0.1) -> float:
    """A device's measuring error at one time, the same whenever it is asked for."""
    return random.Random(f"{source} {t_ms}").gauss(0, sigma)


def quiet_room(source: str, t_ms: int) -> Row:
    """An ordinary sample."""
    return source, QUIET, t_ms, 22.4 + DEVICES.index(source) / 10 + noise(source, t_ms)


class Pipe:
    """A sandbox, and a worker that polls it once for each ``step``."""

    def __init__(self, stopped: FakeClock, box: Sandbox, worker: Worker) -> None:
        self.stopped = stopped
        self.box = box
        self.worker = worker
        self.number = 0
        self.tally: dict[str, int] = {}
        self.ended: list[StoredRow] | None = None

    def end(self) -> None:
        """Keep what tests look at, before everything closes."""
        self.ended = self.box.rows()
        self.tally = self.worker._store.tally()

    def rows(self, source: str | None = None, metric: str | None = None) -> list[StoredRow]:
        """The stored rows in order of writing, also after the end."""
        rows = self.box.rows() if self.ended is None else self.ended
        return [r for r in rows if source in (None, r.source) and metric in (None, r.metric)]

    @property
    def now_ms(self) -> int:
        """The time of the next step's samples."""
        return START_MS + self.number * 1000

    async def step(self, rows: Iterable[Row] | None = None) -> TickReport:
        """One second: ``rows`` (or a quiet sample of every device) are measured, then polled and posted."""
        self.box.load(list(rows) if rows is not None else [quiet_room(s, self.now_ms) for s in DEVICES])
        self.number += 1
        self.stopped.t_ms = max(self.stopped.t_ms, self.now_ms - 700)
        report = await self.worker.tick()
        for _ in range(30):
            if await self.worker.delivery.deliver_all():
                return report
            await clock.sleep_s(self.worker.delivery.pause_s())
        raise AssertionError("the outbox does not empty")

    async def steps(self, n: int, rows: Callable[[int], Sequence[Row]] | None = None) -> None:
        """``n`` steps, the samples of each given by its time."""
        for _ in range(n):
            await self.step(rows(self.now_ms) if rows else None)

    async def drain(self) -> None:
        """Time passes without samples, until everything that waited has been scored."""
        for _ in range(6):
            await self.step([])

    def posted(self, metric: str = QUIET, suffix: str = ".zscore", source: str | None = None) -> list[float]:
        """The values that we posted of one series, in order of time."""
        rows = sorted(self.rows(source, metric + suffix), key=lambda row: row.t_ms)
        return [row.value for row in rows]

    def derived(self) -> list[Row]:
        """Every row of ours in the platform's store."""
        return sorted(
            (r.source, r.metric, r.t_ms, r.value) for r in self.rows() if r.metric.endswith("zscore")
        )


def play(
    stopped: FakeClock,
    body: Callable[[Pipe], object],
    *,
    past: Iterable[Row] | None = None,
    given: Config | None = None,
    before: Callable[[Sandbox], object] = lambda box: None,
) -> Pipe:
    """Run ``body`` with a pipe whose platform holds ``past`` (a quiet minute of every device)."""
    stopped.t_ms = START_MS + 200
    if past is None:
        past = [quiet_room(s, START_MS - 1000 * k) for s in DEVICES for k in range(70, 0, -1)]
    rows = list(past)

    async def inside(box: Sandbox) -> Pipe:
        box.load(rows)
        before(box)
        async with Client(Endpoints(box.url, box.url, box.url), box.key) as client:
            store = Store(":memory:")
            worker = await open_worker(given or config(), client, store)
            pipe = Pipe(stopped, box, worker)
            await body(pipe)  # type: ignore[misc]
            pipe.end()
            store.close()
            return pipe

    with Sandbox(Settings(), now_ms=lambda: stopped.t_ms) as box:
        return asyncio.run(inside(box))
