"""The worker's outbox to topics of Kafka in place of the platform's ingest: polled in, streamed out.

At least once: a batch whose acknowledgement was lost is written again, alerts with the same ids. An alert is
made of the score that begins one; whether it had begun is in the state file, with the scores that were sent.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from confluent_kafka import KafkaException, Producer

from plexus_detect import outbox
from plexus_detect.client import Client
from plexus_detect.closing import MONITORED
from plexus_detect.config import Config
from plexus_detect.connect.kafka_sink import topics_of
from plexus_detect.connect.protocol import Unavailable
from plexus_detect.connect.records import Record, Topics, alert_record, score_record
from plexus_detect.connect.settings import Connection
from plexus_detect.connect.writing import Writer
from plexus_detect.delivery import Delivery, DeliveryParams, Makes
from plexus_detect.errors import TransientError
from plexus_detect.running import Running
from plexus_detect.series import SUFFIX, Derived, Kind, SeriesKey
from plexus_detect.store import Parcel, Store
from plexus_detect.store.records import can_wait
from plexus_detect.stream.alerts import Alert, severity_of

# A critical score is in the score beside it.
_ALERTING = tuple(kind for kind in MONITORED if kind != Kind.ZSCORE_CRITICAL)

# A worker that is asked to stop waits for a write under way: what it gives up is written by the next.
WRITE_S = 3.0

Threshold = Callable[[int, Kind], float]


class BusDelivery(Delivery):
    """As its base, but to Kafka. ``to``: producer and topics, ``threshold``: the line of a series."""

    to: tuple[Writer, Topics]
    threshold: Threshold
    cooldown_ms: int
    _told: dict[tuple[int, int], int]

    async def _deliver(self, parcel: Parcel) -> None:
        derived = parcel.derived
        worth = self._worth(derived)
        if worth is not derived:
            self._set_old_apart(parcel.id, derived, worth)
            if can_wait(worth):
                return
        if len(worth):
            await self._post(parcel.id, worth)

    async def _post(self, parcel_id: int, derived: Derived) -> None:
        """Write one batch and wait until it is acknowledged. Raises TransientError."""
        writer, topics = self.to
        records = list(self._records(derived, topics))
        try:
            await asyncio.to_thread(writer.write, records, WRITE_S)
        except Unavailable as error:
            raise TransientError(str(error)) from None
        news = derived.t_ms[derived.kind != Kind.ZSCORE_LATE]
        self.report.accepted(len(derived), (self._now_ms() - news) / 1000)
        self._store.settle(parcel_id, tally={"posted": len(derived)}, alerts=self._accepted(derived))

    def _records(self, derived: Derived, topics: Topics) -> Iterator[Record]:
        if topics.scores is not None:
            sources, metrics = outbox.names(derived, self._keys)
            rows = zip(sources, metrics, derived.t_ms.tolist(), derived.value.tolist(), strict=True)
            yield from (score_record(topics.scores, *row) for row in rows)
        yield from (alert_record(alert, topics.alerts) for alert in self._alerts(derived))

    def _alerts(self, derived: Derived) -> Iterator[Alert]:
        """An alert for each series and kind that had none open and has one now."""
        begun = np.flatnonzero(np.isin(derived.kind, _ALERTING) & (derived.value > 0.0))
        for i in begun[np.argsort(derived.t_ms[begun], kind="stable")].tolist():
            series, kind, t_ms = int(derived.series[i]), int(derived.kind[i]), int(derived.t_ms[i])
            last_ms = self._told.get((series, kind))
            # What is written again after a failure has the same time, and is told again.
            quiet = last_ms is not None and t_ms != last_ms and t_ms - last_ms < self.cooldown_ms
            if (series, kind) in self.debts or quiet:
                continue
            self._told[series, kind] = t_ms
            yield self._alert(series, Kind(kind), t_ms, float(derived.value[i]))

    def _alert(self, series: int, kind: Kind, t_ms: int, score: float) -> Alert:
        key, threshold, word = (
            self._keys[series],
            self.threshold(series, kind),
            SUFFIX[kind].removeprefix("."),
        )
        identity = "\n".join(("plexus", *key, word, str(t_ms)))
        return Alert(
            t_ms=t_ms,
            device=key.source,
            sample_index=None,
            score=score,
            threshold=threshold,
            severity=severity_of(score, threshold),
            reason=f"{key.metric} on {key.source} is anomalous: {word} {score:.1f}, line {threshold:g}",
            sensor_values={},
            metric=key.metric,
            kind=word,
            id=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
        )


def threshold_in(running: Running) -> Threshold:
    """The line of each series and kind."""

    def threshold(series: int, kind: Kind) -> float:
        policy, key = running.policy, running.table.keys[series]
        if kind is Kind.ANOMALY:
            return next(group.episode.threshold for group in policy.groups if group.is_named(key))
        rule = policy.rules[int(running.state.rule_of[series])]
        return (rule.fleet_episode if kind is Kind.FLEET_ZSCORE else rule.episode).threshold

    return threshold


def bus_delivery(config: Config, running: Running) -> Makes:
    """What makes a delivery to Kafka, called like ``Delivery``. Raises ConfigError for bad settings."""
    connection = Connection(config)
    try:
        producer = Producer(connection.writer("sink"))
    except KafkaException as error:
        raise connection.refused(error, "sink") from None

    def make(
        client: Client,
        store: Store,
        keys: Sequence[SeriesKey],
        params: DeliveryParams,
        now_ms: Callable[[], int],
    ) -> Delivery:
        found = BusDelivery(client, store, keys, params, now_ms)
        found.to, found.threshold = (Writer(producer, connection), topics_of(config)), threshold_in(running)
        found.cooldown_ms, found._told = config.sink.cooldown_ms, {}  # noqa: SLF001 - its own
        return found

    return make
