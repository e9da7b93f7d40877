"""A topic of Kafka as a source: a member of a consumer group, its partitions and their kept states.

Partitions are assigned cooperatively: when a worker comes or goes only the partitions that move stop, the
others go on with the state that they have in memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from plexus_detect import clock
from plexus_detect.config import SourceConfig
from plexus_detect.connect.protocol import Progress, Taken, Unavailable
from plexus_detect.connect.settings import Connection, is_trouble
from plexus_detect.connect.states import States
from plexus_detect.logs import event
from plexus_detect.stream.messages import Batch

log = logging.getLogger(__name__)

# One request to a broker; what fails in that time is tried again later.
REQUEST_S = 10.0

# Positions within a transaction that is still open are not told before it ends.
COMMITTED_S = 2.0

# A commit by itself.
COMMIT_S = 3.0

# While something is wrong the brokers are asked so often whether it still is.
PROBE_EVERY_S, PROBE_S = 2.0, 1.0

# A partition that has just been assigned cannot be sought before its fetcher runs.
SEEK_S_MAX = 10.0


class Owner(Protocol):
    """Who is told of partitions that come and go, from within ``take`` and ``idle``."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """These are ours from now on; nothing of them is read before ``begin``."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """These go to another worker after this call."""
        ...

    def lost(self, partitions: Sequence[int]) -> None:
        """These are another's already."""
        ...


