"""Decode a 100,000-row telemetry page: ours beside json and a loop per row.

Both run alternately in one process; printed are the median CPU times, their ratio and the peak memory each
needs on top of the page. Run with ``python tests/bench/bench_decode.py [rows] [rounds]``.
"""

from __future__ import annotations

import json
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median

from plexus_detect.series import SeriesTable
from plexus_detect.wire import decode_telemetry

SOURCES = 50
METRICS = ("temperature", "pressure", "humidity", "battery_voltage")
RATIO_MIN = 5.0


def page_of(rows: int) -> bytes:
    """A page as the platform sends it, about 140 bytes a row."""
    rng = random.Random(20261122)
    start = datetime(2026, 11, 22, 1, 51, 23, tzinfo=UTC)
    data = []
    for i in range(rows):
        at = (start + timedelta(milliseconds=7 * i)).replace(tzinfo=None)
        data.append(
            {
                "org_id": "org_a",
                "source_id": f"device-{i % SOURCES:03d}",
                "metric": METRICS[i // SOURCES % len(METRICS)],
                "value": round(rng.gauss(20, 3), 4),
                "timestamp": at.isoformat(sep=" ", timespec="milliseconds"),
                "tags": {"site": "north"},
            }
        )
    query = {"source": None, "from": "2026-11-22T00:52:38.107Z", "to": "2026-11-22T02:52:38.107Z"}
    answer = {"data": data, "count": rows, "query": query}
    return json.dumps(answer, separators=(",", ":")).encode()


def json_loop(page: bytes) -> tuple[list[int], list[int], list[float]]:
    """The plain way: json, then a loop over the rows (with the faster of the two parsers of datetime)."""
    table: dict[tuple[str, str], int] = {}
    series, t_ms, value = [], [], []
    for row in json.loads(page)["data"]:
        series.append(table.setdefault((row["source_id"], row["metric"]), len(table)))
        t_ms.append(round(datetime.fromisoformat(row["timestamp"] + "+00:00").timestamp() * 1000))
        value.append(float(row["value"]))
    return series, t_ms, value


def ours(page: bytes) -> tuple[list[int], list[int], list[float]]:
    """The same columns by ``decode_telemetry``."""
    points = decode_telemetry(page, SeriesTable()).points
    return points.series.tolist(), points.t_ms.tolist(), points.value.tolist()


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds, of all threads, user and system."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that was allocated at once."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main(rows: int = 100_000, rounds: int = 9) -> int:
    """Print the comparison; 1 when the two ways disagree or the ratio is below its target."""
    page = page_of(rows)
    if ours(page) != json_loop(page):
        print("the two ways disagree")
        return 1
    table = SeriesTable()
    ways = {
        "json + loop": lambda: json_loop(page),
        "plexus_detect": lambda: decode_telemetry(page, table),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(cpu_s(work))
    print(f"{rows} rows, {len(page) / 1e6:.1f} MB, median of {rounds} alternating rounds")
    for name, work in ways.items():
        peak = peak_bytes(work)
        rate = rows / median(times[name]) / 1e6
        print(
            f"{name:14} {rate:6.2f} M rows/cpu-s   peak {peak / 1e6:6.1f} MB = {peak / len(page):.1f} x page"
        )
    ratio = median(a / b for a, b in zip(times["json + loop"], times["plexus_detect"], strict=True))
    print(f"ratio {ratio:.1f} (target {RATIO_MIN:.0f})")
    return 0 if ratio >= RATIO_MIN else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
