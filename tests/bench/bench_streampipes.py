"""How many events a second the StreamPipes function judges, and how long an event waits for its answer.

    python tests/bench/bench_streampipes.py [events] [a second, for the delay]

The function is a process of its own, the command as a person runs it, and so is nats-server. Kafka is what
listens on the port KAFKA_PORT, else librdkafka's broker in this process, which lets every read wait 100 ms.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from pipes_core import FakeCore  # noqa: E402
from pipes_room import ENV, OUTPUT_TOPIC, Kafka, Nats, events, lake, presses, settings, until  # noqa: E402

# Events sent before the answers to those before are waited for: librdkafka's broker keeps 5 MB.
CHUNK = 10_000


def main(n: int, rate: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name, FakeCore().served() as core:
        folder = Path(name)
        lake(core, 2000, int(time.time() * 1000))
        settings(folder, core.port)
        run(folder, "train", "motor").wait(60)
        for make in (Nats, lambda: Kafka(int(os.environ.get("KAFKA_PORT", 0)))):
            broker = make()
            topic = presses(core, broker)
            got = broker.listen(OUTPUT_TOPIC)
            process = run(folder, "run")
            seen = len(core.seen)
            until(lambda at=seen: len(core.seen) > at + 4, "it registers", 20)
            time.sleep(1.5)
            print(type(broker).__name__, end=": ")
            throughput(broker, topic, got, n)
            delay(broker, topic, got, rate)
            process.terminate()
            process.wait(10)
            broker.close()
            core.streams.clear()


def run(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """The command."""
    command = [sys.executable, "-m", "plexus_detect", "streampipes", *words, "-c", str(folder / "c.yaml")]
    return subprocess.Popen(
        command, env={**os.environ, **ENV, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )


def throughput(broker: Nats | Kafka, topic: str, got: list, n: int) -> None:
    """As many events as there are at once, one in a thousand an anomaly."""
    given = events(5, n, int(time.time() * 1000) - 1000 * n, range(0, n, 1000))
    payloads, before = [json.dumps(event).encode() for event in given], len(got)
    began = time.perf_counter()
    for at in range(0, n, CHUNK):
        broker.send(topic, payloads[at : at + CHUNK])
        until(lambda at=at: len(got) >= before + at - CHUNK, "answers", 60)
    until(lambda: len(got) >= before + n, "all answers", 60)
    print(f"{n / (time.perf_counter() - began):,.0f} events/s", end="; ")


def delay(broker: Nats | Kafka, topic: str, got: list, rate: int) -> None:
    """Events at a steady rate, by the time that each was sent."""
    n, before = 5 * rate, len(got)
    given = events(6, n, int(time.time() * 1000), range(0, n, 1000))
    sent, came = np.zeros(n), np.zeros(n)
    began, seen = time.perf_counter(), 0
    for i, event in enumerate(given):
        event["timestamp"] = int(given[0]["timestamp"]) + i
        while time.perf_counter() < began + i / rate:
            time.sleep(0.0002)
            now = len(got) - before
            came[seen:now], seen = time.perf_counter(), now
        sent[i] = time.perf_counter()
        broker.send(topic, [json.dumps(event).encode()])
    while seen < n:
        now = len(got) - before
        came[seen:now], seen = time.perf_counter(), now
    p50, p99 = np.percentile(1000 * (came - sent), [50, 99])
    print(f"event -> answer at {rate}/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:], "50000", "200")[:2]))
