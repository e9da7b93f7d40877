"""Kafka and NATS as a stream's grounding names them: events in by the batch, results out and acknowledged.

The client's own consumers and publishers give up with the first error or wait for ever; these say that a
broker is lost, and whoever drives them begins anew.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from streampipes.functions.broker import Consumer, Publisher

from plexus_detect.errors import TransientError

# How long a broker may take for anything before it counts as lost.
ANSWER_S = 5.0

# How long a read waits for a first event: a stop is noticed by then.
IDLE_S = 0.25


class BrokerLostError(TransientError):
    """The broker is away, or was reached and is no more."""


class Result(NamedTuple):
    """An event to publish, and its device: results of one device stay in order."""

    device: str
    payload: bytes


@dataclass(frozen=True)
class Reach:
    """How a broker is reached: another host and port than the grounding's, where they are given; ``group``
    is the name under which Kafka keeps positions in topics. ``positions`` are those by topic and partition up
    to which events were judged: their results may still wait, so they are not read again in this process."""

    host: str = ""
    port: int | None = None
    group: str = "plexus-detect"
    positions: dict[str, dict[int, int]] = field(default_factory=dict)


class Inlet(Consumer):
    """A consumer of the client that is read by the batch."""

    @abstractmethod
    async def receive(self, most: int, linger_s: float) -> list[bytes]:
        """Up to ``most`` events: those that come within ``linger_s`` of the first; none when none came for a
        while. Raises BrokerLostError."""

    def left(self) -> list[bytes]:
        """What came and was not received; no broker gives it again."""
        return []

    def judged(self) -> None:
        """What was received is judged: a later connection begins after it."""

    async def commit(self) -> None:
        """The results of what was received are published. Raises BrokerLostError."""

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
