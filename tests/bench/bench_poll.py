"""Poll 10,000 series beside the tutorial's loop (one GET a series), both against the same sandbox.

The sandbox runs in a process of its own, so that CPU times here are the client's alone. Every tick each
series has one new point. Both run alternately; printed are medians and ratios. Run with
``python tests/bench/bench_poll.py [series] [ticks] [tutorial_series]``: the tutorial polls only so many of
the series a tick, since it needs minutes for all, and its cost is given per series.
"""

from __future__ import annotations

import asyncio
import multiprocessing as mp
import random
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import requests

from plexus_detect.client import Client, Endpoints
from plexus_detect.config import load_config
from plexus_detect.logs import setup_logging
from plexus_detect.sandbox import Sandbox, Settings
from plexus_detect.store import Store
from plexus_detect.worker import Worker, open_worker

HISTORY_POINTS = 40


def serve(pipe: Connection, n: int) -> None:
    """The sandbox's process: loads a point for every series whenever it is told a time."""
    rng = random.Random(1)
    with Sandbox(Settings()) as box:
        now = int(time.time() * 1000)
        for k in range(HISTORY_POINTS, 0, -1):
            box.load((f"dev-{i:05d}", "temperature", now - 1000 * k, rng.gauss(20, 0.1)) for i in range(n))
        pipe.send((box.url, box.key))
        while (t_ms := pipe.recv()) is not None:
            box.load((f"dev-{i:05d}", "temperature", t_ms, rng.gauss(20, 0.1)) for i in range(n))
            pipe.send("loaded")


def tutorial_poll(session: requests.Session, url: str, key: str, sources: list[str]) -> int:
    """One poll as the public tutorial does it: a request a series, newest 200 rows, one by one."""
    new = 0
    for source in sources:
        answer = session.get(
            f"{url}/api/v1/telemetry",
            params={"source": source, "metric": "temperature", "limit": 200},
            headers={"x-api-key": key},
            timeout=30,
        )
        rows = answer.json()["data"]
        new += len({row["timestamp"] for row in rows})
    return new


async def measure(worker: Worker, pipe: Connection, ticks: int, tutorial: tuple[str, str, list[str]]) -> None:
    """Alternate one tick of the worker with one poll of the tutorial."""
    ours, wall, theirs, asked = [], [], [], []
    url, key, sources = tutorial
    session = requests.Session()
    for _ in range(ticks):
        pipe.send(int(time.time() * 1000))
        pipe.recv()
        cpu, began = time.process_time(), time.perf_counter()
        report = await worker.tick()
        ours.append(time.process_time() - cpu)
        wall.append(time.perf_counter() - began)
        asked.append(report.requests)
        await worker.delivery.deliver_all()
        cpu = time.process_time()
        tutorial_poll(session, url, key, sources)
        theirs.append((time.process_time() - cpu) / len(sources))
    n = worker.running.series_count()
    per_tick = median(ours)
    print(f"series                        {n:>12,}")
    print(f"telemetry requests a tick     {median(asked):>12} (most {max(asked)})")
    print(f"CPU of a tick                 {per_tick:>12.3f} s (wall {median(wall):.3f} s)")
    print(f"series / CPU-second           {n / per_tick:>12,.0f}")
    delivered = worker.delivery.report
    print(f"derived points posted         {delivered.posted:>12,} in {delivered.posts} posts")
    print(f"tutorial, series / CPU-second {1 / median(theirs):>12,.0f} (1 request a series)")
    print(f"ratio                         {median(theirs) * n / per_tick:>12,.0f} x")


async def main(n: int, ticks: int, tutorial_series: int) -> None:
    """Start the sandbox, warm the worker up, measure."""
    pipe, far = mp.Pipe()
    server = mp.get_context("spawn").Process(target=serve, args=(far, n), daemon=True)
    server.start()
    url, key = pipe.recv()
    env = {"PLEXUS_API_KEY": key, "PLEXUS_DETECT_POLL__OVERLAP": "0s", "PLEXUS_DETECT_POLL__HISTORY": "10m"}
    config = load_config([], env)
    setup_logging("error")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "state.db")
        async with Client(Endpoints(url, url, url), key) as client:
            began = time.perf_counter()
            worker = await open_worker(config, client, store)
            warm = await worker.tick()
            took = time.perf_counter() - began
            print(f"warm-up: {warm.points:,} points, {warm.requests} requests, {took:.1f} s")
            sources = [f"dev-{i:05d}" for i in range(min(tutorial_series, n))]
            await measure(worker, pipe, ticks, (url, key, sources))
        store.close()
    pipe.send(None)
    server.join(10)


if __name__ == "__main__":
    arguments = [int(a) for a in sys.argv[1:]]
    asyncio.run(main(*(arguments + [10_000, 7, 200][len(arguments) :])))
