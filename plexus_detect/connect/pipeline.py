"""Source, engines and sink as one loop: take, score, deliver, commit; a partition comes with its state.

The results of a batch stay in memory until they are acknowledged. A transaction that was aborted is therefore
made again with the same results, and no state has to be taken back; only a partition that went meanwhile is
left out, because whoever has it now begins at the committed position.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from plexus_detect import clock
from plexus_detect.connect.kafka_source import KafkaSource
from plexus_detect.connect.protocol import Progress, Result, Sink, Taken, Unavailable
from plexus_detect.connect.report import StreamReport
from plexus_detect.connect.states import States
from plexus_detect.logs import event
from plexus_detect.stream.engine import PartitionEngine

log = logging.getLogger(__name__)

# Of the time there is to stop, the part after which results that cannot be delivered are given up.
STOP_SHARE = 0.4

# What is left of that time for the rest of the program, and at least for leaving the group.
REST_S, LEAVE_S_MIN = 1.0, 1.0

PAUSE_S, PAUSE_S_MAX = 0.2, 5.0

# How often the figures are brought up to date.
LOOK_S = 0.25

# A state is kept at least after so many messages, so that a replay stays short.
SNAPSHOT_MESSAGES = 100_000


@dataclass
class Part:
    """One partition. ``replay_to``: what is before it was delivered by somebody; ``since``: messages since
    the last kept state; ``committed``: the position that the group knows (None: none)."""

    engine: PartitionEngine
    assigned_s: float
    replay_to: int = 0
    replaying: bool = False
    committed: int | None = None
    since: int = 0
    saved_s: float | None = None


@dataclass(frozen=True)
class PipelineParams:
    """``batch``: messages that are committed together; ``exactly_once``: whether states are in a transaction
    with their positions; ``warmup``: messages to learn from where there is no state; ``from_end``: a group
    without positions begins at the end; ``stop_s``: the time there is to stop."""

    batch: int = 5000
    exactly_once: bool = True
    snapshot_s: float = 30.0
    warmup: int = 100_000
    from_end: bool = False
    stop_s: float = 10.0


@dataclass
class Hooks:
    """Who is told: ``turned`` after every turn of the loop."""

    turned: Callable[[], None] = field(default=lambda: None)


class Pipeline:
    """``engine_of(partition)`` makes an engine that knows nothing; ``sink`` is set before ``run``."""

    def __init__(
        self,
        source: KafkaSource,
        states: States,
        engine_of: Callable[[int], PartitionEngine],
        params: PipelineParams,
        report: StreamReport,
    ) -> None:
        self._source, self._states, self._engine_of = source, states, engine_of
        self._params, self.report = params, report
        self.sink: Sink
        self.hooks = Hooks()
        self._parts: dict[int, Part] = {}
        self._coming: dict[int, float] = {}
        self._delivering = self._handing = False
        self._begin_again_s = self._looked_s = 0.0
        self._stop = threading.Event()
        # When the loop learned that it is to stop.
        self._asked_s: float | None = None
        source.owner = self

    # -- running

    def stop(self) -> None:
        """Ask the loop to end; from any thread."""
        self._stop.set()

    @property
    def trouble(self) -> str:
        """What keeps the worker from its job; empty: nothing."""
        return self.report.trouble or self._source.trouble

    def run(self) -> None:
        """Run until ``stop``: then what is under way is finished, states are kept and the group is left.

        Raises errors that a person must act on.
        """
        self._source.subscribe()
        try:
            while not self._stop.is_set():
                self.turn()
            self._finish()
        finally:
            self._delivering = True
            self._source.close(max(LEAVE_S_MIN, self._ends_s() - REST_S - clock.monotonic_s()))
            self.sink.close()

    def _ends_s(self) -> float:
        """When the process is to have ended."""
        if self._asked_s is None:
            self._asked_s = clock.monotonic_s()
        return self._asked_s + self._params.stop_s

    def turn(self) -> None:
        """Take a batch, score it, deliver its results; give partitions that came their state."""
        taken = self._source.take()
        if self._coming:
            # What was taken was taken by partitions that were here already.
            self._deliver(self._score(taken))
            self._begin_all()
        elif taken or self._due():
            self._deliver(self._score(taken))
        self._look()

    def _score(self, taken: Sequence[Taken]) -> list[Result]:
        began_s = clock.monotonic_s()
        results = [
            self._score_one(one, self._parts[one.partition]) for one in taken if one.partition in self._parts
        ]
        if taken:
            self.report.scoring.add(clock.monotonic_s() - began_s)
        return [result for result in results if result is not None]

    def _score_one(self, taken: Taken, part: Part) -> Result | None:
        batch = taken.batch
        if batch.offsets[0] < part.engine.position:
            self._anew(taken, part)
        known = bisect_left(batch.offsets, part.replay_to) if part.replaying else 0
        if known:
            part.engine.take(batch.take(slice(0, known)), silent=True)
            self.report.replayed += known
            part.since += known
            batch = batch.take(slice(known, None))
        if part.replaying and (len(batch) or part.engine.position >= part.replay_to):
            self._recovered(taken.partition, part)
        if not len(batch):
            return None
        output = part.engine.take(batch)
        part.since += len(batch)
        self.report.scored(output)
        return Result(taken.partition, batch, output)

    def _anew(self, taken: Taken, part: Part) -> None:
        """The log does not reach to where we were: the topic was made anew, or lost its end."""
        at, was = taken.batch.offsets[0], part.engine.position
        event(log, logging.WARNING, "offsets_went_back", partition=taken.partition, position=at, was=was)
        part.engine = self._engine_of(taken.partition)
        part.engine.position = part.replay_to = at

    def _recovered(self, partition: int, part: Part) -> None:
        part.replaying = False
        took_s = clock.monotonic_s() - part.assigned_s
        self.report.recovery.add(took_s)
        event(
            log,
            logging.INFO,
            "partition_ready",
            partition=partition,
            position=part.replay_to,
            s=round(took_s, 3),
        )

    # -- delivering

    def _due(self, *, all_: bool = False) -> set[int]:
        """Partitions whose state is to be kept with the next commit."""
        now_s, due = clock.monotonic_s(), set()
        for partition, part in self._parts.items():
            if part.replaying or not (part.since or part.committed is None):
                continue
            old = part.saved_s is None or now_s - part.saved_s >= self._params.snapshot_s
            if all_ or old or part.since >= SNAPSHOT_MESSAGES:
                due.add(partition)
        return due

    def _progress(self, due: set[int]) -> Progress:
        """What is to be committed: positions that moved, and the states that are due."""
        positions, snapshots = {}, {}
        for partition, part in self._parts.items():
            if part.replaying:
                continue
            if part.engine.position != part.committed or partition in due:
                positions[partition] = part.engine.position
            if partition in due:
                snapshots[partition] = part.engine.dump()
        return Progress(positions, snapshots)

    def _deliver(self, results: list[Result], *, all_: bool = False) -> bool:
        """Deliver results and commit, as often as it takes; False when the time to stop came first."""
        progress = self._progress(self._due(all_=all_))
        pause_s, began_s = PAUSE_S, clock.monotonic_s()
        while progress:
            try:
                self._delivering = True
                self.sink.deliver(results, progress, self._source)
            except Unavailable as error:
                self._missed(error)
                if self._too_late():
                    return False
                self._source.idle(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
                left = set(self._parts)
                progress = progress.of(left)
                results = [result for result in results if result.partition in left]
            else:
                self._delivered(results, progress, began_s)
                break
            finally:
                self._delivering = False
        self._source.resume()
        return True

    def _delivered(self, results: list[Result], progress: Progress, began_s: float) -> None:
        now_s = clock.monotonic_s()
        self.report.trouble = ""
        for partition, at in progress.positions.items():
            # A partition may have gone while its results were acknowledged.
            if partition in self._parts:
                self._parts[partition].committed = at
        for partition, blob in progress.snapshots.items():
            self.report.snapshots += 1
            self.report.snapshot_bytes = len(blob)
            if partition in self._parts:
                self._parts[partition].saved_s, self._parts[partition].since = now_s, 0
        if results:
            self.report.batches += 1
            self.report.delivering.add(now_s - began_s)
            ages = [clock.now_ms() - np.asarray(result.batch.broker_ms) for result in results]
            self.report.delay.add(np.concatenate(ages) / 1000)

    def _missed(self, error: Unavailable) -> None:
        self.report.undelivered += 1
        self.report.aborted = getattr(self.sink, "aborted", 0)
        if self.report.trouble != str(error):
            self.report.trouble = str(error)
            event(log, logging.WARNING, "delivery_failed", err=str(error), msg="it is tried again")
        self.hooks.turned()

    def waiting(self) -> None:
        """Stay in the group while a step of a delivery takes long. Raises Unavailable when it is time to
        stop."""
        self._look()
        if self._handing or self._too_late():
            raise Unavailable("there is no time to wait for the brokers", uncertain=True)
        self._source.idle(PAUSE_S)

    def _too_late(self) -> bool:
        if not self._stop.is_set():
            return False
        return clock.monotonic_s() > self._ends_s() - (1 - STOP_SHARE) * self._params.stop_s

    def _finish(self) -> None:
        """Keep every state that changed, so that whoever takes over has nothing to replay."""
        self._too_late()
        self._deliver([], all_=True)

    # -- partitions that come and go

    def assigned(self, partitions: Sequence[int]) -> None:
        """They get their state once the call that told of them has ended."""
        if partitions:
            self.report.rebalances["assigned"] += len(partitions)
            event(log, logging.INFO, "partitions_assigned", n=len(partitions), partitions=sorted(partitions))
        self._coming.update(dict.fromkeys(partitions, clock.monotonic_s()))

    def revoked(self, partitions: Sequence[int]) -> None:
        """Keep their states, if nothing is under way, and let them go."""
        mine = [p for p in partitions if p in self._parts]
        if mine:
            self.report.rebalances["revoked"] += len(mine)
            event(log, logging.INFO, "partitions_revoked", n=len(mine), partitions=sorted(mine))
        if not self._delivering:
            self._hand_over(set(mine))
        self._drop(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        """Somebody else has them: what we know of them is worth nothing."""
        mine = [p for p in partitions if p in self._parts]
        self.report.rebalances["lost"] += len(mine)
        if mine:
            event(log, logging.WARNING, "partitions_lost", n=len(mine), partitions=sorted(mine))
        self._drop(partitions)

    def _hand_over(self, partitions: set[int]) -> None:
        """One attempt to keep their states; without it the next owner replays a little more."""
        progress = self._progress(self._due(all_=True) & partitions).of(partitions)
        if not progress.snapshots:
            return
        try:
            self._delivering = self._handing = True
            self.sink.deliver([], progress, self._source)
        except Unavailable as error:
            event(log, logging.INFO, "state_not_kept", err=str(error))
        finally:
            self._delivering = self._handing = False

    def _drop(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._parts.pop(partition, None)
            self._coming.pop(partition, None)

    def _begin_all(self) -> None:
        """Give the partitions that came their states, and read them from there."""
        if clock.monotonic_s() < self._begin_again_s:
            return
        self._source.idle(0)
        try:
            for partition, position in self._source.committed(sorted(self._coming)).items():
                self._begin(partition, position)
            self.report.trouble = ""
        except Unavailable as error:
            # Perhaps one who was killed left a transaction open: the others go on until it has timed out.
            self._missed(error)
            self._begin_again_s = clock.monotonic_s() + PAUSE_S
        self._source.resume()

    def _begin(self, partition: int, committed: int | None) -> None:
        """Find the state of a partition. Raises Unavailable."""
        engine = self._engine_of(partition)
        part = Part(engine, self._coming[partition], committed=committed)
        low, high = self._source.bounds(partition)
        snapshot = None
        if committed is not None:
            # Without transactions a state may be one batch ahead; further ahead it is from before a reset.
            ahead = 0 if self._params.exactly_once else self._params.batch
            snapshot = self._states.read(partition, committed + ahead)
        unfit = "" if snapshot is None else engine.load(snapshot.blob) or ""
        if unfit:
            event(log, logging.WARNING, "state_unfit", partition=partition, why=unfit)
        if snapshot is not None and not unfit:
            engine.position = snapshot.position
            part.replay_to, part.saved_s = max(committed or 0, snapshot.position), clock.monotonic_s()
        else:
            part.replay_to = committed if committed is not None else high if self._params.from_end else low
            # Messages that are gone cannot be learned from.
            engine.position = max(low, part.replay_to - self._params.warmup)
            engine.position = min(engine.position, part.replay_to)
        at = max(engine.position, low)
        self._source.begin(partition, at)
        part.replaying = at < part.replay_to
        del self._coming[partition]
        self._parts[partition] = part
        if not part.replaying:
            engine.position = max(at, part.replay_to)
            self._recovered(partition, part)

    # -- being seen

    def _look(self) -> None:
        report, now_s = self.report, clock.monotonic_s()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        positions = {partition: part.engine.position for partition, part in self._parts.items()}
        report.partitions, report.lags = len(positions), self._source.lags(positions)
        report.replaying = sum(part.replaying for part in self._parts.values()) + len(self._coming)
        report.series = sum(part.engine.series_count for part in self._parts.values())
        report.aborted = getattr(self.sink, "aborted", 0)
        self.hooks.turned()
