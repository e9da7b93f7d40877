"""The server over loopback: rates, waiting during a retrain, and memory of a detector.

For every backend asked for (by default ecod, hbos, loda and isolation_forest), raw (three columns) and with
rolling features (windows 10, 60, 300 and lags 1, 5, 10), with a window of 3600 rows that is full: points per
second one a request and in batches of 100; the 50th and 99th percentile of single requests without a retrain,
and of those from the one that asks for a fit to the one that finds the new model in its place; and how much
the server's memory grows by a detector of 1000 rows. Quiet and busy requests alternate between two detectors
of one server, and the ratio is the median of those of the rounds, so that what else the machine does concerns
both and not one. Run with ``python tests/bench/bench_serve.py [backend ...]``; the exit code is 1 when the
99th percentile during a retrain is more than twice that without.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

COLUMNS = ("temperature", "humidity", "pressure")
ROLLING = {"rolling_windows": [10, 60, 300], "include_lags": True, "lag_periods": [1, 5, 10]}
BACKENDS = ("ecod", "hbos", "loda", "isolation_forest")
WINDOW, INTERVAL, BATCH = 3600, 500, 100
PATH = "/v1/ml/anomaly/stream"
WAITING_MAX = 2.0
# Rounds of quiet and busy requests, and so many of each a round; rows of a detector whose memory is measured.
ROUNDS, SINGLES, BATCHES = 7, 500, 20
MEMORY_ROWS, MEMORY_DETECTORS = 1000, 10
SERVE = "from plexus_detect.serve.command import serve; serve()"


def values(n: int, seed: int) -> list[dict[str, float]]:
    """Rows of three sensors."""
    x = np.random.default_rng(seed).normal((72.0, 45.0, 1013.0), (2.0, 3.0, 2.0), (n, 3))
    return [dict(zip(COLUMNS, row, strict=True)) for row in x.tolist()]


class Client:
    """One connection to a server, and the process of that."""

    def __init__(self, host: str, pid: int) -> None:
        self.pid = pid
        self._connection = http.client.HTTPConnection(host, timeout=300.0)

    def post(self, body: bytes) -> tuple[float, dict[str, Any]]:
        """Seconds until the answer, and the answer."""
        began = time.perf_counter()
        self._connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        raw = answer.read()
        took = time.perf_counter() - began
        assert answer.status == 200, raw
        return took, json.loads(raw)

    def feed(self, model: str, rows: list[dict[str, float]], **fields: Any) -> dict[str, Any]:
        """The answer to many rows."""
        return self.post(body(model, rows, **fields))[1]

    def memory_kib(self) -> int:
        """Memory of the server's process that no file backs, KiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text("utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])


def body(model: str, data: object, **fields: Any) -> bytes:
    """A request."""
    return json.dumps({"model": model, "data": data, **fields}).encode()


@contextmanager
def server() -> Iterator[Client]:
    """A server in a process of its own, with an empty state."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-c", SERVE, "--port", "0", "--state", state]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            found = re.search(r"url=http://(\S+)", process.stderr.readline())
            assert found is not None
            yield Client(found[1], process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def ready(client: Client, model: str, backend: str, interval: int, features: dict[str, Any]) -> None:
    """A detector with a full window and a model; asked for a retrain every ``interval`` rows."""
    settings = {"min_samples": WINDOW, "window_size": WINDOW, "retrain_interval": interval}
    client.feed(model, values(WINDOW, 1), backend=backend, **settings, **features)
    assert client.feed(model, values(10, 2))["model_version"] == 1


def quiet(client: Client, model: str, seed: int) -> list[float]:
    """Seconds of single requests of a detector that is not fitted again."""
    return [client.post(body(model, row))[0] for row in values(SINGLES, seed)]


def busy(client: Client, model: str, seed: int) -> list[float]:
    """Seconds of single requests from the one that asks for a fit to the one that takes the model over."""
    took: list[float] = []
    rows = values(SINGLES * 100, seed)
    while len(took) < SINGLES:
        before = client.feed(model, rows[: INTERVAL - 1])["model_version"]
        for row in rows[INTERVAL:]:
            seconds, answer = client.post(body(model, row))
            took.append(seconds)
            if answer["status"] == "ready" and answer["model_version"] != before:
                break
    return took


def rates(client: Client, model: str) -> tuple[float, float]:
    """Points per second, one a request and in batches."""
    singles = [body(model, row) for row in values(SINGLES, 5)]
    batches = [body(model, values(BATCH, 6 + i)) for i in range(BATCHES)]
    began = time.perf_counter()
    for one in singles:
        client.post(one)
    middle = time.perf_counter()
    for many in batches:
        client.post(many)
    return SINGLES / (middle - began), BATCH * BATCHES / (time.perf_counter() - middle)


def memory_kib(client: Client, backend: str, features: dict[str, Any]) -> float:
    """Memory that a detector of 1000 rows takes, KiB: the growth of the server by some of them."""
    rows = values(MEMORY_ROWS, 1)
    settings = {"backend": backend, "min_samples": MEMORY_ROWS, "window_size": MEMORY_ROWS, **features}
    client.feed(f"first-{backend}-{len(features)}", rows, **settings)
    before = client.memory_kib()
    for i in range(MEMORY_DETECTORS):
        client.feed(f"memory-{backend}-{len(features)}-{i}", rows, **settings)
    return (client.memory_kib() - before) / MEMORY_DETECTORS


def measured(client: Client, backend: str, features: dict[str, Any]) -> float:
    """Print a line of the table; the ratio of the percentiles."""
    name = f"{backend} {'rolling' if features else 'raw'}"
    ready(client, f"{name} quiet", backend, 2**53, features)
    ready(client, f"{name} busy", backend, INTERVAL, features)
    single, batch = rates(client, f"{name} quiet")
    took: tuple[list[list[float]], list[list[float]]] = ([], [])
    ratios = []
    for seed in range(ROUNDS):
        took[0].append(quiet(client, f"{name} quiet", 100 + seed))
        took[1].append(busy(client, f"{name} busy", 200 + seed))
        ratios.append(float(np.percentile(took[1][-1], 99) / np.percentile(took[0][-1], 99)))
    (p50, p99, most), (busy50, busy99, busy_most) = (
        1e3 * np.median([np.percentile(t, (50, 99, 100)) for t in rounds], axis=0) for rounds in took
    )
    kib = memory_kib(client, backend, features)
    print(
        f"{name:26}{single:8,.0f}{batch:9,.0f}{p50:8.2f}{p99:8.2f}{most:8.1f}{busy50:9.2f}{busy99:8.2f}"
        f"{busy_most:8.1f}{median(ratios):7.2f}{kib:8,.0f}",
        flush=True,
    )
    return median(ratios)


def main(backends: list[str]) -> int:
    """Print the table; 1 when requests wait too long during a retrain."""
    print("milliseconds of a request without a retrain | during one: p50, p99, longest; x: ratio of the p99")
    print(
        f"{'':26}{'single/s':>8}{'batch/s':>9}{'p50':>8}{'p99':>8}{'max':>8}{'p50':>9}{'p99':>8}{'max':>8}"
        f"{'x':>7}{'KiB':>8}"
    )
    with server() as client:
        ratios = [measured(client, b, features) for b in backends for features in ({}, ROLLING)]
    worst = max(ratios)
    print(f"worst ratio {worst:.2f} (target {WAITING_MAX}); {os.cpu_count()} processors")
    return int(worst > WAITING_MAX)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(BACKENDS)))
