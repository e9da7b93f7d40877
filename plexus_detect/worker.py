"""The loops: poll and deliver. They await; what is decided is decided in the pure rooms."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np

from plexus_detect import clock, outbox
from plexus_detect.client import Client
from plexus_detect.config import Config
from plexus_detect.cursor import Query
from plexus_detect.delivery import Delivery, DeliveryParams, Patience
from plexus_detect.errors import ApiError, AuthError, ContractError
from plexus_detect.keeping import Keeping
from plexus_detect.learn.job import Trainer
from plexus_detect.logs import event
from plexus_detect.policy import policy_of, poll_params
from plexus_detect.reader import Answer, Reader
from plexus_detect.report import TickReport
from plexus_detect.restore import load_running
from plexus_detect.retry import retried
from plexus_detect.running import Running
from plexus_detect.series import Derived, Kind, Points, SeriesKey, is_own_metric
from plexus_detect.store import Commit, Store
from plexus_detect.telling import stamp, told
from plexus_detect.training.trainer import ProcessTrainer, require

log = logging.getLogger(__name__)

# Ticks in a row that one `run --once` may need: new series and holes found by one are read by the next.
ONCE_TICKS_MAX = 3
ONCE_DELIVERIES_MAX = 5
ONCE_PAUSE_S_MAX = 30.0

# When asked to stop: what is under way may take this long to end by itself, twice (loops, then delivery).
STOP_S_MAX = 2.0

# While there is nothing to watch, new series are looked for at least this often.
EMPTY_DISCOVERY_MS = 1_000


class Worker:
    """One worker over one state file; make it with ``open_worker``."""

    def __init__(
        self,
        config: Config,
        client: Client,
        store: Store,
        on_tick: Callable[[TickReport], None] | None = None,
        trainer: Trainer | None = None,
    ) -> None:
        self._config = config
        self._client = client
        self._store = store
        self._on_tick = on_tick
        poll, policy = poll_params(config), policy_of(config)
        self._trainer = ProcessTrainer() if trainer is None and config.detectors else None
        fits = trainer or self._trainer
        self.running = load_running(store, lambda: Running(policy, poll, config.rule_for, fits))
        table = self.running.table
        self._reader = Reader(client, table, poll, config.plexus.concurrency)
        params = DeliveryParams(config.post.max_alert_age_ms, Kind.ZSCORE_LATE in policy.kinds)
        self.delivery = Delivery(client, store, table.keys, params, self._reader.now_ms)
        self.running.owed = self.delivery.debts
        self.report = TickReport()
        self._unsaved: list[tuple[int, SeriesKey, int | None]] = []
        self._newcomers = 0
        self._hidden: set[str] = set()
        self._keeping = Keeping(config.models) if config.detectors else None
        self._failing_ticks = 0
        self._saved_s = clock.monotonic_s()
        self._patience = Patience()
        self._arrived = asyncio.Event()

    # -- finding series

    async def start(self) -> None:
        """See that both services accept the key, and find the series.

        Raises AuthError, TransientError, RejectedError and ContractError: nothing has worked yet, so a person
        or a service manager must act. A platform that cannot list its series stops nobody who knows some.
        """
        await self._reader.check()
        await retried(self._client.check_write)
        for source, metric in self._config.literal_keys():
            self.running.table.add(source, metric)
        self._admit()
        try:
            await self.discover()
        except (ApiError, ContractError) as error:
            if not self.running.series_count():
                raise
            event(log, logging.WARNING, "discovery_failed", err=str(error))

    async def discover(self) -> None:
        """Find the series that the platform knows."""
        found = await self._reader.discover(self._config.may_select)
        for source, metric in sorted(found):
            if not is_own_metric(metric):
                self.running.table.add(source, metric)
        self._tell_hidden({pair[1] for pair in found if self.running.policy.is_score(SeriesKey(*pair))})
        self._admit()

    def _admit(self) -> None:
        """A new series' samples are posted from about now on; what is older only warms it up."""
        new = self.running.admit_new(self._reader.now_ms() - self._config.poll.interval_ms)
        self._newcomers += sum(emit_from is not None for _index, _key, emit_from in new)
        self._unsaved += new

    # -- one tick

    async def tick(self) -> TickReport:
        """Poll every series once, score what is new and record it; failures of queries are in the report.

        Raises StoreError, and AuthError when the key is refused for minutes.
        """
        began = clock.monotonic_s()
        report = TickReport(tick=self.report.tick + 1, now_ms=self._reader.now_ms())
        requests, self._newcomers = self._reader.requests, 0
        answers = await self._reader.read(self.running.queries(report.now_ms))
        self._check_auth(answers)
        self._take(answers, report)
        if (clock.monotonic_s() - self._saved_s) * 1000 >= self._config.state.snapshot_interval_ms:
            self.save()
        report.requests = self._reader.requests - requests
        report.series = self.running.series_count()
        report.outbox = self._store.outbox_points()
        report.dur_ms = round((clock.monotonic_s() - began) * 1000)
        self._tell(report)
        self.report = report
        return report

    def _take(self, answers: list[Answer], report: TickReport) -> None:
        """Take the answers that came and commit what they changed, all in one transaction."""
        whole: list[tuple[Query, Points, int]] = []
        for answer in answers:
            if answer.error is not None:
                report.errors.append(str(answer.error))
                continue
            report.rows += len(answer.points)
            report.cut_off += answer.cut_off and not answer.query.cold
            whole.append((answer.query, answer.points, answer.to_ms))
        self._tell_gaps(whole)
        self._admit()
        report.now_ms = self._reader.now_ms()
        held = self.running.state.held
        taken, evaluation = self.running.take(whole, report.now_ms)
        report.absorb(taken, evaluation)
        # Time alone moves fleets and cohorts: what waited for stragglers is scored although nothing new came.
        moved = len(taken.points) or self.running.state.held != held
        if moved or self._unsaved:
            batches = outbox.pack(evaluation.derived, self._config.post.batch_points_max)
            tally = {"points": len(taken.points), "late": report.late, "revised": report.revised}
            self._commit(report.now_ms, taken.points, batches, tally)
            self._bound_outbox()
            self._arrived.set()

    def _commit(
        self, now_ms: int, points: Points, batches: Sequence[Derived], tally: Mapping[str, int]
    ) -> None:
        covered = self.running.cursors.covered_ms[: len(self.running.table)]
        self._store.commit(Commit(now_ms, points, covered, batches, self._unsaved, tally))
        self._unsaved = []

    def _bound_outbox(self) -> None:
        gone = self._store.drop_oldest(self._config.state.outbox_points_max)
        if gone is not None:
            since, till = stamp(gone.since_ms), stamp(gone.till_ms)
            what = {"dropped": gone.points, "series": gone.series}
            event(log, logging.ERROR, "outbox_full", exc_info=None, **what, since=since, till=till)

    def _check_auth(self, answers: list[Answer]) -> None:
        """Bear with refusals for a while; after that, raise one."""
        refused = [a.error for a in answers if isinstance(a.error, AuthError)]
        if refused:
            self._patience.bear(refused[0])
        else:
            self._patience.end()

    def save(self) -> None:
        """Write a snapshot of the running state."""
        self._admit()
        if self._unsaved:
            # A snapshot needs its series stored. No time has passed for the detectors: hence 0.
            self._commit(0, Points.empty(), (), {})
        self._store.save_snapshot(clock.now_ms(), self.running.fingerprint(), self.running.dump())
        self._saved_s = clock.monotonic_s()

    # -- telling

    def _tell(self, report: TickReport) -> None:
        for happened in report.events:
            key = self.running.table.keys[happened.series]
            event(log, logging.WARNING, f"anomaly_{happened.what}", **told(happened, key))
        self._tell_failures(report.errors)
        if self._keeping is not None and self._keeping.step(self.running.state.groups):
            # What was taken is in no journal: a restart must find it in the snapshot.
            self.save()
        event(log, logging.INFO, "tick", **report.counts())
        if self._on_tick is not None:
            self._on_tick(report)

    def _tell_failures(self, errors: Sequence[str]) -> None:
        """One line for all failures of a tick, and while they last only when their number has doubled."""
        if not errors:
            if self._failing_ticks:
                event(log, logging.INFO, "query_recovered", ticks=self._failing_ticks)
            self._failing_ticks = 0
            return
        self._failing_ticks += 1
        if self._failing_ticks.bit_count() == 1:
            event(
                log,
                logging.WARNING,
                "query_failed",
                err=errors[0],
                queries=len(errors),
                ticks=self._failing_ticks,
            )

    def _tell_hidden(self, metrics: set[str]) -> None:
        """A metric that devices send under the name of a group is not read: say so once."""
        for metric in sorted(metrics - self._hidden):
            event(log, logging.WARNING, "metric_hidden", metric=metric, by=f"detectors: {metric}")
        self._hidden |= metrics

    def _tell_gaps(self, answers: Sequence[tuple[Query, Points, int]]) -> None:
        """After an outage longer than poll.catchup_max some of the past is never read: say so."""
        for query, points, _to_ms in answers:
            covered = self.running.cursors.covered_ms[query.series]
            gone = (covered >= 0) & (covered < query.from_ms)
            if len(points) and gone.any():
                since = stamp(int(covered[gone].min()))
                till = stamp(query.from_ms)
                event(log, logging.WARNING, "gap_skipped", series=int(gone.sum()), since=since, till=till)

    # -- running

    async def run(self, stop: asyncio.Event) -> None:
        """Poll, deliver and discover until ``stop`` is set, then deliver what is ready and save.

        Raises StoreError, and AuthError when the key is refused for minutes.
        """
        if self._trainer is not None:
            self._trainer.warm()
        try:
            await _together(stop, self._poll_loop(stop), self._deliver_loop(stop), self._discover_loop(stop))
            # What is cut short here is read back by the next start.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S_MAX):
                    await self.delivery.deliver_all()
            self.save()
        finally:
            self.close()

    def close(self) -> None:
        """End the process that fits models; a fit under way is asked for again by the next start."""
        if self._trainer is not None:
            self._trainer.close()

    async def once(self, stop: asyncio.Event | None = None) -> TickReport:
        """Poll until everything that is visible is read, deliver it, save: the form for cron."""
        stop = stop or asyncio.Event()
        try:
            await _together(stop, self._once(stop))
            self.save()
        finally:
            self.close()
        self.report.outbox = self._store.outbox_points()
        return self.report

    async def _once(self, stop: asyncio.Event) -> None:
        for _ in range(ONCE_TICKS_MAX):
            report = await self.tick()
            if stop.is_set() or not (report.held_back or self._newcomers):
                break
        for _ in range(ONCE_DELIVERIES_MAX):
            if await self.delivery.deliver_all() or stop.is_set():
                break
            if (pause_s := self.delivery.pause_s()) > ONCE_PAUSE_S_MAX:
                break
            await clock.wait_s(stop, pause_s)

    async def _poll_loop(self, stop: asyncio.Event) -> None:
        interval = self._config.poll.interval_ms
        phase = self._phase_ms(interval)
        try:
            while not stop.is_set():
                await self.tick()
                wait_ms = interval - (clock.now_ms() - phase) % interval
                await clock.wait_s(stop, wait_ms / 1000)
        finally:
            self._arrived.set()

    def _phase_ms(self, interval_ms: int) -> int:
        """Where in the interval this worker polls: a hash of its series, so that not all knock at once."""
        chosen = [self.running.table.keys[i] for i in np.flatnonzero(self.running.cursors.selected).tolist()]
        digest = hashlib.sha256(repr(sorted(chosen)).encode()).digest()
        return int.from_bytes(digest[:8], "big") % interval_ms

    async def _deliver_loop(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if await self.delivery.deliver_all():
                self._arrived.clear()
                if not stop.is_set():
                    await self._arrived.wait()
            else:
                await clock.wait_s(stop, self.delivery.pause_s())

    async def _discover_loop(self, stop: asyncio.Event) -> None:
        """Look for new series in a loop of its own: a slow answer to that must not hold up the polls."""
        while not stop.is_set():
            interval = self._config.poll.discovery_interval_ms
            if not self.running.series_count():
                interval = min(interval, EMPTY_DISCOVERY_MS)
            await clock.wait_s(stop, interval / 1000)
            try:
                if not stop.is_set():
                    await self.discover()
            except (ApiError, ContractError) as error:
                event(log, logging.WARNING, "discovery_failed", err=str(error))


async def open_worker(
    config: Config,
    client: Client,
    store: Store,
    on_tick: Callable[[TickReport], None] | None = None,
    trainer: Trainer | None = None,
) -> Worker:
    """A worker with its state loaded, its key checked and its series found; see ``Worker.start``.

    Models are fitted by ``trainer``, or in a process of their own. Raises ConfigError where they cannot be.
    """
    if config.detectors and trainer is None:
        require()
    worker = Worker(config, client, store, on_tick, trainer)
    try:
        await worker.start()
    except BaseException:
        worker.close()
        raise
    return worker


async def _together(stop: asyncio.Event, *loops: Coroutine[Any, Any, None]) -> None:
    """Run loops until all have ended; once ``stop`` is set they have STOP_S_MAX to do so by themselves.

    The first error ends them all and is raised, unwrapped.
    """

    async def end() -> None:
        await stop.wait()
        await asyncio.wait(tasks, timeout=STOP_S_MAX)
        for task in tasks:
            task.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            ender = group.create_task(end())
            await asyncio.wait(tasks)
            ender.cancel()
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
