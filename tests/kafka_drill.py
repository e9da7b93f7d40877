"""A drill: three workers share a topic; one is killed, one is added, the broker's door is shut for a while.

What they ought to have written is found by one engine for each partition over the same messages, without any
of that.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from kafka_house import House, Process, config_file, until

from plexus_detect.config import Config, load_config
from plexus_detect.connect.service import engine_params
from plexus_detect.policy import policy_of
from plexus_detect.stream.engine import PartitionEngine
from plexus_detect.stream.messages import Batch

TOPIC = "sensor-readings"
PARTITIONS, DEVICES = 12, 48

QUICK: dict[str, Any] = {
    "detect": {"detector": "zscore", "consecutive": 1},
    "fleet": {"enabled": False},
    "health": {"listen": "off", "stop_within": "8s"},
}


def readings(n: int, seed: int, ends_s: float) -> Iterator[tuple[int, bytes, bytes]]:
    """(partition, key, value) of n readings in order of time, a second apart for each device; few are odd."""
    rng = random.Random(seed)
    rounds = -(-n // DEVICES)
    for i in range(n):
        turn, device = divmod(i, DEVICES)
        value = rng.gauss(20, 1) + (25 if rng.random() < 0.004 else 0)
        said = {
            "timestamp": round(ends_s - (rounds - turn), 3),
            "sample_index": turn,
            "sensors": {"temperature": round(value, 4), "pressure": round(rng.gauss(5, 0.1), 4)},
        }
        yield device % PARTITIONS, b"device-%d" % device, json.dumps(said).encode()


@dataclass
class Drill:
    """What is done, in seconds after the workers have begun; ``outcome`` says how it went."""

    house: House
    folder: Path
    readings: int
    feed_s: float
    transactions: bool
    kill_at_s: float
    add_at_s: float
    cut_at_s: float
    cut_s: float = 1.0
    kills: int = 0
    seed: int = 7
    workers: list[Process] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)

    def config(self) -> Path:
        """The configuration of the workers, in a file."""
        name = f"worker-{len(self.workers)}"
        return config_file(
            self.folder / f"{name}.json",
            self.house.brokers,
            source={
                "batch": 500,
                "linger": "20ms",
                "snapshot_interval": "2s",
                "options": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 1000},
            },
            sink={
                "transactions": self.transactions,
                "transactional_id": name,
                "options": {"compression.type": "none"},
            },
            **QUICK,
        )

    def start(self) -> Process:
        """Another worker."""
        worker = Process(self.config(), self.folder / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def run(self) -> None:
        """The whole drill; asserts nothing but that it comes to its end."""
        self.house.topic(TOPIC, PARTITIONS)
        self.house.topic("anomaly-alerts", 3)
        began = time.monotonic()
        for _ in range(3):
            self.start()
        feeding = threading.Thread(target=self._feed)
        feeding.start()
        until(lambda: all("partition_ready" in w.text() for w in self.workers), 30)
        ready = time.monotonic()
        for at, act in sorted(
            [(self.kill_at_s, self._kill), (self.add_at_s, self._add), (self.cut_at_s, self._cut)],
            key=lambda step: step[0],
        ):
            time.sleep(max(0.0, ready + at - time.monotonic()))
            act()
        for _ in range(self.kills):
            # Whoever is there for longest, at any moment: now and then in the middle of a transaction.
            time.sleep(random.uniform(2.0, 4.0))
            self._kill()
            self.start()
        feeding.join()
        fed = time.monotonic()
        until(self._caught_up, 60, 0.1)
        self.outcome["caught_up_s"] = round(time.monotonic() - fed, 2)
        ended = time.monotonic()
        left = [w for w in self.workers if w.process.poll() is None]
        for worker in left:
            worker.process.terminate()
        self.outcome["exit_codes"] = [w.process.wait(15) for w in left]
        self.outcome["stop_s"] = round(time.monotonic() - ended, 2)
        self.outcome["whole_s"] = round(time.monotonic() - began, 2)
        self._figures()

    def _feed(self) -> None:
        rows = list(readings(self.readings, self.seed, time.time()))
        steps = max(1, int(self.feed_s / 0.25))
        began = time.monotonic()
        for i in range(steps):
            part = rows[len(rows) * i // steps : len(rows) * (i + 1) // steps]
            self.house.produce(TOPIC, part)
            time.sleep(max(0.0, began + (i + 1) * self.feed_s / steps - time.monotonic()))

    def _kill(self) -> None:
        """Kill whoever is there for longest. A broker ends a transaction that was left open when it
        times out; tansu never does, and holds back what others commit: so it is told to."""
        i = next(i for i, w in enumerate(self.workers) if w.process.poll() is None)
        self.workers[i].kill()
        settings = {"bootstrap.servers": self.house.brokers, "transactional.id": f"worker-{i}"}
        ending = Producer({**settings, "metadata.recovery.strategy": "none", "log_level": 0})
        ending.init_transactions(10)

    def _add(self) -> None:
        self.start()

    def _cut(self) -> None:
        self.house.door.shut()
        time.sleep(self.cut_s)
        self.house.door.open()

    def _caught_up(self) -> bool:
        """Whether the group has committed the end of every partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.house.brokers, "group.id": "plexus-detect", "log_level": 0}
        )
        try:
            parts = [TopicPartition(TOPIC, p) for p in range(PARTITIONS)]
            ends = self.house.ends(TOPIC)
            lags = [max(0, ends[p.partition] - max(0, p.offset)) for p in consumer.committed(parts, 5)]
        finally:
            consumer.close()
        self.outcome["lag_max"] = max(sum(lags), self.outcome.get("lag_max", 0))
        return sum(lags) == 0

    def _figures(self) -> None:
        text = "".join(w.text() for w in self.workers)
        recoveries = [float(s) for s in re.findall(r"event=partition_ready .* s=([\d.]+)", text)]
        self.outcome["recoveries"] = len(recoveries)
        self.outcome["recovery_s_median"] = round(statistics.median(recoveries), 3)
        self.outcome["recovery_s_max"] = max(recoveries)
        self.outcome["aborted"] = text.count("event=transaction_aborted")

    def expected(self) -> Counter[str]:
        """The ids of the alerts of undisturbed engines over the same messages."""
        config = load_config([self.folder / "worker-0.json"], {})
        found: Counter[str] = Counter()
        for partition, batch in sorted(log_of(self.house, TOPIC, PARTITIONS).items()):
            engine = engine_for(config, partition)
            found.update(alert.id for alert in engine.take(batch).alerts)
        return found

    def written(self) -> Counter[str]:
        """The ids of the alerts that the workers wrote."""
        return Counter(id_ for id_, _alert in self.house.alerts())


def engine_for(config: Config, partition: int) -> PartitionEngine:
    return PartitionEngine(policy_of(config), config.rule_for, engine_params(config, partition))


def log_of(house: House, topic: str, partitions: int) -> dict[int, Batch]:
    """All messages of a topic by partition."""
    consumer = Consumer({"bootstrap.servers": house.brokers, "group.id": "reader", "log_level": 0})
    found: dict[int, list[Any]] = {p: [] for p in range(partitions)}
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in found])
        left = sum(house.ends(topic).values())
        while left:
            for message in consumer.consume(10_000, 0.2):
                assert message.error() is None, message.error()
                found[message.partition()].append(message)
                left -= 1
    finally:
        consumer.close()
    return {
        p: Batch(
            [m.value() for m in of],
            [m.key() for m in of],
            [m.timestamp()[1] for m in of],
            [m.offset() for m in of],
        )
        for p, of in found.items()
    }
