"""Topics of Kafka as a sink: in one transaction with the offsets, or acknowledged before them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from plexus_detect import clock
from plexus_detect.config import Config
from plexus_detect.connect.protocol import Progress, Result, Source, Unavailable
from plexus_detect.connect.records import Topics, records_of
from plexus_detect.connect.settings import Connection
from plexus_detect.connect.states import States
from plexus_detect.connect.writing import Writer, put
from plexus_detect.errors import PlexusDetectError
from plexus_detect.logs import event

log = logging.getLogger(__name__)

# One attempt of a step of a transaction; a step that can be resumed is, for so long. After that a new
# producer settles what was left open, and the committed positions tell how it ended.
STEP_S, RESUME_S = 2.0, 6.0

# A producer that was fenced so often in so short a time has a twin.
FENCED_MAX, FENCED_SPAN_S = 5, 600.0


class FencedError(PlexusDetectError):
    """Another worker writes under our name: a person must act."""


def topics_of(config: Config) -> Topics:
    """The names of the topics."""
    sink = config.sink
    return Topics(config.source.topic, sink.topic, sink.scores_topic, config.source.dead_letters)


class AcknowledgedSink:
    """Results acknowledged, then states and offsets: at least once. Raises ConfigError."""

    def __init__(self, config: Config, connection: Connection, waiting: Callable[[], None]) -> None:
        self._topics = topics_of(config)
        try:
            self._writer = Writer(Producer(connection.writer("sink")), connection, waiting)
        except KafkaException as error:
            raise connection.refused(error, "sink") from None

    def deliver(self, results: Sequence[Result], progress: Progress, source: Source) -> None:
        """Write, wait, commit. Raises Unavailable."""
        self._writer.write(record for result in results for record in records_of(result, self._topics))
        source.commit(progress)

    def close(self) -> None:
        """Give up what is under way."""
        self._writer.close()


class TransactionalSink:
    """Results, states and offsets in one transaction: exactly once for readers of committed messages.

    ``waiting`` is called while a step takes long, so that we stay in the group; what it raises ends the wait.
    """

    def __init__(
        self, config: Config, connection: Connection, states: States, waiting: Callable[[], None]
    ) -> None:
        self._topics, self._connection, self._states = topics_of(config), connection, states
        self._waiting = waiting
        self._id = config.sink.transactional_id or f"{config.source.group}-{uuid4().hex}"
        self._producer: Producer | None = None
        self._uncertain: Progress | None = None
        self._fenced_s: list[float] = []
        self.aborted = 0

    def deliver(self, results: Sequence[Result], progress: Progress, source: Source) -> None:
        """One transaction. Raises Unavailable when it did not come about, and FencedError."""
        producer = self._ready()
        if self._was_applied(progress, source):
            return
        try:
            producer.begin_transaction()
            for result in results:
                for record in records_of(result, self._topics):
                    put(producer, record)
            for record in self._states.records(progress):
                put(producer, record)
            offsets = [TopicPartition(self._topics.source, p, at) for p, at in progress.positions.items()]
            self._resumed(lambda: producer.send_offsets_to_transaction(offsets, source.member(), STEP_S))
            self._resumed(lambda: producer.commit_transaction(STEP_S))
        except KafkaException as error:
            raise self._failed(error, progress) from None
        except Unavailable:
            self.aborted += 1
            self._give_up(progress)
            raise

    def _resumed(self, step: Callable[[], None]) -> None:
        """Take a step, as often as it can be resumed. Raises Unavailable."""
        ends_s = clock.monotonic_s() + RESUME_S
        while True:
            try:
                step()
                return
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                if clock.monotonic_s() > ends_s:
                    raise Unavailable(self._connection.sentence(error), uncertain=True) from None
                self._waiting()

    def _ready(self) -> Producer:
        """A producer whose earlier transactions are settled. Raises Unavailable and ConfigError."""
        if self._producer is None:
            try:
                producer = Producer(self._connection.writer("sink", self._id))
            except KafkaException as error:
                raise self._connection.refused(error, "sink") from None
            try:
                producer.init_transactions(2 * STEP_S)
            except KafkaException as error:
                raise Unavailable(self._connection.sentence(error)) from None
            self._producer = producer
        return self._producer

    def _was_applied(self, progress: Progress, source: Source) -> bool:
        """Whether the transaction whose end was not seen was committed: then its positions are. Results that
        are delivered again are those of that transaction, or a part of them."""
        if self._uncertain is None:
            return False
        before, now = self._uncertain.positions, progress.positions
        same = all(before.get(p) == at for p, at in now.items())
        found = source.committed(list(now)) if same else {}
        self._uncertain = None
        return same and all((found[p] or 0) >= at for p, at in now.items())

    def _failed(self, error: KafkaException, progress: Progress) -> PlexusDetectError:
        """What follows from an error that ends a transaction."""
        found: KafkaError = error.args[0]
        self.aborted += 1
        text = self._connection.sentence(error)
        event(log, logging.WARNING, "transaction_aborted", err=text)
        if found.txn_requires_abort() and self._producer is not None:
            try:
                self._producer.abort_transaction(STEP_S)
            except KafkaException as second:
                text = self._connection.sentence(second)
            else:
                return Unavailable(text)
        self._give_up(progress)
        now_s = clock.monotonic_s()
        self._fenced_s = [at_s for at_s in self._fenced_s if now_s - at_s < FENCED_SPAN_S] + [now_s]
        fenced = found.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)  # noqa: SLF001 - a code
        if fenced and len(self._fenced_s) > FENCED_MAX:
            return FencedError(
                f"another worker writes as {self._id}; give each worker a sink.transactional_id of its own"
            )
        return Unavailable(text, uncertain=True)

    def _give_up(self, progress: Progress) -> None:
        """Begin with another producer: its start settles what the one before left open."""
        self._uncertain = progress
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

    def close(self) -> None:
        """Give up what is under way."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None
