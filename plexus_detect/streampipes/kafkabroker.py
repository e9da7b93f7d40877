"""Topics of Kafka, whose events are read from where this group stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import confluent_kafka as kafka

from plexus_detect import clock
from plexus_detect.logs import event
from plexus_detect.streampipes.brokers import ANSWER_S, IDLE_S, BrokerLostError, Inlet, Outlet, Reach, Result

log = logging.getLogger(__name__)

T = TypeVar("T")

# A topic that the broker creates is there soon after.
TOPIC_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)


class _Thread:
    """One thread for a client of Kafka, whose calls block."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="streampipes-kafka")

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """The result of a call made in the thread. Raises BrokerLostError."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, lambda: function(*arguments))
        except kafka.KafkaException as error:
            raise BrokerLostError(f"Kafka does not answer ({error.args[0].str()})") from None

    def close(self) -> None:
        """Wait for the thread and end it."""
        self._pool.shutdown()


def _settings(host: str, port: int) -> dict[str, Any]:
    return {"bootstrap.servers": f"{host}:{port}", "log_level": 0, "socket.keepalive.enable": True}


class KafkaInlet(Inlet):
    """All partitions of a topic, from where this group stopped; the first time from now on.

    Partitions are assigned, and not divided among a group's members: as with the client's own consumer every
    running function gets all events.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._thread = _Thread()
        self._consumer: kafka.Consumer | None = None
        self._next: dict[int, int] = {}

    async def _make_connection(self, hostname: str, port: int) -> None:
        own: dict[str, Any] = {
            "group.id": self._reach.group,
            "enable.auto.commit": False,
            "allow.auto.create.topics": True,
        }
        own["error_cb"] = _away
        # Not every broker that speaks the protocol answers a waiting read as soon as there is an event.
        own["fetch.wait.max.ms"] = 50
        # Where events were deleted unread it must be said, and not gone on from the newest.
        own["auto.offset.reset"] = "error"
        where = _settings(self._reach.host or hostname, self._reach.port or port)
        self._consumer = kafka.Consumer(where | own)

    async def _create_subscription(self) -> None:
        for wait_s in TOPIC_WAITS_S:
            if there := await self._thread.call(self._partitions):
                await self._thread.call(self._assign, there)
                return
            await clock.sleep_s(wait_s)
        raise BrokerLostError(f"Kafka has no topic '{self.topic_name}' yet")

    def _client(self) -> kafka.Consumer:
        assert self._consumer is not None  # noqa: S101 - connected before
        return self._consumer

    def _assign(self, there: Sequence[int]) -> None:
        client = self._client()
        parts = [kafka.TopicPartition(self.topic_name, number) for number in there]
        known, new = self._reach.positions.get(self.topic_name, {}), []
        for part in client.committed(parts, timeout=ANSWER_S):
            at = known.get(part.partition, part.offset)
            self._next[part.partition] = _begin(at, *client.get_watermark_offsets(part, timeout=ANSWER_S))
            if part.offset < 0:
                new.append(part.partition)
        client.assign(self._positions(self._next))
        if new:
            # From now on nothing is missed: a crash before the first commit would begin at a later "now".
            client.commit(offsets=self._positions(new), asynchronous=False)

    def _partitions(self) -> list[int]:
        """The partitions of the topic, none while there is none: many a broker creates what is asked for."""
        found = self._client().list_topics(self.topic_name, timeout=ANSWER_S)
        return list(found.topics[self.topic_name].partitions)

    def _positions(self, partitions: Iterable[int]) -> list[kafka.TopicPartition]:
        return [kafka.TopicPartition(self.topic_name, number, self._next[number]) for number in partitions]

    async def receive(self, most: int, linger_s: float) -> list[bytes]:
        """See ``Inlet``."""
        return await self._thread.call(self._read, most, linger_s)

    def _read(self, most: int, linger_s: float) -> list[bytes]:
        messages = self._client().consume(1, IDLE_S)
        if messages and most > 1:
            messages += self._client().consume(most - 1, linger_s)
        out = []
        for message in messages:
            error = message.error()
            if error is not None:
                raise BrokerLostError(f"Kafka gave no events ({error.str()})")
            partition, offset = message.partition(), message.offset()
            assert partition is not None and offset is not None  # noqa: PT018, S101 - it was read
            self._next[partition] = offset + 1
            out.append(message.value() or b"")
        return out

    def judged(self) -> None:
        """See ``Inlet``."""
        self._reach.positions[self.topic_name] = dict(self._next)

    async def commit(self) -> None:
        """See ``Inlet``."""
        await self._thread.call(self._commit)

    def _commit(self) -> None:
        self._client().commit(offsets=self._positions(self._next), asynchronous=False)

    async def disconnect(self) -> None:
        """End the connection and the thread."""
        if self._consumer is not None:
            with contextlib.suppress(BrokerLostError):
                await self._thread.call(self._consumer.close)
        self._thread.close()


def _away(error: kafka.KafkaError) -> None:
    """Say that no broker answers; its client goes on trying by itself."""
    if error.code() == kafka.KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - the name that it has
        event(log, logging.WARNING, "broker_away", broker="kafka", err=error.str())


def _begin(committed: int, least: int, newest: int) -> int:
    """Where to go on in a partition whose events have these offsets; what is lost is said."""
    if committed < 0:
        return newest
    if least <= committed <= newest:
        return committed
    # Events that are older than a lost position may be those of weeks: they are not judged all over again.
    lost = f"{least - committed} events were deleted there"
    why = lost if committed < least else "the topic was cut off, or made anew"
    event(log, logging.WARNING, "events_missed", broker="kafka", err=why)
    return min(max(committed, least), newest)


class KafkaOutlet(Outlet):
    """A topic of Kafka."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._thread = _Thread()
        self._producer: kafka.Producer | None = None

    async def _make_connection(self, hostname: str, port: int) -> None:
        where = _settings(self._reach.host or hostname, self._reach.port or port)
        limits = {"linger.ms": 0, "enable.idempotence": True, "delivery.timeout.ms": int(1000 * ANSWER_S)}
        self._producer = kafka.Producer(where | limits)

    async def publish(self, results: Sequence[Result]) -> None:
        """See ``Outlet``."""
        await self._thread.call(self._send, results)

    def _send(self, results: Sequence[Result]) -> None:
        producer, failed = self._producer, []
        assert producer is not None  # noqa: S101 - connected before

        def told(error: kafka.KafkaError | None, _message: object) -> None:
            if error is not None:
                failed.append(error.str())

        for result in results:
            while True:
                try:
                    producer.produce(self.topic_name, result.payload, result.device, on_delivery=told)
                    break
                except BufferError:
                    producer.poll(0.1)
        left = producer.flush(2 * ANSWER_S)
        if failed or left:
            raise BrokerLostError(f"Kafka took no result ({failed[0] if failed else 'no answer in time'})")

    async def disconnect(self) -> None:
        """End the connection and the thread."""
        if self._producer is not None:
            self._producer.purge()
        self._thread.close()
