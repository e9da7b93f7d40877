"""The platform as a sink of a stream: scores through ingest, dead letters and states back to Kafka.

At least once: the identity of a score is its source, metric and time, and one that was acknowledged just
before its worker died is posted once more, with the same value, by the one that takes over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

import numpy as np

from plexus_detect import clock, outbox, wire
from plexus_detect.client import Client
from plexus_detect.config import Config
from plexus_detect.connect.kafka_sink import topics_of
from plexus_detect.connect.protocol import Progress, Result, Source, Unavailable
from plexus_detect.connect.records import dead_records
from plexus_detect.connect.states import States
from plexus_detect.delivery import Patience
from plexus_detect.errors import AuthError, ContractError, RejectedError, TransientError
from plexus_detect.logs import event
from plexus_detect.report import DeliveryReport
from plexus_detect.series import Derived, Kind, SeriesKey

log = logging.getLogger(__name__)

T = TypeVar("T")

# Longer than the client tries by itself.
POST_S_MAX = 300.0


class PlexusSink:
    """Posts scores from a thread; ``loop`` is where ``client`` lives."""

    def __init__(
        self, config: Config, client: Client, states: States, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._topics = topics_of(config)
        self._client, self._states, self._loop = client, states, loop
        self._points_max = config.post.batch_points_max
        self._age_ms_max = config.post.max_alert_age_ms
        self._keep_late = "zscore_late" in config.post.series
        self._patience = Patience()
        self.report = DeliveryReport()
        # What is left of results whose delivery was not finished: nothing accepted is posted again.
        self._left: dict[tuple[int, int], list[Derived]] = {}

    def deliver(self, results: Sequence[Result], progress: Progress, source: Source) -> None:
        """Post, then commit. Raises Unavailable, and AuthError when the key is refused for minutes."""
        for result in results:
            self._deliver(result)
        dead = (record for result in results for record in dead_records(result, self._topics))
        self._states.writer().write(dead)
        source.commit(progress)
        self._left.clear()

    def _deliver(self, result: Result) -> None:
        rows, mark = result.output.derived, (result.partition, result.batch.offsets[0])
        if mark not in self._left:
            derived = outbox.in_time(rows.derived, clock.now_ms(), self._age_ms_max, keep=self._keep_late)
            self.report.expired += len(rows.derived) - len(derived)
            good = np.isfinite(derived.value) & (derived.t_ms > 0)
            self._left[mark] = outbox.pack(derived.take(good), self._points_max)
        left = self._left[mark]
        while left:
            part = left.pop(0)
            try:
                self._post(part, rows.keys)
            except RejectedError as error:
                left[:0] = self._without(part, rows.keys, error)
            except BaseException:
                left.insert(0, part)
                raise

    def _post(self, derived: Derived, keys: Sequence[SeriesKey]) -> None:
        """Post points. Raises RejectedError, Unavailable and AuthError."""
        posted = wire.decode_ingest_reply(
            self._ask(self._client.ingest(outbox.body(derived, keys))), len(derived)
        )
        news = derived.t_ms[derived.kind != Kind.ZSCORE_LATE]
        self.report.accepted(posted, (clock.now_ms() - news) / 1000)
        if posted < len(derived):
            # Whole sources are dropped in silence: to post again would post the others twice.
            self.report.rejected += len(derived) - posted
            event(log, logging.ERROR, "scores_dropped", n=len(derived) - posted)

    def _without(self, derived: Derived, keys: Sequence[SeriesKey], error: RejectedError) -> list[Derived]:
        """What is left of points that the gateway refuses: without the one that it names, or in halves."""
        index, n = error.index, len(derived)
        if index is None or not 0 <= index < n:
            # Perhaps it refuses whatever we send, say, as the wrong address: then no point is to blame.
            self._ask(self._client.check_write())
            if n > 1:
                first = np.arange(n) < n // 2
                return [derived.take(first), derived.take(~first)]
            index = 0
        bad = np.arange(n) == index
        sources, metrics = outbox.names(derived.take(bad), keys)
        event(log, logging.ERROR, "score_refused", source=sources[0], metric=metrics[0], err=str(error))
        self.report.rejected += 1
        rest = derived.take(~bad)
        return [rest] if len(rest) else []

    def _ask(self, call: Coroutine[Any, Any, T]) -> T:
        """What the platform answers. Raises RejectedError, Unavailable and AuthError."""
        waiting = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            answer = waiting.result(POST_S_MAX)
        except AuthError as error:
            self._note(error)
            self._patience.bear(error)
            raise Unavailable(str(error)) from None
        except (TransientError, ContractError) as error:
            self._note(error)
            raise Unavailable(str(error)) from None
        except FutureTimeoutError:
            waiting.cancel()
            raise Unavailable("the gateway does not answer") from None
        self._patience.end()
        return answer

    def _note(self, error: Exception) -> None:
        self.report.failed(str(error), clock.monotonic_s())

    def close(self) -> None:
        """There is nothing to give up: the client is another's."""
