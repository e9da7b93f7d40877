"""Delivers the outbox through ``POST /ingest``: in order, one request at a time, and nothing twice.

The platform de-duplicates nothing and an answer can be lost although its points were stored, so before a
batch is posted again the derived series are read back and only what is missing is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plexus_detect import clock, outbox, wire
from plexus_detect.client import Client
from plexus_detect.cursor import PollParams, Query
from plexus_detect.errors import PlexusDetectError, RejectedError, TransientError
from plexus_detect.logs import event
from plexus_detect.reader import Reader
from plexus_detect.report import DeliveryReport
from plexus_detect.series import Derived, Points, SeriesKey, SeriesTable
from plexus_detect.store import Parcel, Store

log = logging.getLogger(__name__)

# Rows of one page when reading back.
ROWS_MAX = 100_000


@dataclass(frozen=True)
class DeliveryParams:
    """``age_ms_max``: older samples' scores are not posted; ``readback_ms``: how long to wait before asking
    the platform what it has stored, since that takes a moment to become visible (contract section 3);
    ``wait_s_max``: longest pause between attempts."""

    age_ms_max: int = 120_000
    readback_ms: int = 3_000
    readbacks_max: int = 3
    wait_s_max: float = 30.0


class Delivery:
    """Takes parcels from the store and settles them."""

    def __init__(
        self, client: Client, store: Store, keys: Sequence[SeriesKey], params: DeliveryParams
    ) -> None:
        self._client = client
        self._store = store
        self._keys = keys
        self._params = params
        self.report = DeliveryReport()
        self.skew_ms = 0
        self._failures = 0

    def now_ms(self) -> int:
        """The platform's wall clock, as well as we know it."""
        return clock.now_ms() + self.skew_ms

    async def deliver_all(self) -> bool:
        """Deliver until the outbox is empty (True) or an attempt failed (False; wait ``pause_s`` first)."""
        while (parcel := self._store.next_parcel()) is not None:
            try:
                await self._deliver(parcel)
            except PlexusDetectError as error:
                self._failures += 1
                self.report.errors += 1
                event(log, logging.WARNING, "delivery_failed", err=str(error), waiting=len(parcel.derived))
                return False
            self._failures = 0
        return True

    def pause_s(self) -> float:
        """How long to wait before the next attempt; grows with every failure in a row."""
        return float(min(self._params.wait_s_max, 0.5 * 2.0 ** min(self._failures, 10)))

    async def _deliver(self, parcel: Parcel) -> None:
        derived = self._drop_old(parcel)
        if parcel.sent_ms is not None and len(derived):
            derived = await self._not_stored(parcel, derived)
        if len(derived) == 0:
            self._store.settle(parcel.id)
            return
        if len(derived) < len(parcel.derived):
            self._store.settle(parcel.id, derived)
        await self._post(parcel.id, derived)

    def _drop_old(self, parcel: Parcel) -> Derived:
        old = outbox.too_old(parcel.derived, self.now_ms(), self._params.age_ms_max)
        if not old.any():
            return parcel.derived
        left = parcel.derived.take(~old)
        self.report.expired += int(old.sum())
        if parcel.sent_ms is None:
            self._store.settle(parcel.id, left, {"expired": int(old.sum())})
        event(log, logging.INFO, "scores_too_old", n=int(old.sum()), age_ms_max=self._params.age_ms_max)
        return left

    async def _post(self, parcel_id: int, derived: Derived) -> None:
        self._store.mark_sent(parcel_id, clock.now_ms())
        try:
            answer = await self._client.ingest(outbox.body(derived, self._keys))
            accepted = wire.decode_ingest_reply(answer, len(derived))
        except TransientError as error:
            if not error.maybe_applied:
                self._store.settle(parcel_id, derived)
            else:
                self._count_uncertain(len(derived))
            raise
        except RejectedError as error:
            self._set_aside(parcel_id, derived, error)
            return
        except PlexusDetectError:
            self._count_uncertain(len(derived))
            raise
        self.report.posts += 1
        self.report.posted += accepted
        if outbox.judge(len(derived), accepted).settled:
            self._store.settle(parcel_id, tally={"posted": accepted})
            return
        self._count_uncertain(len(derived) - accepted)
        raise TransientError(
            f"the gateway took {accepted} of {len(derived)} points; which ones will be read back"
        )

    def _count_uncertain(self, n: int) -> None:
        self.report.uncertain += n

    def _set_aside(self, parcel_id: int, derived: Derived, error: RejectedError) -> None:
        """Drop the point that the gateway refuses, with a log line; the rest goes again."""
        if error.index is not None and error.index < len(derived):
            bad = np.arange(len(derived)) == error.index
        elif len(derived) == 1:
            bad = np.ones(1, np.bool_)
        else:
            # It does not say which: halve the batch until it is one point.
            half = len(derived) // 2
            self._store.split(
                parcel_id, derived.take(np.arange(half)), derived.take(np.arange(half, len(derived)))
            )
            return
        sources, metrics = outbox.names(derived.take(bad), self._keys)
        event(log, logging.ERROR, "score_refused", source=sources[0], metric=metrics[0], err=str(error))
        self.report.rejected += 1
        self._store.settle(parcel_id, derived.take(~bad), {"rejected": 1})

    # -- reading back

    async def _not_stored(self, parcel: Parcel, derived: Derived) -> Derived:
        """The points of a batch, posted before with an unknown outcome, that the platform does not have."""
        wait_ms = (parcel.sent_ms or 0) + self._params.readback_ms - clock.now_ms()
        await clock.sleep_s(min(max(wait_ms, 0), self._params.readback_ms) / 1000)
        gone = np.ones(len(derived), np.bool_)
        for _attempt in range(self._params.readbacks_max):
            table = SeriesTable()
            stored = await self._stored(derived, table)
            gone = outbox.missing(derived, self._keys, stored, table)
            # Rows become visible within seconds; and no row at all may be the platform's way of failing.
            if not gone.any():
                break
            await clock.sleep_s(self._params.readback_ms / 1000 / self._params.readbacks_max)
        found = int((~gone).sum())
        self.report.found_stored += found
        self.report.resent += int(gone.sum())
        event(log, logging.INFO, "read_back", stored=found, missing=int(gone.sum()))
        left = derived.take(gone)
        self._store.settle(parcel.id, left, {"posted": found, "resent": int(gone.sum())})
        return left

    async def _stored(self, derived: Derived, table: SeriesTable) -> Points:
        """Every stored row of these derived series in the batch's span of time."""
        sources = {self._keys[i].source for i in np.unique(derived.series).tolist()}
        source = sources.pop() if len(sources) == 1 else None
        metrics = tuple(outbox.derived_metrics(derived, self._keys))
        window = int(derived.t_ms.min()), int(derived.t_ms.max()) + 1
        query = Query(source, metrics, *window, ROWS_MAX, derived.series)
        reader = Reader(self._client, table, PollParams(limit=ROWS_MAX))
        answer = (await reader.read([query], clock.now_ms()))[0]
        if answer.error is not None:
            raise answer.error
        return answer.points
