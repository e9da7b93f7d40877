"""The loop between source and sink, with a bus of our own that fails when it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from kafka_drill import QUICK

from plexus_detect.config import Config
from plexus_detect.connect.changelog import Snapshot
from plexus_detect.connect.pipeline import Pipeline, PipelineParams
from plexus_detect.connect.protocol import Progress, Result, Taken, Unavailable
from plexus_detect.connect.report import StreamReport
from plexus_detect.connect.service import engine_params
from plexus_detect.policy import policy_of
from plexus_detect.stream.engine import PartitionEngine
from plexus_detect.stream.messages import Batch

CONFIG = Config.model_validate(
    QUICK | {"source": {"kind": "kafka", "brokers": "b:1"}, "sink": {"kind": "kafka"}}
)
T0_S = 1_790_000_000


class Bus:
    """Source, states and sink in memory. ``fail`` is called before each delivery."""

    def __init__(self, logs: Mapping[int, list[bytes]]) -> None:
        self.logs = logs
        self.at: dict[int, int] = {}
        self.offsets: dict[int, int] = {}
        self.kept: dict[int, list[Snapshot]] = {}
        self.written: list[str] = []
        self.fail: Callable[[], None] = lambda: None
        self.owner: Any = None
        self.trouble = ""
        self.idles: Callable[[], None] = lambda: None

    # -- source

    def subscribe(self) -> None:
        """All partitions are ours at once."""
        self.owner.assigned(sorted(self.logs))

    def take(self, most: int = 7) -> list[Taken]:
        """So many messages of each partition."""
        found = []
        for p, at in self.at.items():
            values = self.logs[p][at : at + most]
            if values:
                n = len(values)
                times = [(T0_S + at + i) * 1000 for i in range(n)]
                found.append(Taken(p, Batch(values, [b"d%d" % p] * n, times, range(at, at + n))))
                self.at[p] = at + n
        return found

    def idle(self, pause_s: float) -> None:
        """Something may happen meanwhile."""
        if pause_s:
            self.idles()

    def resume(self) -> None:
        """Nothing is paused."""

    def committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """The positions."""
        return {p: self.offsets.get(p) for p in partitions}

    def bounds(self, partition: int) -> tuple[int, int]:
        """The whole log."""
        return 0, len(self.logs[partition])

    def begin(self, partition: int, offset: int) -> None:
        """Go there."""
        self.at[partition] = offset

    def lags(self, positions: Mapping[int, int]) -> dict[int, int]:
        """How far each is behind."""
        return {p: len(self.logs[p]) - at for p, at in positions.items()}

    def read(self, partition: int, position_max: int | None) -> Snapshot | None:
        """The newest state that fits."""
        fit = [s for s in self.kept.get(partition, []) if position_max is None or s.position <= position_max]
        return fit[-1] if fit else None

    def close(self, within_s: float = 0) -> None:
        """Leave."""

    def revoke(self, *partitions: int) -> None:
        """Take partitions away."""
        self.owner.revoked(partitions)
        for p in partitions:
            self.at.pop(p, None)

    # -- sink

    def deliver(self, results: Sequence[Result], progress: Progress, source: Any) -> None:
        """Write, unless it fails."""
        self.fail()
        self.written += [alert.id for result in results for alert in result.output.alerts]
        self.offsets.update(progress.positions)
        for p, blob in progress.snapshots.items():
            self.kept.setdefault(p, []).append(Snapshot(progress.positions[p], 0, blob))


def engine(partition: int) -> PartitionEngine:
    return PartitionEngine(policy_of(CONFIG), CONFIG.rule_for, engine_params(CONFIG, partition))


def worker(bus: Bus, **params: Any) -> Pipeline:
    """A worker that has joined."""
    given = {"snapshot_s": 1e9, "stop_s": 0.0, **params}
    pipeline = Pipeline(bus, bus, engine, PipelineParams(**given), StreamReport())  # type: ignore[arg-type]
    pipeline.sink = bus
    bus.subscribe()
    pipeline.turn()
    return pipeline


def drain(pipeline: Pipeline, bus: Bus) -> None:
    for _ in range(50):
        pipeline.turn()
    assert all(bus.offsets[p] == len(bus.logs[p]) for p in bus.at)


def logs(n: int = 100) -> dict[int, list[bytes]]:
    """Two devices with a fault now and then."""

    def row(p: int, i: int) -> bytes:
        value = 20 + (i * 7 % 5) * 0.1 + (30 if i % 23 == 22 + p else 0) + (40 if i % 31 == 30 else 0)
        return json.dumps({"timestamp": T0_S + i, "sensors": {"temperature": value}}).encode()

    return {p: [row(p, i) for i in range(n)] for p in (0, 1)}


def expected(of: Mapping[int, list[bytes]]) -> list[str]:
    bus = Bus(of)
    found = []
    for p, values in of.items():
        bus.at = {p: 0}
        taken = bus.take(len(values))[0]
        found += [alert.id for alert in engine(p).take(taken.batch).alerts]
    assert len(found) > 2
    return sorted(found)


def failing(times: int, **how: bool) -> Callable[[], None]:
    left = [times]

    def fail() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise Unavailable("the brokers are away", **how)

    return fail


@pytest.mark.parametrize("fails_at", [0, 3, 8])
def test_results_that_could_not_be_delivered_are_delivered_again(fails_at: int) -> None:
    """The very same ones, once; nothing is scored twice meanwhile."""
    bus = Bus(logs())
    pipeline = worker(bus)
    for _ in range(fails_at):
        pipeline.turn()
    bus.fail = failing(3)
    drain(pipeline, bus)
    assert sorted(bus.written) == expected(bus.logs)
    assert pipeline.report.undelivered == 3
    assert pipeline.report.messages == 200
    assert pipeline.trouble == ""


def test_a_partition_that_goes_while_results_wait_takes_them_along() -> None:
    """They are another's to write: it begins at the committed position, and in the end all are there once."""
    bus = Bus(logs())
    pipeline = worker(bus)
    for _ in range(4):
        pipeline.turn()
    bus.fail, bus.idles = failing(2), lambda: bus.revoke(1)
    pipeline.turn()
    bus.idles = lambda: None
    assert bus.offsets[0] > bus.offsets[1]
    drain(pipeline, bus)
    other = worker(bus)
    drain(other, bus)
    assert sorted(bus.written) == expected(bus.logs)
    assert other.report.replayed > 0


