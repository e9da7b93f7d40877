"""States of partitions in a compacted topic: written in pieces, found again from the end.

Two slots of keys are used in turns, so that a state that was written in part only never displaces the whole
one before it, not even after compaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from plexus_detect.connect.records import Headers, Record

# Below what a broker takes by default in one message, 1 MiB.
PIECE_BYTES = 900_000

SLOTS = 2


class Logged(Protocol):
    """A message as it is read: see ``confluent_kafka.Message``."""

    def value(self) -> bytes | None:
        """Its bytes."""
        ...

    def headers(self) -> Any:  # noqa: ANN401  the client library knows several forms
        """Its headers."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """A state as of ``position``, and which one of its partition it is: each has a greater number."""

    position: int
    number: int
    blob: bytes


def topic_of(group: str, topic: str) -> str:
    """The name of the topic of states."""
    return f"{group}-{topic}-state"


def pieces(topic: str, partition: int, snapshot: Snapshot) -> Iterator[Record]:
    """The records of a state."""
    blob, count = snapshot.blob, max(1, -(-len(snapshot.blob) // PIECE_BYTES))
    for i in range(count):
        headers: Headers = [
            ("position", str(snapshot.position).encode()),
            ("number", str(snapshot.number).encode()),
            ("piece", str(i).encode()),
            ("pieces", str(count).encode()),
        ]
        key = f"state/{snapshot.number % SLOTS}/{i}".encode()
        yield Record(topic, key, blob[i * PIECE_BYTES : (i + 1) * PIECE_BYTES], headers, partition)


def newest(messages: Iterable[Logged], position_max: int | None = None) -> Snapshot | None:
    """The newest whole state, at or before ``position_max`` where that is given; None when there is none."""
    found: dict[tuple[int, int], dict[int, bytes]] = {}
    counts: dict[tuple[int, int], int] = {}
    for message in messages:
        try:
            said = {name: int(value) for name, value in message.headers() or ()}
            of, piece, count = (said["number"], said["position"]), said["piece"], said["pieces"]
        except (KeyError, ValueError, TypeError):
            continue
        # A worker that took over counts on; one that failed meanwhile may have used the same number.
        if piece == 0:
            found.pop(of, None)
        found.setdefault(of, {})[piece] = message.value() or b""
        counts[of] = count
    whole = [of for of, parts in found.items() if len(parts) == counts[of]]
    fit = [of for of in whole if position_max is None or of[1] <= position_max]
    if not fit:
        return None
    number, position = max(fit, key=lambda of: (of[1], of[0]))
    parts = found[number, position]
    return Snapshot(position, number, b"".join(parts[i] for i in sorted(parts)))
