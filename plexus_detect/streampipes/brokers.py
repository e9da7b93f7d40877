"""Kafka and NATS as a stream's grounding names them: events in by the batch, results out and acknowledged.

The client's own consumers and publishers give up with the first error or wait for ever; these say that a
broker is lost, and whoever drives them begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import confluent_kafka as kafka
import msgspec
import nats
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from streampipes.functions.broker import Consumer, Publisher
from streampipes.functions.broker.broker_handler import SupportedBroker
from streampipes.model.resource import DataStream

from plexus_detect import clock
from plexus_detect.errors import TransientError
from plexus_detect.logs import event
from plexus_detect.streampipes.core import broker_of

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a broker may take for anything before it counts as lost.
ANSWER_S = 10.0

# How long a read waits for a first event: a stop is noticed by then.
IDLE_S = 0.25

# A topic that the broker creates is there soon after.
TOPIC_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)

# Events of a subject that wait here; more wait with the connection, which drops some when it has too many.
WAITING_MAX = 20_000


class BrokerLostError(TransientError):
    """The broker is away, or was reached and is no more."""


class Result(NamedTuple):
    """An event to publish, and its device: results of one device stay in order."""

    device: str
    payload: bytes


@dataclass(frozen=True)
class Reach:
    """How a broker is reached: another host and port than the grounding's, where they are given; ``group``
    is the name under which positions in topics of Kafka are kept."""

    host: str = ""
    port: int | None = None
    group: str = "plexus-detect"


class Inlet(Consumer):
    """A consumer of the client that is read by the batch."""

    @abstractmethod
    async def receive(self, most: int, linger_s: float) -> list[bytes]:
        """Up to ``most`` events: those that come within ``linger_s`` of the first; none when none came for a
        while. Raises BrokerLostError."""

    @abstractmethod
    async def commit(self) -> None:
        """What was received is done with. Raises BrokerLostError."""

    def get_message(self) -> Any:  # noqa: ANN401 - the client's own loop is not used
        """Not offered: see ``receive``."""
        raise NotImplementedError("events are read by the batch")


class Outlet(Publisher):
    """A publisher of the client that says when the broker has what was published."""

    @abstractmethod
    async def publish(self, results: Sequence[Result]) -> None:
        """Publish, and wait until the broker has it. Raises BrokerLostError."""

    async def publish_event(self, event: dict[str, Any]) -> None:
        """Publish one event."""
        await self.publish([Result("", msgspec.json.encode(event))])


def inlet_of(stream: DataStream, reach: Reach) -> Inlet:
    """The consumer of a stream."""
    return KafkaInlet(reach) if broker_of(stream) is SupportedBroker.KAFKA else NatsInlet(reach)


def outlet_of(stream: DataStream, reach: Reach) -> Outlet:
    """The publisher of a stream."""
    return KafkaOutlet(reach) if broker_of(stream) is SupportedBroker.KAFKA else NatsOutlet(reach)


# -- NATS


class _Nats:
    """A connection that is not mended behind our back: who was away has to be said."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._lost = asyncio.Event()
        self.client: NatsClient | None = None

    async def connect_to(self, host: str, port: int) -> NatsClient:
        """Connect. Raises BrokerLostError."""
        host, port = self._reach.host or host, self._reach.port or port
        try:
            self.client = await nats.connect(
                f"nats://{host}:{port}",
                allow_reconnect=False,
                connect_timeout=int(ANSWER_S),
                error_cb=self._error,
                disconnected_cb=self._gone,
                closed_cb=self._gone,
            )
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise BrokerLostError(f"NATS at {host}:{port} does not answer ({_said(error)})") from None
        return self.client

    async def _error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            event(log, logging.WARNING, "events_missed", broker="nats", err="they came faster than judged")

    async def _gone(self) -> None:
        self._lost.set()

    @property
    def lost(self) -> bool:
        """Whether there is no connection any more."""
        return self._lost.is_set()

    async def close(self) -> None:
        """End the connection."""
        if self.client is not None and not self.client.is_closed:
            with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):
                await self.client.close()