@pytest.mark.parametrize("turns", [1, 5, 9])
def test_whoever_takes_over_has_the_state_of_the_committed_position(turns: int) -> None:
    """Without a word of the one before: the last kept state, a silent replay, then on."""
    bus = Bus(logs())
    first = worker(bus)
    for _ in range(turns):
        first.turn()
    del first
    second = worker(bus)
    drain(second, bus)
    assert sorted(bus.written) == expected(bus.logs)
    assert second.report.recovery.counts.sum() == 2


def test_who_leaves_in_order_leaves_nothing_to_replay() -> None:
    """The state is kept with the last commit."""
    bus = Bus(logs())
    first = worker(bus)
    first.turn()
    first.stop()
    first.run()
    second = worker(bus)
    drain(second, bus)
    assert second.report.replayed == 0
    assert sorted(bus.written) == expected(bus.logs)


def test_who_is_asked_to_stop_gives_up_what_cannot_be_delivered() -> None:
    """Within the time for that; the results are found again by the next."""
    bus = Bus(logs())
    first = worker(bus)
    first.turn()
    bus.fail = failing(10_000)
    first.stop()
    first.run()
    bus.fail = lambda: None
    drain(worker(bus), bus)
    assert sorted(bus.written) == expected(bus.logs)


def test_a_state_of_other_settings_is_not_used() -> None:
    """What is still in the topic is learned from anew, in silence."""
    bus = Bus(logs())
    first = worker(bus)
    for _ in range(5):
        first.turn()
    for p in bus.kept:
        bus.kept[p] = [Snapshot(s.position, 0, b"of another version") for s in bus.kept[p]]
    before = len(bus.written)
    second = worker(bus, warmup=1000)
    drain(second, bus)
    assert second.report.replayed == 2 * 35
    assert sorted(bus.written) == expected(bus.logs)
    assert len(bus.written) > before


def test_a_group_may_begin_at_the_end_and_learn_from_what_is_before() -> None:
    """Nothing old is told, and the baseline is there."""
    bus = Bus(logs(80))
    pipeline = worker(bus, from_end=True)
    drain(pipeline, bus)
    assert not bus.written
    assert pipeline.report.replayed == 160


def test_a_topic_that_was_made_anew_is_read_anew() -> None:
    """Offsets that go back are not taken for repeats."""
    bus = Bus(logs())
    pipeline = worker(bus)
    drain(pipeline, bus)
    bus.logs = logs(60)
    bus.at = dict.fromkeys(bus.logs, 0)
    before = pipeline.report.messages
    for _ in range(20):
        pipeline.turn()
    assert pipeline.report.messages == before + 120
    assert bus.offsets == {0: 60, 1: 60}


def test_without_transactions_a_state_one_batch_ahead_is_where_to_go_on() -> None:
    """Its results were acknowledged before it was written; only the offsets were not."""
    bus = Bus(logs())
    first = worker(bus, exactly_once=False, snapshot_s=0.0)
    for _ in range(5):
        first.turn()
    bus.offsets = {p: at - 7 for p, at in bus.offsets.items()}
    drain(worker(bus, exactly_once=False), bus)
    assert sorted(bus.written) == expected(bus.logs)
