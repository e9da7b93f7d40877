"""A whole tick without the network: decode, advance, evaluate, pack, encode, gzip.

The same pages go through our tick and, alternating, through the public tutorial's way (json, a loop, a deque
a series, json out), in one process. Printed are CPU times of the stages and new points a CPU-second, as
medians, for a few shapes of fleet. Run with ``python tests/bench/bench_tick.py [rounds]``; the exit code is 1
when the plain shape is below its target.
"""

from __future__ import annotations

import json
import math
import sys
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np

from plexus_detect import outbox
from plexus_detect.cursor import PollParams, Query, advance
from plexus_detect.evaluate import Policy, Rule, evaluate
from plexus_detect.fleet import FleetParams
from plexus_detect.running import Running
from plexus_detect.wire import decode_telemetry

try:
    from isal import igzip_lib
except ImportError:
    igzip_lib = None

START = datetime(2026, 11, 22, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
RATE_MIN = 600_000.0
POLL = PollParams(overlap_ms=1_000)


@dataclass(frozen=True)
class Shape:
    """``sources`` x ``metrics`` series at 1 Hz, polled every ``seconds``."""

    name: str
    sources: int
    metrics: int
    seconds: int
    fleet: bool

    def page(self, tick: int) -> bytes:
        """The answer to a poll: ``seconds`` new samples of every series and one that was read before."""
        data = []
        for second in range(tick * self.seconds - 1, (tick + 1) * self.seconds):
            # A sample has the same value whenever it is read.
            rng = np.random.default_rng(second + 1)
            noise = rng.normal(0.0, 0.1, (self.sources, self.metrics)).round(4)
            for s in range(self.sources):
                at = (START + timedelta(seconds=second, milliseconds=s % 1000)).replace(tzinfo=None)
                stamp = at.isoformat(sep=" ", timespec="milliseconds")
                data += [
                    {
                        "org_id": "org_a",
                        "source_id": f"device-{s:05d}",
                        "metric": f"metric_{m:02d}",
                        "value": 20.0 + m + noise[s, m],
                        "timestamp": stamp,
                    }
                    for m in range(self.metrics)
                ]
        return json.dumps({"data": data, "count": len(data), "query": {}}, separators=(",", ":")).encode()


@dataclass
class Ours:
    """Our tick, with the CPU seconds of each stage of the last one."""

    shape: Shape
    stages: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rule = Rule(fleet=FleetParams() if self.shape.fleet else None)
        self.running = Running(Policy((rule,)), POLL, lambda _source, _metric: 0)

    def _done(self, stage: str) -> None:
        now = time.process_time()
        self.stages[stage], self._mark = now - self._mark, now

    def tick(self, page: bytes, number: int) -> int:
        """One tick; returns the number of new points."""
        running, self._mark = self.running, time.process_time()
        points = decode_telemetry(page, running.table).points
        self._done("decode")
        running.admit_new(0)
        now_ms = START_MS + 1000 * (number + 1) * self.shape.seconds
        query = Query(None, (), 0, None, 10**6, np.arange(len(running.table)))
        self._done("admit")
        taken = advance(running.cursors, query, points, now_ms, POLL).points
        self._done("advance")
        derived = evaluate(running.state, taken, now_ms + 3_000).derived
        self._done("evaluate")
        batches = outbox.pack(derived, 10_000)
        self._done("pack")
        bodies = [outbox.body(batch, running.table.keys) for batch in batches]
        self._done("encode")
        for body in bodies:
            zlib.compress(body, 1)
        self._done("zlib-1")
        if igzip_lib is not None:
            for body in bodies:
                igzip_lib.compress(body, 1)
        self._done("isal")
        return len(taken)


def tutorial(page: bytes, windows: dict[tuple[str, str], deque[float]]) -> int:
    """The same work as the public tutorial does it, but with one page for all series."""
    scores = []
    for row in json.loads(page)["data"]:
        samples = windows.setdefault((row["source_id"], row["metric"]), deque(maxlen=15))
        samples.append(float(row["value"]))
        values = list(samples)
        mean = sum(values) / len(values)
        std = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
        z = 0.0 if len(values) < 5 or std < 0.01 else (values[-1] - mean) / std
        scores.append({"source_id": row["source_id"], "metric": row["metric"] + ".zscore", "value": z})
    zlib.compress(json.dumps({"points": scores}).encode(), 1)
    return len(scores)


def measure(shape: Shape, rounds: int) -> float:
    """Print one shape; returns new points a CPU-second with the faster gzip."""
    ours, windows = Ours(shape), {}
    for number in range(max(3, 40 // shape.seconds)):
        ours.tick(shape.page(number), number)
    stages: dict[str, list[float]] = {}
    rates, plain = [], []
    for number in range(max(3, 40 // shape.seconds), max(3, 40 // shape.seconds) + rounds):
        page = shape.page(number)
        new = ours.tick(page, number)
        for name, cpu in ours.stages.items():
            stages.setdefault(name, []).append(cpu / new * 1e6)
        slower = "zlib-1" if igzip_lib is not None else "isal"
        rates.append(new / sum(cpu for name, cpu in ours.stages.items() if name != slower))
        start = time.process_time()
        tutorial(page, windows)
        plain.append(new / (time.process_time() - start))
    cost = "  ".join(f"{name} {median(cpu):.2f}" for name, cpu in stages.items())
    ratio = median(a / b for a, b in zip(rates, plain, strict=True))
    print(f"{shape.name}: {median(rates) / 1e6:.3f} M new points/cpu-s, {ratio:.1f} x the tutorial's way")
    print(f"    us a new point: {cost}")
    return median(rates)


def main(rounds: int = 5) -> int:
    """Print all shapes; 1 when the first is below its target."""
    shapes = (
        Shape("200 x 50 series, 10 new points each", 200, 50, 10, fleet=False),
        Shape("the same, with fleets", 200, 50, 10, fleet=True),
        Shape("10,000 x 1 series with a fleet, 10 new points each", 10_000, 1, 10, fleet=True),
        Shape("200 x 50 series with fleets, 1 new point each", 200, 50, 1, fleet=True),
    )
    return int(min([measure(shape, rounds) for shape in shapes][:1]) < RATE_MIN)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
