"""Delivers the outbox through ``POST /ingest``: in order, one request at a time, and nothing twice.

The platform de-duplicates nothing and an answer can be lost although its points were stored, so before a
batch is posted again the derived series are read back and only what is missing is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from plexus_detect import clock, outbox, wire
from plexus_detect.client import Client
from plexus_detect.closing import FORGET_MS, Alert, AlertChanges, Debt, delivered
from plexus_detect.cursor import PollParams, Query
from plexus_detect.errors import ApiError, AuthError, ContractError, RejectedError, TransientError
from plexus_detect.logs import event
from plexus_detect.reader import Reader
from plexus_detect.report import DeliveryReport
from plexus_detect.series import Derived, Kind, Points, SeriesKey, SeriesTable
from plexus_detect.store import Parcel, Store
from plexus_detect.store.records import can_wait

log = logging.getLogger(__name__)

# Rows of one page when reading back.
ROWS_MAX = 100_000

# A key that worked and is refused now may be a key server in trouble; this long it is worth waiting.
AUTH_PATIENCE_MS = 300_000


class Patience:
    """Bears with a key that is refused, for at most ``span_ms`` without a break."""

    def __init__(self, span_ms: int = AUTH_PATIENCE_MS) -> None:
        self._span_s = span_ms / 1000
        self._since_s: float | None = None

    def bear(self, error: AuthError) -> None:
        """Note a refusal; raises it when it has lasted too long."""
        now_s = clock.monotonic_s()
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s >= self._span_s:
            raise error

    def end(self) -> None:
        """The key was accepted."""
        self._since_s = None


@dataclass(frozen=True)
class DeliveryParams:
    """``age_ms_max``: older samples' scores go to no monitored name; ``keep_late``: but under a name for the
    record (kind ZSCORE_LATE); ``readback_ms``: how long to wait before asking
    the platform what it has stored, since that takes a moment to become visible (contract section 3);
    ``wait_s_max``: longest pause between attempts, and ``asked_wait_s_max`` when the server asks for one."""

    age_ms_max: int = 120_000
    keep_late: bool = True
    readback_ms: int = 3_000
    readbacks_max: int = 3
    wait_s_max: float = 30.0
    asked_wait_s_max: float = 300.0


Makes = Callable[[Client, Store, Sequence[SeriesKey], DeliveryParams, Callable[[], int]], "Delivery"]


class Delivery:
    """Takes parcels from the store and settles them; ``now_ms`` is the platform's wall clock.

    ``debts`` are the alerts that the platform may have open; ``on_accepted`` is told of every point that the
    platform has.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        keys: Sequence[SeriesKey],
        params: DeliveryParams,
        now_ms: Callable[[], int],
    ) -> None:
        self._client = client
        self._store = store
        self._keys = keys
        self._params = params
        self._now_ms = now_ms
        self.report = DeliveryReport()
        self._patience = Patience()
        self._failures = 0
        self._asked_wait_s = 0.0
        self._doubted: tuple[int, int] | None = None
        self.debts: dict[Alert, Debt] = store.alerts()
        self._forget_old_debts()
        self.on_accepted: Callable[[Derived], None] | None = None

    def _forget_old_debts(self) -> None:
        """No sample came to pay them for so long that there is nobody left who would."""
        before_ms = self._now_ms() - FORGET_MS
        old = [alert for alert, debt in self.debts.items() if debt.since_ms < before_ms]
        for alert in old:
            del self.debts[alert]
        if old:
            self._store.change_alerts(AlertChanges(gone=old))

    async def deliver_all(self) -> bool:
        """Deliver until the outbox is empty (True) or an attempt failed (False; wait ``pause_s`` first).

        Raises StoreError, and AuthError when the key is refused for minutes.
        """
        while (parcel := self._store.next_parcel()) is not None:
            try:
                await self._deliver(parcel)
            except (ApiError, ContractError) as error:
                self._note(error, len(parcel.derived))
                return False
            self._failures = 0
            self._patience.end()
        return True

    def _note(self, error: ApiError | ContractError, waiting: int) -> None:
        self._failures += 1
        self.report.failed(str(error), clock.monotonic_s())
        asked_s = error.retry_after_s if isinstance(error, TransientError) else None
        self._asked_wait_s = min(asked_s or 0.0, self._params.asked_wait_s_max)
        event(log, logging.WARNING, "delivery_failed", err=str(error), waiting=waiting)
        if isinstance(error, AuthError):
            self._patience.bear(error)

    def pause_s(self) -> float:
        """How long to wait before the next attempt; grows with every failure in a row."""
        grown_s = min(self._params.wait_s_max, 0.5 * 2.0 ** min(self._failures, 10))
        return max(grown_s, self._asked_wait_s)

    async def _deliver(self, parcel: Parcel) -> None:
        derived = parcel.derived
        if parcel.sent_ms is not None and len(self._worth(derived)):
            derived = await self._not_stored(parcel, parcel.sent_ms)
        worth = self._worth(derived)
        if worth is not derived:
            self._set_old_apart(parcel.id, derived, worth)
            if can_wait(worth):
                return  # what is for the record only goes behind what somebody waits for
        if len(worth):
            await self._post(parcel.id, worth)

    def _worth(self, derived: Derived) -> Derived:
        """What is still worth posting, and under which name; the batch itself where nothing is too old."""
        return outbox.in_time(derived, self._now_ms(), self._params.age_ms_max, keep=self._params.keep_late)

    def _set_old_apart(self, parcel_id: int, derived: Derived, worth: Derived) -> None:
        late = int((worth.kind == Kind.ZSCORE_LATE).sum() - (derived.kind == Kind.ZSCORE_LATE).sum())
        expired = len(derived) - len(worth)
        self.report.expired += expired
        self.report.late += late
        self._store.settle(parcel_id, worth, {"expired": expired, "late_scores": late})
        age_ms_max = self._params.age_ms_max
        event(log, logging.INFO, "scores_too_old", n=expired, late=late, age_ms_max=age_ms_max)

    def _accepted(self, derived: Derived) -> AlertChanges:
        """Note what points that the platform has do to its alerts."""
        changes = delivered(derived, self._now_ms(), self.debts)
        self.debts.update(changes.put)
        for alert in changes.gone:
            self.debts.pop(alert, None)
        if self.on_accepted is not None:
            self.on_accepted(derived)
        return changes

    async def _post(self, parcel_id: int, derived: Derived) -> None:
        """Post one batch. Whatever leaves its outcome open leaves it marked, to be read back first."""
        self._store.mark_sent(parcel_id, clock.now_ms())
        try:
            answer = await self._client.ingest(outbox.body(derived, self._keys))
            accepted = wire.decode_ingest_reply(answer, len(derived))
        except RejectedError as error:
            self._store.settle(parcel_id, derived)
            await self._set_aside(parcel_id, derived, error)
            return
        except AuthError:
            self._store.settle(parcel_id, derived)
            raise
        except TransientError as error:
            if not error.maybe_applied:
                self._store.settle(parcel_id, derived)
            raise
        news = derived.t_ms[derived.kind != Kind.ZSCORE_LATE]
        self.report.accepted(accepted, (self._now_ms() - news) / 1000)
        if not outbox.judge(len(derived), accepted).settled:
            raise TransientError(
                f"the gateway took {accepted} of {len(derived)} points; which ones will be read back"
            )
        self._store.settle(parcel_id, tally={"posted": accepted}, alerts=self._accepted(derived))

    async def _set_aside(self, parcel_id: int, derived: Derived, error: RejectedError) -> None:
        """Drop the point that the gateway refuses, with a log line; the rest goes again."""
        if error.index is not None and error.index < len(derived):
            bad = np.arange(len(derived)) == error.index
        else:
            # It does not say which. Perhaps it refuses whatever we send, say, as the wrong address:
            # then this raises, and no point is to blame.
            await self._client.check_write()
            half = len(derived) // 2
            if half:
                first = np.arange(len(derived)) < half
                self._store.split(parcel_id, derived.take(first), derived.take(~first))
                return
            bad = np.ones(1, np.bool_)
        sources, metrics = outbox.names(derived.take(bad), self._keys)
        event(log, logging.ERROR, "score_refused", source=sources[0], metric=metrics[0], err=str(error))
        self.report.rejected += 1
        self._store.settle(parcel_id, derived.take(~bad), {"rejected": 1})

    # -- reading back

    async def _not_stored(self, parcel: Parcel, sent_ms: int) -> Derived:
        """The points of a batch, posted before with an unknown outcome, that the platform does not have.

        Raises TransientError when the platform shows no row at all: the samples themselves are stored, so
        that is its way of failing, and believing it would post everything twice.
        """
        derived = parcel.derived
        if self._doubted != (parcel.id, sent_ms):
            self._doubted = (parcel.id, sent_ms)
            self.report.uncertain += len(derived)
        wait_ms = sent_ms + self._params.readback_ms - clock.now_ms()
        await clock.sleep_s(min(max(wait_ms, 0), self._params.readback_ms) / 1000)
        for attempt in range(self._params.readbacks_max):
            if attempt:
                # Rows become visible within seconds, so what is missing is asked for again.
                await clock.sleep_s(self._params.readback_ms / 1000 / self._params.readbacks_max)
            table = SeriesTable()
            stored = await self._stored(derived, table)
            if len(stored) == 0:
                raise TransientError("reading back what is stored of a batch brought not even its samples")
            gone = outbox.missing(derived, self._keys, stored, table)
            if not gone.any():
                break
        resent = int(gone.sum())
        found = len(derived) - resent
        self.report.found_stored += found
        self.report.resent += resent
        event(log, logging.INFO, "read_back", stored=found, missing=resent)
        left = derived.take(gone)
        tally = {"uncertain": len(derived), "posted": found, "resent": resent}
        self._store.settle(parcel.id, left, tally, self._accepted(derived.take(~gone)))
        return left

    async def _stored(self, derived: Derived, table: SeriesTable) -> Points:
        """Every stored row of these derived series, and of the samples behind them, in their span of time."""
        sources, names = outbox.names(derived, self._keys)
        samples = [self._keys[i] for i in np.unique(derived.series).tolist()]
        wanted = {*zip(sources, names, strict=True), *samples}
        index = np.array(sorted(table.add(*pair) for pair in wanted), np.int64)
        source = sources[0] if len(set(sources)) == 1 else None
        behind = sorted({key.metric for key in samples})
        metrics = (*behind, *outbox.derived_metrics(derived, self._keys))
        window = int(derived.t_ms.min()), int(derived.t_ms.max()) + 1
        query = Query(source, metrics, *window, ROWS_MAX, index)
        reader = Reader(self._client, table, PollParams(limit=ROWS_MAX))
        answer = (await reader.read([query]))[0]
        if answer.error is not None:
            raise answer.error
        return answer.points