class NatsInlet(Inlet):
    """A subject of NATS. What is published while nobody is connected is not kept by the broker."""

    def __init__(self, reach: Reach) -> None:
        self._nats = _Nats(reach)
        self._waiting: deque[bytes] = deque()
        self._some, self._room = asyncio.Event(), asyncio.Event()

    async def _make_connection(self, hostname: str, port: int) -> None:
        await self._nats.connect_to(hostname, port)

    async def _create_subscription(self) -> None:
        client = self._nats.client
        assert client is not None  # noqa: S101 - connected before
        await client.subscribe(self.topic_name, cb=self._take)
        # A subscription holds once the server has answered what was sent after it.
        await _flushed(client)

    async def _take(self, message: Msg) -> None:
        while len(self._waiting) >= WAITING_MAX:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(message.data)
        self._some.set()

    async def receive(self, most: int, linger_s: float) -> list[bytes]:
        """See ``Inlet``."""
        if not self._waiting:
            if self._nats.lost:
                raise BrokerLostError("the connection to NATS is lost")
            self._some.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._some.wait()
        if self._waiting and len(self._waiting) < most and linger_s:
            await clock.sleep_s(linger_s)
        out = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._room.set()
        return out

    async def commit(self) -> None:
        """There is nothing to commit to."""

    async def disconnect(self) -> None:
        """End the connection."""
        await self._nats.close()


class NatsOutlet(Outlet):
    """A subject of NATS."""

    def __init__(self, reach: Reach) -> None:
        self._nats = _Nats(reach)

    async def _make_connection(self, hostname: str, port: int) -> None:
        await self._nats.connect_to(hostname, port)

    async def publish(self, results: Sequence[Result]) -> None:
        """See ``Outlet``: the server has what was sent before a ping that it answers."""
        client = self._nats.client
        if client is None or self._nats.lost:
            raise BrokerLostError("the connection to NATS is lost")
        try:
            for result in results:
                await client.publish(self.topic_name, result.payload)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise BrokerLostError(f"NATS took no result ({_said(error)})") from None
        await _flushed(client)

    async def disconnect(self) -> None:
        """End the connection."""
        await self._nats.close()


async def _flushed(client: NatsClient) -> None:
    try:
        await client.flush(timeout=int(ANSWER_S))
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise BrokerLostError(f"NATS does not answer ({_said(error)})") from None


# -- Kafka


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
        own = {"group.id": self._reach.group, "enable.auto.commit": False, "auto.offset.reset": "latest"}
        own["allow.auto.create.topics"] = True
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
        for part in client.committed(parts, timeout=ANSWER_S):
            bounds = client.get_watermark_offsets(part, timeout=ANSWER_S)
            self._next[part.partition] = _begin(part.offset, *bounds)
        client.assign(self._positions())
        # From now on nothing is missed: a crash before the first commit would begin at a later "now".
        client.commit(offsets=self._positions(), asynchronous=False)

    def _partitions(self) -> list[int]:
        """The partitions of the topic, none while there is no such topic: to ask for it makes a broker create it
        that is set up so."""
        found = self._client().list_topics(self.topic_name, timeout=ANSWER_S)
        return list(found.topics[self.topic_name].partitions)

    def _positions(self) -> list[kafka.TopicPartition]:
        return [kafka.TopicPartition(self.topic_name, number, at) for number, at in self._next.items()]

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

    async def commit(self) -> None:
        """See ``Inlet``."""
        await self._thread.call(self._commit)

    def _commit(self) -> None:
        self._client().commit(offsets=self._positions(), asynchronous=False)

    async def disconnect(self) -> None:
        """End the connection and the thread."""
        if self._consumer is not None:
            with contextlib.suppress(BrokerLostError):
                await self._thread.call(self._consumer.close)
        self._thread.close()


def _begin(committed: int, least: int, newest: int) -> int:
    """Where to go on in a partition whose events have these offsets; what is lost is said."""
    if committed < 0:
        return newest
    if least <= committed <= newest:
        return committed
    why = f"the broker deleted {least - committed}" if committed < least else "the topic was made anew"
    event(log, logging.WARNING, "events_missed", broker="kafka", err=why)
    return least


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


def _said(error: BaseException) -> str:
    """The reason in few words."""
    return getattr(error, "strerror", None) or str(error).removeprefix("nats: ") or type(error).__name__
