"""Where simulated rows go: a CSV file, the platform's gateway, a topic of Kafka.

Each is an async context manager that gives what takes rows; at its end all of them have arrived.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from plexus_detect import clock, wire
from plexus_detect.client import Client
from plexus_detect.errors import ConfigError, TransientError
from plexus_detect.options import extra
from plexus_detect.retry import retried
from plexus_detect.simulate.fleet import Rows
from plexus_detect.simulate.machine import NAMES
from plexus_detect.simulate.messages import CSV_HEAD, columns, csv_lines, messages

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

Put = Callable[[Rows], Awaitable[None]]

# Points of one request (contract section 3: at most 10,000).
POST_POINTS_MAX = 10_000

# How long a broker may take no message while some wait, and how often that is looked at.
STILL_S_MAX, LOOK_S = 30.0, 0.1

# Of the producer: messages wait a moment for others of their partition, since one request for many of them is
# what makes it fast; one whose answer was lost is not stored twice.
KAFKA_OPTIONS: Mapping[str, str | int | bool] = {
    "linger.ms": 20,
    "batch.num.messages": 10_000,
    "compression.type": "lz4",
    "enable.idempotence": True,
    "queue.buffering.max.messages": 200_000,
    # What its brokers do is told once, by the error that ends the run, not line by line.
    "log_level": 2,
    # Failures alone are reported; the others are known by what is left in the queue.
    "delivery.report.only.error": True,
}


@asynccontextmanager
async def csv_file(path: Path, sources: Sequence[str]) -> AsyncIterator[Put]:
    """The long form of CSV, a line a value. Raises ConfigError when the file cannot be written."""
    with writing("--csv", path):
        file = path.open("w", encoding="utf-8", newline="")
    try:
        with writing("--csv", path):
            file.write(CSV_HEAD)

        async def put(rows: Rows) -> None:
            with writing("--csv", path):
                file.write(csv_lines(rows, sources))

        yield put
        with writing("--csv", path):
            file.close()
    finally:
        # What the buffer still holds after a failure may fail once more.
        with suppress(OSError):
            file.close()


class writing:  # noqa: N801 - reads like the function that it is
    """While this lasts, a file that cannot be written is a mistake in an option."""

    def __init__(self, option: str, path: Path) -> None:
        self._option, self._path = option, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise ConfigError(
                f"{self._option}: {self._path} cannot be written ({error.strerror}); choose another file"
            ) from None


@asynccontextmanager
async def gateway(client: Client, sources: Sequence[str], tell: Callable[[str], None]) -> AsyncIterator[Put]:
    """The platform's ingest, with every device made known first: a new source loses its first points.

    A post that failed is tried again. Where its answer was lost its points may be stored twice, with the same
    time and value, which the worker reads as one; ``tell`` is told so. Raises ApiError, and TransientError
    when points were not taken.
    """
    async with client:
        for source in sources:
            await retried(lambda source=source: client.create_source(source, source))  # type: ignore[misc]

        async def put(rows: Rows) -> None:
            found = columns(rows)
            for start in range(0, len(found.value), POST_POINTS_MAX):
                here = slice(start, start + POST_POINTS_MAX)
                owners = [sources[i] for i in found.device[here].tolist()]
                names = [NAMES[i] for i in found.sensor[here].tolist()]
                body = wire.encode_points(owners, names, found.t_ms[here], found.value[here])
                await _post(client, body, len(names), tell)

        yield put


async def _post(client: Client, body: bytes, count: int, tell: Callable[[str], None]) -> None:
    async def once() -> bytes:
        try:
            return await client.ingest(body)
        except TransientError as error:
            if not error.maybe_applied:
                raise
            tell(f"an answer was lost, so {count} points may be stored twice: {error}")
            raise TransientError(str(error), retry_after_s=error.retry_after_s) from error

    taken = wire.decode_ingest_reply(await retried(once), count)
    if taken < count:
        raise TransientError(
            f"the gateway took {taken} of {count} points: it drops what is above a limit of the plan or of "
            "its rate; simulate fewer devices or a longer --interval"
        )


@asynccontextmanager
async def kafka(topic: str, sources: Sequence[str], options: Mapping[str, str]) -> AsyncIterator[Put]:
    """A topic of Kafka: a message a row, keyed by its device, so that a device stays in one partition.

    Raises ConfigError for settings that librdkafka refuses, and TransientError when a message could not be
    delivered.
    """
    with extra("kafka", "--kafka"):
        from confluent_kafka import KafkaException, Producer
    sending = _Sending(topic)
    try:
        producer = Producer({**KAFKA_OPTIONS, **options, "error_cb": sending.in_trouble})
    except KafkaException as error:
        raise ConfigError(f"-X: {error.args[0].str()}; see the settings of librdkafka") from None

    async def put(rows: Rows) -> None:
        sending.send(producer, rows, sources)

    try:
        yield put
        sending.finish(producer)
    finally:
        # After an error elsewhere, or Ctrl-C, what is under way may still arrive.
        producer.flush(1.0)


class _Sending:
    """What becomes of messages."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._failed: list[str] = []
        self._trouble = ""

    def told(self, error: KafkaError | None, _message: Message) -> None:
        """Take a delivery report."""
        if error is not None:
            self._failed.append(error.str())

    def in_trouble(self, error: KafkaError) -> None:
        """Take what librdkafka says of its brokers; it tries again by itself unless that is of no use."""
        self._trouble = error.str()
        if error.fatal():
            self._failed.append(error.str())

    def send(self, producer: Producer, rows: Rows, sources: Sequence[str]) -> None:
        """Queue the rows' messages; the broker sets the pace once the queue is full."""
        for key, value in messages(rows, sources):
            while True:
                try:
                    producer.produce(self._topic, value, key, on_delivery=self.told)
                    break
                except BufferError:
                    self._drain(producer, len(producer) // 2)
        producer.poll(0)
        self._check()

    def finish(self, producer: Producer) -> None:
        """Wait until every message has arrived."""
        self._drain(producer, 0)
        self._check()

    def _drain(self, producer: Producer, least: int) -> None:
        """Wait until at most so many messages wait. Raises TransientError when there is no progress."""
        left, since_s = len(producer), clock.monotonic_s()
        while left > least:
            left, before = producer.flush(LOOK_S), left
            self._check()
            if left < before:
                since_s = clock.monotonic_s()
            elif clock.monotonic_s() - since_s > STILL_S_MAX:
                why = f": {self._trouble}" if self._trouble else ""
                raise TransientError(
                    f"--kafka: {left} messages do not reach {self._topic}{why}; check --brokers and -X"
                )

    def _check(self) -> None:
        if self._failed:
            raise TransientError(f"--kafka: {len(self._failed)} messages were not taken: {self._failed[0]}")
