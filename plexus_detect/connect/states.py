"""The topics that are ours: made where they are missing, states written to and read from one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from plexus_detect import clock
from plexus_detect.config import Config
from plexus_detect.connect.changelog import Logged, Snapshot, newest, pieces, topic_of
from plexus_detect.connect.protocol import Progress, Unavailable
from plexus_detect.connect.records import Record
from plexus_detect.connect.settings import Connection, is_trouble
from plexus_detect.connect.writing import Writer
from plexus_detect.errors import ConfigError
from plexus_detect.logs import event

log = logging.getLogger(__name__)

REQUEST_S = 10.0

# Messages that are looked at from the end on; if there is no whole state among them, so many times more.
LOOK_BACK, LOOK_BACK_FACTOR = 64, 8

# Segments are closed early, so that compaction reaches what is old: only closed ones are compacted.
_OF_STATES = {"cleanup.policy": "compact", "segment.bytes": "67108864", "min.cleanable.dirty.ratio": "0.1"}


class States:
    """Kept states of the partitions of ``config.source.topic``; their numbers go on from those read."""

    def __init__(self, config: Config, connection: Connection) -> None:
        self.topic = topic_of(config.source.group, config.source.topic)
        self._config, self._connection = config, connection
        self._numbers: dict[int, int] = {}
        self._writer: Writer | None = None
        self._heard = ""
        # Called while writing takes long; what it raises ends the wait.
        self.waiting: Callable[[], None] = lambda: None

    # -- topics

    def prepare(self) -> int | None:
        """Make the topics that are missing; the number of partitions of the source, None while it is missing.

        Raises Unavailable, and ConfigError when a topic cannot be made or does not fit.
        """
        admin = self._admin()
        source, sink = self._config.source, self._config.sink
        known = self._known(admin)
        count = known.get(source.topic)
        if not count:
            return None
        wanted = {self.topic: count, source.dead_letters: -1}
        if sink.kind == "kafka" and sink.brokers in (None, source.brokers):
            wanted |= {topic: -1 for topic in (sink.topic, sink.scores_topic) if topic is not None}
        if known.get(self.topic, count) < count:
            raise ConfigError(
                f"source: the topic {self.topic} has {known[self.topic]} partitions, and {source.topic} has "
                f"{count}; add partitions to it"
            )
        self._make(admin, {topic: n for topic, n in wanted.items() if topic not in known})
        return count

    def topics(self, end: str) -> dict[str, int] | str:
        """The topics there are with their numbers of partitions, or why they cannot be seen. Raises
        ConfigError."""
        try:
            return self._known(self._admin(end))
        except Unavailable as error:
            return str(error)

    def _admin(self, end: str = "source") -> AdminClient:
        try:
            settings = self._connection.admin(end)
            settings["error_cb"] = self._on_error
            return AdminClient(settings)
        except KafkaException as error:
            raise self._connection.refused(error, "source") from None

    def _on_error(self, error: KafkaError) -> None:
        if is_trouble(error) and error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - a code
            self._heard = self._connection.sentence(error)

    def _known(self, admin: AdminClient) -> dict[str, int]:
        try:
            topics = admin.list_topics(timeout=REQUEST_S).topics
        except KafkaException as error:
            # The error of the request says that nobody answered; why is told by the way.
            self._heard = ""
            admin.poll(0)
            raise Unavailable(self._heard or self._connection.sentence(error)) from None
        return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}

    def _make(self, admin: AdminClient, wanted: Mapping[str, int]) -> None:
        if not wanted:
            return
        new = [
            NewTopic(name, count, -1, config=_OF_STATES if name == self.topic else {})
            for name, count in wanted.items()
        ]
        for name, made in admin.create_topics(new, request_timeout=REQUEST_S).items():
            try:
                made.result(REQUEST_S * 2)
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.TOPIC_ALREADY_EXISTS:
                    continue
                if error.args[0].retriable() or code == KafkaError._TIMED_OUT:  # noqa: SLF001 - a code
                    raise Unavailable(self._connection.sentence(error)) from None
                raise ConfigError(
                    f"the topic {name} is missing and cannot be made ({self._connection.sentence(error)}); "
                    f"make it, or allow it"
                ) from None
            event(log, logging.INFO, "topic_made", topic=name)

    # -- states

    def records(self, progress: Progress) -> Iterator[Record]:
        """The records of the states in this progress; each call numbers them anew."""
        for partition, blob in progress.snapshots.items():
            number = self._numbers[partition] = self._numbers.get(partition, -1) + 1
            yield from pieces(self.topic, partition, Snapshot(progress.positions[partition], number, blob))

    def write(self, progress: Progress) -> None:
        """Write states and wait until they are kept. Raises Unavailable."""
        if progress.snapshots:
            self.writer().write(self.records(progress))

    def writer(self) -> Writer:
        """A producer to the cluster of the source."""
        if self._writer is None:
            try:
                producer = Producer(self._connection.writer("source"))
            except KafkaException as error:
                raise self._connection.refused(error, "source") from None
            self._writer = Writer(producer, self._connection, lambda: self.waiting())
        return self._writer

    def read(self, partition: int, position_max: int | None) -> Snapshot | None:
        """The newest whole state at or before a position. Raises Unavailable."""
        consumer = Consumer(self._connection.reader())
        try:
            part = TopicPartition(self.topic, partition)
            low, high = consumer.get_watermark_offsets(part, REQUEST_S)
            back, found = LOOK_BACK, None
            while found is None and high > low:
                start = max(low, high - back)
                found = newest(self._messages(consumer, part, (start, high)), position_max)
                if start == low:
                    break
                back *= LOOK_BACK_FACTOR
        except KafkaException as error:
            raise Unavailable(self._connection.sentence(error)) from None
        finally:
            consumer.close()
        if found is not None:
            self._numbers[partition] = max(self._numbers.get(partition, -1), found.number)
        return found

    def _messages(self, consumer: Consumer, part: TopicPartition, span: tuple[int, int]) -> Iterator[Logged]:
        """The messages of a span of offsets. Raises Unavailable when they do not come."""
        start, high = span
        consumer.assign([TopicPartition(part.topic, part.partition, start)])
        ends_s = clock.monotonic_s() + REQUEST_S
        while True:
            for message in consumer.consume(500, 0.1):
                if message.error() is not None:
                    raise Unavailable(self._connection.sentence(message.error()))
                ends_s = clock.monotonic_s() + REQUEST_S
                if (message.offset() or 0) < high:
                    yield message
            # The last offsets may be marks of transactions, which are not given: the position tells.
            at = consumer.position([part])[0].offset
            if at >= high:
                return
            if clock.monotonic_s() > ends_s:
                raise Unavailable(f"the topic {part.topic} cannot be read to its end")

    def close(self) -> None:
        """Let go of the connection."""
        if self._writer is not None:
            self._writer.close()
