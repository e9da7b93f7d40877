"""How long a preview of firings takes: the rules alone, and a plan's preview against a sandbox on loopback.

The rules judge seven days of one series at 1 Hz with few and with many episodes. The preview reads seven days
of 50 series with a sample every 30 s through the API: as the monitored values themselves, and to replay
scores of which none is stored (with the default detector, with a fleet and without). Run with
``python tests/bench/bench_preview.py [devices]``; the exit code is 1 when the rules miss their target.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from alarm_house import firings

from plexus_detect import monitors
from plexus_detect.client import Client, Endpoints
from plexus_detect.config import load_config
from plexus_detect.provision.preview import forecasts
from plexus_detect.provision.reading import make_plan
from plexus_detect.sandbox import Sandbox

DAY_S = 86_400
CADENCE_S = 30
RULES_MS_MAX = 50.0


def rules(episodes: int) -> tuple[float, int]:
    """Median milliseconds to judge 7 days of 1 s samples with so many spikes, and how often it fires."""
    n = 7 * DAY_S
    rng = np.random.default_rng(episodes)
    value = rng.normal(0.0, 0.2, n)
    value[rng.choice(n, episodes, replace=False)] += 9.0
    t_ms = 1_777_593_600_000 + 1000 * np.arange(n)
    took, found = [], 0
    for _ in range(7):
        began = time.perf_counter()
        found = len(firings(t_ms, value, None, 3.0))
        took.append(1000 * (time.perf_counter() - began))
    return median(took), found


async def previewed(box: Sandbox, metric: str, settings: dict[str, str]) -> tuple[float, int, list[str]]:
    """Seconds, requests and lines of the preview of one document for all devices."""
    config = load_config([], {f"PLEXUS_DETECT_{name}": value for name, value in settings.items()})
    document = {
        "source_id": "dev-*",
        "metric": metric,
        "threshold": {"max": 25.0 if "." not in metric else 3.0},
    }
    async with Client(Endpoints(box.url, box.url, box.url), box.key, timeout_s=120.0) as client:
        plan = await make_plan(client, monitors.parse(json.dumps(document), "m.json"))
        asked, began = client.requests, time.perf_counter()
        preview = await forecasts(config, client, plan, 7)
        return time.perf_counter() - began, client.requests - asked, preview.lines()


def load(box: Sandbox, devices: int) -> int:
    """Seven days of every device, with a fault now and then."""
    now_ms = time.time_ns() // 1_000_000
    n = 7 * DAY_S // CADENCE_S
    t_ms = now_ms - 1000 * CADENCE_S * np.arange(n, 0, -1)
    rng = np.random.default_rng(0)
    for device in range(devices):
        value = 20 + np.sin(np.arange(n) / 458) + rng.normal(0.0, 0.2, n)
        for at in rng.choice(n - 20, 4, replace=False):
            value[at : at + 10] += 9.0
        rows = zip(t_ms.tolist(), np.round(value, 3).tolist(), strict=True)
        box.load((f"dev-{device}", "temperature", t, v) for t, v in rows)
    return n * devices


def main(devices: int = 50) -> int:
    """Print the figures."""
    worst = 0.0
    for episodes in (0, 10, 1000, 100_000):
        took_ms, found = rules(episodes)
        worst = max(worst, took_ms if episodes <= 1000 else 0.0)
        print(f"rules: 604,800 points, {episodes:7,} breaches, {found:5,} firings: {took_ms:6.1f} ms")
    with Sandbox() as box:
        print(f"preview of {devices} series, 7 days, {load(box, devices):,} points:")
        for name, metric, settings in (
            ("stored values", "temperature", {}),
            ("scores replayed", "temperature.zscore", {}),
            ("scores replayed, no fleet", "temperature.zscore", {"FLEET__ENABLED": "false"}),
        ):
            took_s, requests, lines = asyncio.run(previewed(box, metric, settings))
            print(f"  {name}: {took_s:.1f} s, {requests} requests\n    {lines[0]}")
    print(
        f"peak memory, the sandbox included: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"
    )
    return int(worst > RULES_MS_MAX)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
