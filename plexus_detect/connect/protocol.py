"""What every source and every sink of a stream can do, whatever is behind it.

A source gives batches of readings, each with the position that may be committed once its results are safe; a
sink takes results in and returns when they are acknowledged. What may be committed with them goes along, so
that a sink on the same cluster can make both one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from plexus_detect.errors import PlexusDetectError
from plexus_detect.stream.engine import Output
from plexus_detect.stream.messages import Batch


@dataclass(frozen=True)
class Taken:
    """Messages of one partition; ``position`` may be committed once their results are safe."""

    partition: int
    batch: Batch

    @property
    def position(self) -> int:
        """The offset after the last of them."""
        return self.batch.offsets[-1] + 1


@dataclass(frozen=True)
class Result:
    """What came of the messages of one partition."""

    partition: int
    batch: Batch
    output: Output


@dataclass(frozen=True)
class Progress:
    """How far each partition is, and states of some of them at just these positions."""

    positions: Mapping[int, int] = field(default_factory=dict)
    snapshots: Mapping[int, bytes] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.positions)

    def of(self, partitions: set[int]) -> Progress:
        """The part that is of these partitions."""
        return Progress(
            {p: at for p, at in self.positions.items() if p in partitions},
            {p: blob for p, blob in self.snapshots.items() if p in partitions},
        )


class Source(Protocol):
    """Where readings come from."""

    def take(self) -> Sequence[Taken]:
        """The next messages; waits a little for them. Partitions come and go meanwhile."""
        ...

    def commit(self, progress: Progress) -> None:
        """Keep the states, then the positions. Raises Unavailable."""
        ...

    def committed(self, partitions: Sequence[int]) -> Mapping[int, int | None]:
        """The positions that are committed; None where nothing is. Raises Unavailable."""
        ...

    def member(self) -> Any:  # noqa: ANN401  a handle of the client library's own
        """Who we are in the group: with it positions are committed within a transaction."""
        ...


class Sink(Protocol):
    """Where results go."""

    def deliver(self, results: Sequence[Result], progress: Progress, source: Source) -> None:
        """Write results, and commit the progress once they are acknowledged.

        Raises Unavailable when nothing is known to be wrong with the results and the same call may succeed
        later, and other errors of ours when a person must act.
        """
        ...

    def close(self) -> None:
        """Let go of all connections; what is under way is given up."""
        ...


class Unavailable(PlexusDetectError):  # noqa: N818 - not an error of the program
    """The other side does not answer as it should: worth trying again after a while.

    ``uncertain``: the transaction may have been committed nevertheless; the committed positions tell.
    """

    exit_code = 75

    def __init__(self, message: str, *, uncertain: bool = False) -> None:
        super().__init__(message)
        self.uncertain = uncertain
