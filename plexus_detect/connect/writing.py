"""Records to Kafka without transactions: written once all of them are acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from plexus_detect import clock
from plexus_detect.connect.protocol import Unavailable
from plexus_detect.connect.records import Record
from plexus_detect.connect.settings import Connection

Answered = Callable[[KafkaError | None, Message], None]

# All records of one call are acknowledged by then, or the call has failed.
WRITE_S_MAX, FLUSH_S = 40.0, 1.0


class Writer:
    """An idempotent producer whose records count when the brokers have them.

    ``waiting`` is called while that takes long; what it raises ends the wait.
    """

    def __init__(
        self, producer: Producer, connection: Connection, waiting: Callable[[], None] = lambda: None
    ) -> None:
        self._producer, self._connection, self._waiting = producer, connection, waiting
        self._failed: KafkaError | None = None

    def write(self, records: Iterable[Record], most_s: float = WRITE_S_MAX) -> int:
        """Write records and wait until they are kept; how many these were. Raises Unavailable."""
        self._failed, n = None, 0
        for record in records:
            put(self._producer, record, self._answered)
            n += 1
        try:
            self._flush(clock.monotonic_s() + most_s)
        except Unavailable:
            # What is left may not turn up after it has been written again.
            self._producer.purge()
            raise
        if self._failed is not None:
            raise Unavailable(self._connection.sentence(self._failed))
        return n

    def _flush(self, by_s: float) -> None:
        while self._producer.flush(FLUSH_S):
            if clock.monotonic_s() > by_s:
                raise Unavailable("the brokers do not acknowledge what is written")
            self._waiting()

    def _answered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed = error

    def close(self) -> None:
        """Give up what is under way."""
        self._producer.purge()
        self._producer.flush(1.0)


def put(producer: Producer, record: Record, answered: Answered | None = None) -> None:
    """Queue a record; waits while the queue is full. Raises Unavailable when it stays so."""
    extra: dict[str, Any] = {} if record.partition is None else {"partition": record.partition}
    if answered is not None:
        extra["on_delivery"] = answered
    ends_s = clock.monotonic_s() + WRITE_S_MAX
    while True:
        try:
            producer.produce(
                record.topic, value=record.value, key=record.key, headers=list(record.headers), **extra
            )
            return
        except BufferError:
            if clock.monotonic_s() > ends_s:
                raise Unavailable("the queue of what is to be written stays full") from None
            producer.poll(0.1)
