"""Runs a world: the real worker on a state file, against the real sandbox, in virtual time.

What is compared: every row that the worker has posted of the world's series, by source, metric, time of the
sample and value, with those of a run of the same world in which nothing goes wrong. None may be missing, none
different, none extra. A row may be there twice only if the platform itself stored it twice, or if the worker
counted it as posted again after its outcome was uncertain (``resent`` of the state file). Episodes are the
stretches of ``.zscore`` and ``.fleet_zscore`` that are not zero, so they are compared with the rows.

What is not promised, and therefore kept out of a run by ``World.calm``:

- a sample that comes after newer ones of its series is late, or too late, if the newer ones were read before;
  after an outage it is simply in order. So the worker can read while that is decided.
- the first samples of a series that nobody knew are posted from about when it was met on. So the worker can
  read at that moment too, and what comes then is only warming up.
- a sample that comes later than ``poll.overlap`` after newer ones is read if some query reaches so far back.
  It is compared with nothing (``World.loose``); that it changes no other score is.
- which devices are compared in a moment depends on what was there when it was over (``fleet.settle``), so
  devices whose samples come later than that are judged by their own past only, as they should be configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sim_death import CONNECT, Life, mortal
from sim_loop import VirtualLoop, virtual_time
from sim_network import Fate, Network, Trace
from sim_plan import Cut, Jump, Plan, Strike, Trouble
from sim_world import SUFFIXES, World

from plexus_detect.client import Client, Endpoints
from plexus_detect.errors import PlexusDetectError, StoreError
from plexus_detect.sandbox import Sandbox, Settings
from plexus_detect.store import Store
from plexus_detect.worker import open_worker

# A worker that has ended by itself is started again after this long, as a service manager would.
RESTART_S = 5.0

# After the world has ended: in how many polls, and seconds, everything has to be read; how much longer it may
# take to be delivered.
AFTERMATH_POLLS, AFTERMATH_S, DELIVERY_S_MAX = 6, 30.0, 1_800.0
LIVES_MAX = 400
ENDPOINTS = Endpoints("http://app.sim", "http://gateway.sim", "http://api.sim")

Key = tuple[str, str, int]


@dataclass
class Outcome:
    """How a run ended: how often each derived row is stored, and ``crashes``, which must not happen."""

    rows: Counter[tuple[str, str, int, float]] = field(default_factory=Counter)
    tally: dict[str, int] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    platform_twice: int = 0
    kills: int = 0
    stops: int = 0
    exits: int = 0
    ticks: int = 0
    requests: int = 0
    virtual_s: float = 0.0
    turns: int = 0
    statements: int = 0
    digest: str = ""


class Run:
    """One run; ``simulate`` makes it, lives it and returns its outcome."""

    def __init__(self, world: World, plan: Plan, loop: VirtualLoop, folder: Path) -> None:
        self.world, self.plan, self.loop = world, plan, loop
        self.path = folder / "state.db"
        self.out = Outcome()
        self.trace = Trace()
        self.box = Sandbox(Settings(), now_ms=loop.platform_ms)
        self.network = Network(loop, self.box.app, world.seed, self.trace)
        self.network.fate = self._fate
        self.life = Life()
        self.stop = asyncio.Event()
        self.asked = False
        self.down_s = RESTART_S
        self.cuts: list[Cut] = []
        self.armed: Strike | None = None
        self.count = 0
        self.waiting = list(plan.strikes)
        self.others: list[asyncio.Future[None]] = []
        self._watch_doubles()
        loop.on_turn(self._turn)

    # -- the platform and the network

    def _fate(self, path: str) -> Fate | None:
        now_ms = self.loop.time() * 1000
        return next(
            (c.fate for c in self.cuts if path.startswith(c.route) and c.at_ms <= now_ms < c.until_ms), None
        )

    def _watch_doubles(self) -> None:
        """Count the rows that the platform stores twice by itself."""
        points = self.box._plexus.stores.points
        add = points.add
        seen: list[object] = [None]

        def counted(org: str, rows: list[object], visible_ms: int) -> None:
            add(org, rows, visible_ms)  # type: ignore[arg-type]
            # The fault stores the same list again.
            self.out.platform_twice += len(rows) if rows is seen[0] else 0
            seen[0] = rows

        points.add = counted  # type: ignore[method-assign]

    async def feed(self) -> None:
        """Show the world's rows in their time."""
        for at_ms in sorted(self.world.arrivals):
            await asyncio.sleep(at_ms / 1000 - self.loop.time())
            self.box.load(self.world.arrivals[at_ms])
            self.box.tick()

    async def trouble(self) -> None:
        """Put the plan's faults in force, and end them."""
        todo: list[Trouble | Cut | Jump] = [*self.plan.troubles, *self.plan.cuts, *self.plan.jumps]
        steps = [(event.at_ms, i, event) for i, event in enumerate(todo)]
        for at_ms, _i, event in sorted(steps, key=lambda step: step[:2]):
            await asyncio.sleep(max(0.0, at_ms / 1000 - self.loop.time()))
            if isinstance(event, Jump):
                self.loop.jump_ms = event.ahead_ms
                self.out.faults["clock jump"] += 1
            elif isinstance(event, Cut):
                self.cuts.append(event)
            else:
                self.others.append(asyncio.ensure_future(self._put(event)))

    async def _put(self, trouble: Trouble) -> None:
        fault = self.box.faults.add(trouble.kind, **trouble.given)
        if trouble.until_ms is not None:
            await asyncio.sleep(trouble.until_ms / 1000 - self.loop.time())
        else:
            # A single fault that met nobody within a minute meets nobody: later may be a calm span.
            await asyncio.sleep(10.0)
        self.box.faults.clear(fault.id)
        self.out.faults[trouble.name] += fault.hits

    # -- life and death

    def _turn(self) -> None:
        """An iteration of the loop begins: arm the next strike, and strike."""
        if self.armed is None and self.waiting and self.loop.time() * 1000 >= self.waiting[0].at_ms:
            self.armed, self.count = self.waiting.pop(0), 0
        if self.armed is None or self.life.dead:
            return
        if self.armed.how == "stop" and not self.asked:
            self._struck()
            self.asked = True
            self.out.stops += 1
            self.stop.set()
        elif self.armed is not None and self.armed.how == "turn":
            self.count += 1
            if self.count >= self.armed.n:
                self._struck()
                self.out.kills += 1
                self.life.die()

    def _statement(self, when: str, sql: str) -> bool:
        if self.armed is None or self.armed.how != when:
            return False
        self.count += 1
        if self.count < self.armed.n:
            return False
        self._struck()
        self.out.kills += 1
        return True

    def _struck(self) -> None:
        assert self.armed is not None
        self.trace.note(f"{self.loop.time():.6f}", self.armed)
        self.down_s, self.armed = self.armed.down_s, None

    async def _live(self) -> None:
        """One worker, from its start until it ends in whatever way."""
        store: Store | None = None
        try:
            store = Store(self.path)
            wire = self.network.wire(self.life)
            client = Client(
                ENDPOINTS, self.box.key, timeout_s=self.world.timeout_s, transport=wire, requests_per_s=200.0
            )
            async with client:
                worker = await open_worker(self.world.config(self.path), client, store, self._ticked)
                await worker.run(self.stop)
        finally:
            if store is not None:
                store.close()

    def _ticked(self, report: object) -> None:
        self.out.ticks += 1

    async def lives(self, last: asyncio.Event) -> None:
        """Workers one after another, until ``last`` is set and one has ended as it was asked to."""
        for _ in range(LIVES_MAX):
            self.life, self.stop, self.asked = Life(), asyncio.Event(), False
            self.life.before = lambda sql: self._statement("before", sql)
            self.life.after = lambda sql: self._statement("after", sql)
            self.down_s = RESTART_S
            if last.is_set():
                self.stop.set()
            with mortal(self.life):
                task = asyncio.ensure_future(self._live())
                self.life.end = task.cancel
                await asyncio.wait([task])
            self.out.statements += self.life.statements
            if self._judge(task) and last.is_set():
                return
            await asyncio.sleep(self.down_s)
        self.out.crashes.append("the worker was started again and again")

    def _judge(self, task: asyncio.Task[None]) -> bool:
        """Whether a worker ended as it was asked to; what it may not do is a crash."""
        error = None if task.cancelled() else task.exception()
        if self.life.dead:
            return False
        self.trace.note(f"{self.loop.time():.6f}", "ended", type(error).__name__)
        if error is None:
            return True
        self.out.exits += 1
        if not isinstance(error, PlexusDetectError) or isinstance(error, StoreError):
            self.out.crashes.append("".join(traceback.format_exception(error))[-2_000:])
        return False

    # -- the whole

    async def whole(self) -> Outcome:
        """Begin, let everything happen, and wait until all is delivered."""
        self.box.load(self.world.history)
        last = asyncio.Event()
        self.others += [asyncio.ensure_future(self.feed()), asyncio.ensure_future(self.trouble())]
        lives = asyncio.ensure_future(self.lives(last))
        end_s = max(self.world.end_ms, self.plan.end_ms()) / 1000
        end_s += max(AFTERMATH_S, AFTERMATH_POLLS * self.world.interval_ms / 1000)
        await asyncio.sleep(end_s)
        while not self._delivered() and self.loop.time() < end_s + DELIVERY_S_MAX and not lives.done():  # noqa: ASYNC110
            await asyncio.sleep(5.0)
        last.set()
        self.stop.set()
        await lives
        await asyncio.gather(*self.others)
        await self.network.settle()
        self._collect()
        return self.out

    def _delivered(self) -> bool:
        """Whether nothing waits any more, looked at as an outsider would."""
        if self.life.dead or not self.life.connections or self.waiting or self.armed:
            return False
        with contextlib.closing(_reader(self.path)) as db:
            return bool(db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0] == 0)

    def _collect(self) -> None:
        out, names = self.out, {f".{name}" for name in SUFFIXES}
        sources = {row[0] for row in self.world.history}
        sources |= {row[0] for rows in self.world.arrivals.values() for row in rows}
        for row in self.box.rows():
            if row.source in sources and any(row.metric.endswith(name) for name in names):
                out.rows[row.source, row.metric, row.t_ms, row.value or 0.0] += 1
        store = Store(self.path)
        out.tally = store.tally()
        store.close()
        out.faults.update(self.network.hits)
        out.faults = +out.faults
        out.requests, out.virtual_s = self.network.requests, self.loop.time()
        out.turns = self.loop.turns
        self.trace.note(sorted(out.rows.items()))
        out.digest = self.trace.digest()
        self.box.close()


def _reader(path: Path) -> sqlite3.Connection:
    """A look at the state file from outside."""
    return CONNECT(f"file:{path}?mode=ro", uri=True)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The worker's log is not what is looked at, and writing it takes as long as the work."""
    log = logging.getLogger("plexus_detect")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def simulate(world: World, plan: Plan, folder: Path, lines: list[str] | None = None) -> Outcome:
    """Run a world under a plan, with the state file in the empty ``folder``; ``lines`` gets the trace."""
    folder.mkdir(parents=True, exist_ok=True)
    with _silence(), virtual_time(world.seed) as loop:
        run = Run(world, plan, loop, folder)
        run.trace.lines = lines
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(run.whole())
        finally:
            loop.on_turn(lambda: None)
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            asyncio.set_event_loop(None)
