"""The loops: poll and deliver. They await; what is decided is decided in the pure rooms."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from plexus_detect import __version__, clock, outbox
from plexus_detect.bucket import RetryBudget
from plexus_detect.client import Client
from plexus_detect.config import Config
from plexus_detect.connect.choosing import delivery_of
from plexus_detect.crosscheck import Crosscheck
from plexus_detect.cursor import Query
from plexus_detect.delivery import DeliveryParams, Patience
from plexus_detect.errors import ApiError, AuthError, ContractError
from plexus_detect.heartbeat import Heartbeat
from plexus_detect.keeping import Keeping
from plexus_detect.learn.job import Trainer
from plexus_detect.logs import event
from plexus_detect.loops import together
from plexus_detect.narrator import Narrator
from plexus_detect.policy import policy_of, poll_params
from plexus_detect.reader import Answer, Reader
from plexus_detect.report import TickReport
from plexus_detect.restore import load_running
from plexus_detect.retry import retried
from plexus_detect.running import Running
from plexus_detect.series import Derived, Kind, Points, SeriesKey, is_own_metric
from plexus_detect.standing import standing
from plexus_detect.store import Commit, Store
from plexus_detect.telling import stamp
from plexus_detect.training.trainer import ProcessTrainer, require
from plexus_detect.vitals import Vitals, reads

log = logging.getLogger(__name__)

# Ticks in a row that one `run --once` may need: new series and holes found by one are read by the next.
ONCE_TICKS_MAX = 3
ONCE_DELIVERIES_MAX = 5
ONCE_PAUSE_S_MAX = 30.0

# When asked to stop: of the time that there is, this share for what is under way to end by itself, and once
# more for delivery; the rest is for the last snapshot.
STOP_SHARE = 0.3

# A tick waits this long for answers, or an interval if that is longer; slower ones are taken by a later one.
PATIENCE_S_MIN = 2.0

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
        vitals: Vitals | None = None,
    ) -> None:
        self._config = config
        self._client = client
        self._store = store
        self._on_tick = on_tick
        self.vitals = vitals or Vitals(config.poll.interval_ms, config.state.outbox_points_max)
        poll, policy = poll_params(config), policy_of(config)
        self._trainer = ProcessTrainer() if trainer is None and config.detectors else None
        fits = trainer or self._trainer
        self.vitals.fits = self._trainer.fits if self._trainer else None
        series_max = config.state.series_max
        self.running = load_running(store, lambda: Running(policy, poll, config.rule_for, fits, series_max))
        table = self.running.table
        self._reader = Reader(client, table, poll, config.plexus.concurrency)
        params = DeliveryParams(config.post.max_alert_age_ms, Kind.ZSCORE_LATE in policy.kinds)
        deliver = delivery_of(config, self.running)
        self.delivery = deliver(client, store, table.keys, params, self._reader.now_ms)
        self.running.owed = self.delivery.debts
        self.vitals.delivery = self.delivery.report
        self._crosscheck = Crosscheck(client)
        self._heartbeat = Heartbeat(client, config.heartbeat, self._reader.now_ms)
        self._narrator = Narrator(self.running)
        self.report = TickReport()
        self._unsaved: list[tuple[int, SeriesKey, int | None]] = []
        self._newcomers = 0
        self._keeping = Keeping(config.models) if config.detectors else None
        self._saved_s = clock.monotonic_s()
        self._patience = Patience()
        self._arrived = asyncio.Event()

    @property
    def budget(self) -> RetryBudget:
        """How many retries there may be, and were."""
        return self._reader.budget

    # -- finding series

    async def start(self) -> None:
        """See that both services accept the key, and find the series.

        Raises AuthError, TransientError, RejectedError and ContractError: nothing has worked yet, so a person
        or a service manager must act. A platform that cannot list its series stops nobody who knows some.
        """
        await self._reader.check()
        await retried(self._client.check_write)
        self._meet(self._config.literal_keys())
        try:
            await self.discover()
        except (ApiError, ContractError) as error:
            if not self.running.series_count():
                raise
            event(log, logging.WARNING, "discovery_failed", err=str(error))

    async def discover(self) -> None:
        """Find the series that the platform knows, and forget those that have vanished."""
        found = await self._reader.discover(self._config.may_select)
        self._narrator.hidden({p[1] for p in found if self.running.policy.is_score(SeriesKey(*p))})
        self._meet(sorted(pair for pair in found if not is_own_metric(pair[1])))
        expired = self.running.expire(self._reader.now_ms() - self._config.state.expire_after_ms)
        self._narrator.series(expired)
        self.vitals.series_expired += expired
        self.vitals.series_refused = len(self.running.refused)
        if expired:
            # What is forgotten is in no journal: a restart must find it in the snapshot.
            self.save()

    def _meet(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Take part of series that are there, but for those of our own source."""
        own = self._config.heartbeat.source
        met = [self.running.table.add(*pair) for pair in pairs if pair[0] != own]
        woken = self.running.wake(met, self._since_ms())
        self._admit()
        if woken:
            # As with what is forgotten: no journal has it.
            self.save()

    def _since_ms(self) -> int:
        return self._reader.now_ms() - self._config.poll.interval_ms

    def _admit(self) -> None:
        """A new series' samples are posted from about now on; what is older only warms it up."""
        new = self.running.admit_new(self._since_ms())
        self._newcomers += sum(emit_from is not None for _index, _key, emit_from in new)
        self._unsaved += new

    # -- one tick

    async def tick(self, patience_s: float | None = None) -> TickReport:
        """Poll every series once, score what is new and record it; failures of queries are in the report.

        What takes longer than ``patience_s`` (None: whatever it takes) is left to a later tick, so that a
        slow answer delays its own series only. Raises StoreError, and AuthError when the key is refused for
        minutes.
        """
        began = clock.monotonic_s()
        report = TickReport(tick=self.report.tick + 1, now_ms=self._reader.now_ms())
        requests, self._newcomers = self._reader.requests, 0
        asked = self.running.queries(report.now_ms, self._reader.busy)
        answers = await self._reader.read_within(asked, patience_s)
        report.verdict = await self._crosscheck.verdict(
            answers, self.running.cursors, self.running.table.keys
        )
        report.fetch_ms = _ms_since(began)
        report.answers, report.under_way = len(answers), len(self._reader.busy)
        self._check_auth(answers)
        self._take(answers, report)
        if (clock.monotonic_s() - self._saved_s) * 1000 >= self._config.state.snapshot_interval_ms:
            self.save()
        report.requests = self._reader.requests - requests
        report.series = self.running.series_count()
        report.outbox = self._store.outbox_points()
        report.standing = standing(self.running, report.now_ms)
        report.dur_ms = round(_ms_since(began))
        self.vitals.ticked(report, clock.monotonic_s(), clock.now_ms())
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
        self._narrator.gaps(whole)
        self._admit()
        report.now_ms = self._reader.now_ms()
        held, scoring_s = self.running.state.held, clock.monotonic_s()
        taken, evaluation = self.running.take(whole, report.now_ms)
        report.absorb(taken, evaluation)
        report.score_ms = _ms_since(scoring_s)
        # Time alone moves fleets and cohorts: what waited for stragglers is scored although nothing new came.
        moved = len(taken.points) or self.running.state.held != held
        if moved or self._unsaved:
            batches = outbox.pack(evaluation.derived, self._config.post.batch_points_max)
            tally = {"points": len(taken.points), "late": report.late, "revised": report.revised}
            committing_s = clock.monotonic_s()
            self._commit(report.now_ms, taken.points, batches, tally)
            report.dropped = self._bound_outbox()
            report.commit_ms = _ms_since(committing_s)
            self._arrived.set()

    def _commit(
        self, now_ms: int, points: Points, batches: Sequence[Derived], tally: Mapping[str, int]
    ) -> None:
        covered = self.running.cursors.covered_ms[: len(self.running.table)]
        self._store.commit(Commit(now_ms, points, covered, batches, self._unsaved, tally))
        self._unsaved = []

    def _bound_outbox(self) -> int:
        gone = self._store.drop_oldest(self._config.state.outbox_points_max)
        if gone is None:
            return 0
        self._narrator.dropped(gone)
        return gone.points

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
        self._saved_s, self.vitals.saved_ms = clock.monotonic_s(), clock.now_ms()
        self._store.note("version", __version__)
        if self.vitals.last_ok_ms is not None:
            self._store.note("last_successful_poll", stamp(self.vitals.last_ok_ms))

    def _tell(self, report: TickReport) -> None:
        if self._keeping is not None:
            if self._keeping.step(self.running.state.groups):
                # What was taken is in no journal: a restart must find it in the snapshot.
                self.save()
            self.vitals.learned_ms = self._keeping.learned_ms
        self._narrator.tick(report)
        if self._on_tick is not None:
            self._on_tick(report)

    # -- running

    async def run(self, stop: asyncio.Event) -> None:
        """Poll, deliver and discover until ``stop`` is set, then deliver what is ready and save.

        Raises StoreError, and AuthError when the key is refused for minutes.
        """
        if self._trainer is not None:
            self._trainer.warm()
        loops = [self._poll_loop(stop), self._deliver_loop(stop), self._discover_loop(stop)]
        if self._config.heartbeat.enabled:
            loops.append(self._beat_loop(stop))
        try:
            await together(stop, self._stop_s, *loops)
            # What is cut short here is read back by the next start.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_s):
                    await self.delivery.deliver_all()
            self.save()
        finally:
            self.close()

    @property
    def _stop_s(self) -> float:
        return STOP_SHARE * self._config.health.stop_within_ms / 1000

    def close(self) -> None:
        """Give up what is under way, and end the process that fits models: the next start asks again."""
        self._reader.close()
        if self._trainer is not None:
            self._trainer.close()

    async def once(self, stop: asyncio.Event | None = None) -> TickReport:
        """Poll until everything that is visible is read, deliver it, save: the form for cron."""
        stop = stop or asyncio.Event()
        try:
            await together(stop, self._stop_s, self._once(stop))
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
        if self._config.heartbeat.enabled and report.reads and not stop.is_set():
            await self._heartbeat.beat(report.series)

    async def _poll_loop(self, stop: asyncio.Event) -> None:
        interval = self._config.poll.interval_ms
        phase = self._phase_ms(interval)
        patience_s = max(PATIENCE_S_MIN, interval / 1000)
        try:
            while not stop.is_set():
                await self.tick(patience_s)
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
                self.vitals.outbox_points = 0
                self._arrived.clear()
                if not stop.is_set():
                    await self._arrived.wait()
            else:
                await clock.wait_s(stop, self.delivery.pause_s())

    async def _beat_loop(self, stop: asyncio.Event) -> None:
        """A sign of life while polls bring answers, the first as soon as one has."""
        interval_s = self._config.heartbeat.interval_ms / 1000
        while not stop.is_set():
            wait_s = min(1.0, interval_s)
            if reads(self.vitals, clock.monotonic_s()):
                await self._heartbeat.beat(self.running.series_count())
                self.vitals.heartbeat_ms = self._heartbeat.last_ms or None
                wait_s = interval_s
            await clock.wait_s(stop, wait_s)

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
    vitals: Vitals | None = None,
) -> Worker:
    """A worker with its state loaded, its key checked and its series found; see ``Worker.start``.

    Models are fitted by ``trainer``, or in a process of their own. Raises ConfigError where they cannot be.
    """
    if config.detectors and trainer is None:
        require()
    worker = Worker(config, client, store, on_tick, trainer, vitals)
    try:
        await worker.start()
    except BaseException:
        worker.close()
        raise
    return worker


def _ms_since(began_s: float) -> float:
    return round((clock.monotonic_s() - began_s) * 1000, 1)
