"""Ten minutes at 10,000 series against the sandbox, with faults on and ``kill -9`` every 30 s.

The sandbox runs in a process of its own and is fed a sample of every series each poll interval; faults of
every kind come and go by a seed. The worker is the real command in a process of its own; it is killed,
started again, and in the end asked to stop; with 0 it is not killed, and its memory has time to grow.
Printed: what was lost or doubled, time from sample to accepted score, memory, size of the state file,
requests and posts. Exit code 1 when anything is lost, or doubled beyond what the worker itself counted as
posted again. Run with ``python tests/bench/soak.py [seconds] [series] [kill_every_s]``.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from plexus_detect.sandbox import Sandbox, Settings
from plexus_detect.store import Store

INTERVAL_S = 5.0
METRICS = ("temperature", "humidity", "pressure", "vibration", "power")
HISTORY = 48
SETTLE_S = 45.0
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "route": "/api/v1/telemetry", "status": 503},
    {"kind": "status", "route": "/api/v1/telemetry", "status": 429, "retry_after_s": 2},
    {"kind": "cut", "route": "/api/v1/telemetry", "at": "body", "probability": 0.5},
    {"kind": "empty", "route": "/api/v1/telemetry"},
    {"kind": "unordered", "route": "/api/v1/telemetry"},
    {"kind": "latency", "route": "/api", "latency_ms": 1500},
    {"kind": "store_down", "route": "/v1"},
    {"kind": "cut", "route": "/ingest", "at": "after", "probability": 0.5},
    {"kind": "cut", "route": "/ingest", "at": "before", "probability": 0.5},
    {"kind": "status", "route": "/ingest", "status": 401},
    {"kind": "status", "route": "/ingest", "status": 502, "at": "after", "probability": 0.5},
    {"kind": "rate_drop", "route": "/ingest", "probability": 0.3},
    {"kind": "late", "route": "/ingest", "late_ms": 1500},
    {"kind": "status", "route": "/", "status": 503},  # everything is away
)


def serve(pipe: Connection, n: int, seed: int) -> None:
    """The sandbox's process: feeds, makes trouble, and counts at the end."""
    rng = random.Random(seed)
    keys = [(f"dev-{i // len(METRICS):05d}", METRICS[i % len(METRICS)]) for i in range(n)]
    stop, began_ms = threading.Event(), int(time.time() * 1000)
    hits: Counter[str] = Counter()
    with Sandbox(Settings()) as box:
        for k in range(HISTORY, 0, -1):
            t_ms = began_ms - int(k * INTERVAL_S * 1000)
            box.load((s, m, t_ms, rng.gauss(20, 0.1)) for s, m in keys)

        def feed() -> None:
            due = time.monotonic()
            while not stop.is_set():
                t_ms = int(time.time() * 1000)
                lift = 3.0 if (t_ms // 60_000) % 4 == 1 else 0.0
                box.load((s, m, t_ms, rng.gauss(20, 0.1) + lift * (s.endswith("7"))) for s, m in keys)
                due += INTERVAL_S
                stop.wait(max(0.0, due - time.monotonic()))

        def trouble() -> None:
            stop.wait(25.0)
            while not stop.is_set():
                fault = rng.choice(FAULTS)
                made = box.faults.add(**fault, seed=rng.randrange(1 << 30))
                stop.wait(rng.uniform(3.0, 12.0))
                hits[f"{fault['kind']} {fault['route']}"] += made.hits
                box.faults.clear()
                stop.wait(rng.uniform(2.0, 10.0))

        threads = [threading.Thread(target=feed, daemon=True), threading.Thread(target=trouble, daemon=True)]
        pipe.send((box.url, box.key))
        for thread in threads:
            thread.start()
        pipe.recv()
        stop.set()
        for thread in threads:
            thread.join()
        box.faults.clear()
        pipe.send("calm")
        since_ms = pipe.recv()
        pipe.send((count(box, since_ms), dict(box.requests.counts), dict(hits)))
        pipe.recv()


def count(box: Sandbox, since_ms: int) -> dict[str, int]:
    """Of the samples since a time: how many, and how many have no score, or several."""
    points: dict[tuple[str, str], Counter[int]] = {}
    for row in box.rows():
        if row.t_ms >= since_ms:
            name = row.metric.removesuffix("_late")
            points.setdefault((row.source, name), Counter())[row.t_ms] += 1
    out = Counter({"samples": 0, "missing": 0, "twice": 0, "late": 0})
    for (source, metric), times in points.items():
        if "." in metric or metric == "heartbeat":
            continue
        scores = points.get((source, f"{metric}.zscore"), Counter())
        out["samples"] += len(times)
        out["missing"] += sum(t not in scores for t in times)
        out["twice"] += sum(scores.values()) - len(scores)
    out["late"] = sum(row.metric.endswith("_late") for row in box.rows())
    return dict(out)


@dataclass
class Lives:
    """The worker's processes one after another, and what was seen of them."""

    url: str
    key: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    rss_mb: list[tuple[float, float]] = field(default_factory=list)
    state_mb: list[float] = field(default_factory=list)
    buckets: Counter[float] = field(default_factory=Counter)
    seen: dict[float, float] = field(default_factory=dict)
    lag: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Another life."""
        names = ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL")
        env = {**os.environ, "PLEXUS_API_KEY": self.key, **dict.fromkeys(names, self.url)}
        env |= {
            "PLEXUS_DETECT_HEALTH__LISTEN": f"127.0.0.1:{self.port}",
            "PLEXUS_DETECT_PLEXUS__TIMEOUT": "10s",
            "PLEXUS_DETECT_STATE__SNAPSHOT_INTERVAL": "60s",
        }
        log = (self.folder / "log").open("ab")
        command = [sys.executable, "-m", "plexus_detect", "run"]
        self.process = subprocess.Popen(command, env=env, cwd=self.folder, stderr=log)
        self.seen = {}

    def look(self) -> None:
        """Memory, and how long scores took."""
        assert self.process is not None
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=2).read().decode()
        except OSError:
            return
        rss = re.search(r"VmRSS:\s+(\d+)", status)
        if rss:
            self.rss_mb.append((time.monotonic(), int(rss[1]) / 1024))
        found = re.findall(r'event_to_score_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
        now = {float(le.replace("+Inf", "inf")): float(value) for le, value in found}
        for le, value in now.items():
            self.buckets[le] += value - self.seen.get(le, 0.0)
        self.seen = now
        self.state_mb.append(sum(f.stat().st_size for f in self.folder.glob("*.db*")) / 1e6)

    def kill(self) -> None:
        """No goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def quantile(self, share: float) -> float:
        """The bucket under which this share of the scores was accepted, seconds after their sample."""
        total = self.buckets[float("inf")]
        return min((le for le, n in self.buckets.items() if n >= share * total), default=float("nan"))


def slope(points: list[tuple[float, float]]) -> float:
    """Growth in units an hour."""
    if len(points) < 3:
        return float("nan")
    t, y = np.array(points).T
    return float(np.polyfit(t / 3600, y, 1)[0])


def live(lives: Lives, seconds: float, kill_every_s: float) -> tuple[int, list[tuple[float, float]]]:
    """Let the worker live and die; the number of kills, and memory when each life ended."""
    end, kills, ends = time.monotonic() + seconds, 0, []
    lives.start()
    while time.monotonic() < end:
        deadline = min(time.monotonic() + kill_every_s, end) if kill_every_s else end
        while time.monotonic() < deadline:
            time.sleep(1.0)
            lives.look()
        if lives.rss_mb:
            ends.append(lives.rss_mb[-1])
        if time.monotonic() < end:
            lives.kill()
            kills += 1
            lives.start()
    return kills, ends


def main() -> int:
    """Run it all and print what was seen."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    kill_every_s = float(sys.argv[3]) if len(sys.argv) > 3 else 30.0
    ours, theirs = mp.Pipe()
    process = mp.get_context("fork").Process(target=serve, args=(theirs, n, 5), daemon=True)
    process.start()
    url, key = ours.recv()
    with socket.create_server(("127.0.0.1", 0)) as room:
        port = int(room.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        lives = Lives(url, key, Path(folder), port)
        began_ms = int(time.time() * 1000)
        kills, ends = live(lives, seconds, kill_every_s)
        ours.send("enough")
        ours.recv()
        time.sleep(SETTLE_S)
        lives.look()
        assert lives.process is not None
        lives.process.send_signal(signal.SIGTERM)
        left = time.monotonic()
        code = lives.process.wait(30)
        left = time.monotonic() - left
        # A first life looks at the platform before it posts: what came until then only warmed it up.
        ours.send(began_ms + int(3 * INTERVAL_S * 1000))
        counts, requests, hits = ours.recv()
        ours.send("end")
        store = Store(Path(folder) / "plexus-detect.db")
        tally = store.tally()
        store.close()
        log = (Path(folder) / "log").read_text(errors="replace")
        told = Counter(re.findall(r"event=(\w+)", log))
    print(f"{seconds:.0f} s, {n} series, {kills} kills; last life left in {left:.1f} s with {code}")
    print(f"faults that hit: {hits}")
    print(
        f"samples {counts['samples']}, missing {counts['missing']}, twice {counts['twice']} "
        f"(posted again by the worker's own count: {tally.get('resent', 0)}), late {counts['late']}"
    )
    print(f"tally {tally}")
    print(f"sample to accepted score: p50 <= {lives.quantile(0.5)} s, p99 <= {lives.quantile(0.99)} s")
    print(f"memory at most, MB: {max(mb for _, mb in lives.rss_mb):.0f}")
    if kills:
        third = max(1, len(ends) // 3)
        first, last = (np.median([mb for _, mb in part]) for part in (ends[1 : third + 1], ends[-third:]))
        print(f"memory when a life ended, MB: first third {first:.0f}, last third {last:.0f}")
    else:
        half = lives.rss_mb[len(lives.rss_mb) // 2 :]
        begin, end = half[0][1], half[-1][1]
        print(f"memory in the second half, MB: {begin:.0f} to {end:.0f}, slope {slope(half):+.1f} an hour")
    print(f"state files up to {max(lives.state_mb):.0f} MB, at the end {lives.state_mb[-1]:.0f} MB")
    print(f"requests {requests}")
    print(f"events {dict(told)}")
    bad = counts["missing"] or counts["twice"] > tally.get("resent", 0) or "Traceback" in log
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
