"""The loops: poll and deliver. They await; what is decided is decided in the pure rooms."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from plexus_detect import clock, outbox, wire
from plexus_detect.client import Client
from plexus_detect.config import Config
from plexus_detect.delivery import Delivery, DeliveryParams
from plexus_detect.errors import AuthError, PlexusDetectError
from plexus_detect.evaluate import Event
from plexus_detect.logs import event
from plexus_detect.policy import policy_of, poll_params
from plexus_detect.reader import Answer, Reader
from plexus_detect.report import TickReport
from plexus_detect.restore import load_running
from plexus_detect.retry import retried
from plexus_detect.running import Running
from plexus_detect.series import SUFFIX, SeriesKey, SeriesTable
from plexus_detect.store import Commit, Store

log = logging.getLogger(__name__)

# A key that worked and is refused now may be a key server in trouble; this long it is worth waiting.
AUTH_PATIENCE_MS = 300_000

# Differences between our clock and the platform's below this are the time of the request itself.
SKEW_MS_MIN = 1_000

# Ticks in a row that one `run --once` may need: new series and holes found by one are read by the next.
ONCE_TICKS_MAX = 3
ONCE_DELIVERIES_MAX = 5


class Worker:
    """One worker over one state file; make it with ``open_worker``."""

    def __init__(
        self,
        config: Config,
        client: Client,
        store: Store,
        on_tick: Callable[[TickReport], None] | None = None,
    ) -> None:
        self._config = config
        self._client = client
        self._store = store
        self._on_tick = on_tick
        poll, policy = poll_params(config), policy_of(config)
        self.running = load_running(store, lambda: Running(policy, poll, config.rule_for))
        table = self.running.table
        self._reader = Reader(client, table, poll, config.plexus.concurrency)
        self.delivery = Delivery(client, store, table.keys, DeliveryParams(config.post.max_alert_age_ms))
        self._unsaved: list[tuple[int, SeriesKey, int | None]] = []
        self._ticks = 0
        self._discovered_ms = 0
        self._saved_ms = clock.now_ms()
        self._refused_since_ms: int | None = None
        self._arrived = asyncio.Event()

    # -- discovery

    async def discover(self) -> None:
        """Find series: those named in full in the configuration, and those that the platform knows."""
        for rule in self._config.series:
            for source, metric in rule.literal_keys():
                self.running.table.add(source, metric)
        rules = self._config.series
        found = await self._reader.discover(
            clock.now_ms(), lambda slug: any(r.may_select(slug) for r in rules)
        )
        for source, metric in sorted(found):
            self.running.table.add(source, metric)
        self._discovered_ms = clock.now_ms()
        self._admit()

    def _admit(self) -> None:
        """A new series' samples are posted from about now on; what is older only warms it up."""
        emit_from = self.delivery.now_ms() - self._config.poll.interval_ms
        self._unsaved += self.running.admit_new(emit_from)

    # -- one tick

    async def tick(self) -> TickReport:
        """Poll every series once, score what is new and record it; failures of queries are in the report."""
        began = clock.monotonic_s()
        self._ticks += 1
        report = TickReport(tick=self._ticks, now_ms=self.delivery.now_ms())
        requests = self._client.requests
        if clock.now_ms() - self._discovered_ms >= self._config.poll.discovery_interval_ms:
            try:
                await self.discover()
            except PlexusDetectError as error:
                report.errors.append(str(error))
        answers = await self._reader.read(self.running.queries(report.now_ms), report.now_ms)
        self._check_auth(answers)
        self._take(answers, report)
        self._snapshot_when_due()
        report.requests = self._client.requests - requests
        report.series = self.running.series_count()
        report.outbox = self._store.outbox_points()
        report.dur_ms = round((clock.monotonic_s() - began) * 1000)
        self._tell(report)
        return report

    def _take(self, answers: list[Answer], report: TickReport) -> None:
        """Take the answers that came and commit what they changed, all in one transaction."""
        whole = []
        for answer in answers:
            if answer.error is not None:
                report.errors.append(str(answer.error))
                continue
            report.rows += len(answer.points)
            report.cut_off += answer.cut_off and not answer.query.cold
            if answer.query.to_ms is None:
                self._learn_skew(answer.to_ms)
            whole.append((answer.query, answer.points, answer.to_ms or report.now_ms))
        self._admit()
        report.now_ms = self.delivery.now_ms()
        taken, evaluation = self.running.take(whole, report.now_ms)
        report.absorb(taken, evaluation)
        if len(taken.points) or self._unsaved:
            batches = outbox.pack(evaluation.derived, self._config.post.batch_points_max)
            covered = self.running.cursors.covered_ms[: len(self.running.table)]
            tally = {"points": len(taken.points), "late": report.late, "too_late": taken.too_late}
            self._store.commit(Commit(report.now_ms, taken.points, covered, batches, self._unsaved, tally))
            self._unsaved = []
            self._store.drop_oldest(self._config.state.outbox_points_max)
            self._arrived.set()

    def _learn_skew(self, server_ms: int | None) -> None:
        if server_ms is not None:
            skew = server_ms - clock.now_ms()
            self.delivery.skew_ms = skew if abs(skew) >= SKEW_MS_MIN else 0

    def _check_auth(self, answers: list[Answer]) -> None:
        """A key that is refused for AUTH_PATIENCE_MS without a break is bad: raise its error."""
        refused = [a.error for a in answers if isinstance(a.error, AuthError)]
        if not refused:
            self._refused_since_ms = None
            return
        now = clock.now_ms()
        self._refused_since_ms = self._refused_since_ms or now
        if now - self._refused_since_ms >= AUTH_PATIENCE_MS:
            raise refused[0]

    def _snapshot_when_due(self) -> None:
        if clock.now_ms() - self._saved_ms >= self._config.state.snapshot_interval_ms:
            self.save()

    def save(self) -> None:
        """Write a snapshot of the running state."""
        self._store.save_snapshot(clock.now_ms(), self.running.fingerprint(), self.running.dump())
        self._saved_ms = clock.now_ms()

    # -- telling

    def _tell(self, report: TickReport) -> None:
        for happened in report.events:
            key = self.running.table.keys[happened.series]
            event(log, logging.WARNING, f"anomaly_{happened.what}", **told(happened, key))
        for error in report.errors:
            event(log, logging.WARNING, "query_failed", err=error)
        event(log, logging.INFO, "tick", **report.counts())
        if self._on_tick is not None:
            self._on_tick(report)

    # -- running

    async def run(self, stop: asyncio.Event) -> None:
        """Poll and deliver until ``stop`` is set, then deliver what is ready and save.

        Raises StoreError, and AuthError when the key is refused for minutes.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._poll_loop(stop))
                group.create_task(self._deliver_loop(stop))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        await self.delivery.deliver_all()
        self.save()

    async def once(self) -> TickReport:
        """Poll until everything that is visible is read, deliver it, save: the form for cron."""
        for _ in range(ONCE_TICKS_MAX):
            report = await self.tick()
            if not report.held_back:
                break
        for _ in range(ONCE_DELIVERIES_MAX):
            if await self.delivery.deliver_all():
                break
            await clock.sleep_s(self.delivery.pause_s())
        self.save()
        return report

    async def _poll_loop(self, stop: asyncio.Event) -> None:
        interval = self._config.poll.interval_ms
        phase = self._phase_ms(interval)
        while not stop.is_set():
            await self.tick()
            wait_ms = interval - (clock.now_ms() - phase) % interval
            await clock.wait_s(stop, wait_ms / 1000)
        self._arrived.set()

    def _phase_ms(self, interval_ms: int) -> int:
        """Where in the interval this worker polls: a hash of its series, so that many do not knock at once."""
        chosen = [key for i, key in enumerate(self.running.table.keys) if self.running.cursors.selected[i]]
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


async def open_worker(
    config: Config, client: Client, store: Store, on_tick: Callable[[TickReport], None] | None = None
) -> Worker:
    """A worker whose key both services accept, with its state loaded and its series found.

    Raises AuthError, TransientError and ContractError: nothing has worked yet, so a person or a service
    manager must act; StoreError.
    """
    params = wire.telemetry_params(None, ("_",), clock.now_ms() - 60_000, None, 1)
    body = await retried(lambda: client.telemetry(params))
    wire.decode_telemetry(body, SeriesTable())
    await retried(client.check_write)
    worker = Worker(config, client, store, on_tick)
    await worker.discover()
    return worker


def told(happened: Event, key: SeriesKey) -> dict[str, Any]:
    """An event in words for the log: what, value, expected, score, since when."""
    series = f"{key.metric}{SUFFIX[happened.kind]}"
    since = datetime.fromtimestamp(happened.since_ms / 1000, UTC).isoformat(timespec="milliseconds")
    words = {
        "opened": "is anomalous",
        "closed": "is back to normal",
        "relearned": "has a new normal level",
    }[happened.what]
    text = (
        f"{key.metric} on {key.source} {words}: {happened.value:.6g}, expected {happened.expected:.6g}, "
        f"score {happened.score:.1f}, since {since}"
    )
    return {
        "source": key.source,
        "metric": key.metric,
        "series": series,
        "value": happened.value,
        "expected": round(happened.expected, 6),
        "score": round(happened.score, 2),
        "since": since,
        "msg": text,
    }