class KafkaSource:
    """Reads ``config.topic`` as a member of its group. ``owner`` has to be set before the first ``take``.

    Raises ConfigError when the client library refuses the settings.
    """

    def __init__(self, config: SourceConfig, connection: Connection, states: States) -> None:
        self._config, self._connection, self._states = config, connection, states
        self.owner: Owner | None = None
        self.paused = False
        # Why the brokers cannot be reached, for as long as that is so; and what is odd about a partition.
        self.trouble = ""
        self._mine: set[int] = set()
        self._held: set[int] = set()
        self._said = ""
        self._probed_s = 0.0
        try:
            self._consumer = Consumer({**connection.group(), "error_cb": self._on_error})
        except KafkaException as error:
            raise connection.refused(error, "source") from None

    def subscribe(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            [self._config.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    # -- reading

    def take(self) -> list[Taken]:
        """The next messages by partition; waits up to ``source.linger`` for a batch to fill."""
        messages = self._consume(self._config.batch, self._config.linger_ms / 1000)
        found: dict[int, list[Message]] = {}
        for message in messages:
            if message.error() is not None:
                self._odd(message)
                continue
            partition = message.partition()
            if partition in self._mine and partition not in self._held:
                found.setdefault(partition, []).append(message)
        if found:
            self._well()
        elif self.trouble:
            self._probe()
        return [_taken(partition, of) for partition, of in found.items()]

    def _probe(self) -> None:
        """Ask whether the brokers answer again: in a quiet topic nothing else would tell."""
        now_s = clock.monotonic_s()
        if now_s - self._probed_s < PROBE_EVERY_S:
            return
        self._probed_s = now_s
        try:
            topic = self._consumer.list_topics(self._config.topic, PROBE_S).topics[self._config.topic]
        except KafkaException:
            return
        if topic.error is None:
            self._well()

    def idle(self, pause_s: float) -> None:
        """Let time pass in the group: partitions come and go, and no messages are given."""
        self._pause()
        ends_s = clock.monotonic_s() + pause_s
        while (left_s := ends_s - clock.monotonic_s()) > 0:
            # What was fetched before the pause is given up, and fetched again when it ends.
            self._consume(1, min(left_s, 0.2))

    def resume(self) -> None:
        """Go on reading after ``idle``."""
        if self.paused:
            self.paused = False
            self._consumer.resume(self._parts(self._mine - self._held))

    def _pause(self) -> None:
        if not self.paused:
            self.paused = True
            self._consumer.pause(self._parts(self._mine))

    def _consume(self, most: int, timeout_s: float) -> list[Message]:
        try:
            found: list[Message] = self._consumer.consume(most, timeout_s)
        except KafkaException as error:
            self._trouble(error)
            return []
        return found

    def begin(self, partition: int, offset: int) -> None:
        """Read a partition that was assigned from this offset on. Raises Unavailable."""
        part = TopicPartition(self._config.topic, partition, offset)
        ends_s = clock.monotonic_s() + SEEK_S_MAX
        while True:
            try:
                self._consumer.seek(part)
                break
            except KafkaException as error:
                if clock.monotonic_s() > ends_s:
                    raise Unavailable(self._connection.sentence(error)) from None
                clock.block_s(0.02)
        self._held.discard(partition)
        if not self.paused:
            self._consumer.resume([TopicPartition(self._config.topic, partition)])

    # -- positions

    def committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """The committed positions; waits until those within transactions are settled. Raises Unavailable."""
        if not partitions:
            return {}
        try:
            found = self._consumer.committed(self._parts(partitions), COMMITTED_S)
        except KafkaException as error:
            raise Unavailable(self._connection.sentence(error)) from None
        for part in found:
            if part.error is not None:
                raise Unavailable(self._connection.sentence(part.error))
        return {part.partition: part.offset if part.offset >= 0 else None for part in found}

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that there is, and the end. Raises Unavailable."""
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._config.topic, partition), REQUEST_S
            )
        except KafkaException as error:
            raise Unavailable(self._connection.sentence(error)) from None
        return low, high

    def commit(self, progress: Progress) -> None:
        """Keep the states, then the positions. Raises Unavailable."""
        self._states.write(progress)
        parts = [TopicPartition(self._config.topic, p, at) for p, at in progress.positions.items()]
        for part in self._committing(parts):
            if part.error is not None:
                raise Unavailable(self._connection.sentence(part.error))

    def _committing(self, parts: list[TopicPartition]) -> list[TopicPartition]:
        """Commit, for a bounded time: the library waits for a coordinator for as long as it takes."""
        answers: list[list[TopicPartition] | KafkaException] = []

        def commit() -> None:
            try:
                answers.append(self._consumer.commit(offsets=parts, asynchronous=False) or [])
            except KafkaException as error:
                answers.append(error)

        thread = threading.Thread(target=commit, daemon=True)
        thread.start()
        thread.join(COMMIT_S)
        if not answers:
            raise Unavailable("the group's coordinator does not answer")
        if isinstance(answers[0], KafkaException):
            raise Unavailable(self._connection.sentence(answers[0]))
        return answers[0]

    def member(self) -> Any:  # noqa: ANN401  a handle of the client library's own
        """Our membership, for positions within a transaction."""
        return self._consumer.consumer_group_metadata()

    def lags(self, positions: Mapping[int, int]) -> dict[int, int]:
        """How many messages each partition is behind its end, as the broker told with the last fetch."""
        lags = {}
        for partition, at in positions.items():
            part = TopicPartition(self._config.topic, partition)
            try:
                _low, high = self._consumer.get_watermark_offsets(part, cached=True)
            except KafkaException:
                continue
            if high >= 0:
                lags[partition] = max(0, high - at)
        return lags

    def close(self, within_s: float) -> None:
        """Leave the group, or after that time be missed by it."""
        thread = threading.Thread(target=self._consumer.close, daemon=True)
        thread.start()
        thread.join(within_s)

    # -- what the client library tells

    def _on_assign(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        numbers = [part.partition for part in parts]
        # Where to begin is known once the state is found; until then nothing may be read.
        consumer.incremental_assign(
            [TopicPartition(part.topic, part.partition, OFFSET_BEGINNING) for part in parts]
        )
        if parts:
            consumer.pause(parts)
        self._mine |= set(numbers)
        self._held |= set(numbers)
        self._well()
        if self.owner is not None:
            self.owner.assigned(numbers)

    def _on_revoke(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        numbers = [part.partition for part in parts]
        if self.owner is not None:
            self.owner.revoked(numbers)
        self._gone(consumer, parts)

    def _on_lost(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        if self.owner is not None:
            self.owner.lost([part.partition for part in parts])
        self._gone(consumer, parts)

    def _gone(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        numbers = {part.partition for part in parts}
        self._mine -= numbers
        self._held -= numbers
        consumer.incremental_unassign(parts)

    def _on_error(self, error: KafkaError) -> None:
        if is_trouble(error):
            self._trouble(error)

    def _odd(self, message: Message) -> None:
        self._trouble(message.error())

    def _trouble(self, error: object) -> None:
        """Note that something does not work; it is told once."""
        self.trouble = self._connection.sentence(error)
        if self.trouble != self._said:
            self._said = self.trouble
            event(log, logging.WARNING, "bus_trouble", err=self.trouble, msg="it is tried again")

    def _well(self) -> None:
        if self.trouble:
            event(log, logging.INFO, "bus_well")
        self.trouble = self._said = ""

    def _parts(self, partitions: Sequence[int] | set[int]) -> list[TopicPartition]:
        return [TopicPartition(self._config.topic, partition) for partition in sorted(partitions)]


def _taken(partition: int, messages: list[Message]) -> Taken:
    """The messages of one partition as columns."""
    values: list[bytes | None] = [message.value() for message in messages]
    keys: list[bytes | None] = [message.key() for message in messages]
    offsets: list[Any] = [message.offset() for message in messages]
    return Taken(partition, Batch(values, keys, [message.timestamp()[1] for message in messages], offsets))
