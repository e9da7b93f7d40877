"""The default detector, all checks on: many series at one point each, and one long series.

The public tutorial's loop over 120 samples runs alternately in the same process; printed are median rates
per CPU-second and their ratio. The past of every series is a few hundred points, at phases of its own, so
that the work of a full pane is spread over the ticks as it is in life. Run with
``python tests/bench/bench_default.py [rounds]``; the exit code is 1 when a figure is below its target.
"""

from __future__ import annotations

import sys
from functools import partial
from statistics import median

import numpy as np
from bench_scoring import Tutorial, cpu_s

from plexus_detect import score_series
from plexus_detect.detectors import Auto, DetectorParams
from plexus_detect.series import Points

SERIES = (1_000, 10_000, 100_000)
WINDOW, PANE = 120, 16
RATE_MIN, SLOWER_MAX = 3_000_000.0, 2.5
LONG_POINTS = 50_000
LONG_RATE_MIN = 300_000.0


def warm(n: int, ticks: int = 304) -> Auto:
    """A bank whose series have seen a few hundred points, each at its own place in its pane."""
    rng = np.random.default_rng(1)
    detector, rows = Auto(DetectorParams()), np.arange(n)
    detector.grow(n)
    values = np.round(rng.normal(20.0, 1.0, (64, n)), 2)
    for k in range(PANE + ticks):
        some = rows[rows % PANE <= k] if k < PANE else rows
        detector.step(Points(some, np.full(len(some), 2_000 * k), values[k % 64, some]))
    return detector


def ticks_of(rng: np.random.Generator, n: int, count: int, start_ms: int) -> list[Points]:
    """``count`` ticks with a new point of each series."""
    return [
        Points(np.arange(n), np.full(n, start_ms + 2_000 * k), np.round(rng.normal(20.0, 1.0, n), 2))
        for k in range(count)
    ]


def step_all(detector: Auto, batches: list[Points]) -> None:
    """One tick after another."""
    for batch in batches:
        detector.step(batch)


def compare(n: int, rounds: int) -> float:
    """Print one comparison and return our rate."""
    detector, rng, tutorial = warm(n), np.random.default_rng(2), Tutorial(500, WINDOW)
    for samples in tutorial.windows:
        samples.extend(rng.normal(20.0, 1.0, WINDOW).tolist())
    ours, theirs, now = [], [], 2_000 * 1_000
    for _ in range(rounds):
        batches = ticks_of(rng, n, PANE, now)
        now += 2_000 * PANE
        ours.append(PANE * n / cpu_s(partial(step_all, detector, batches)))
        theirs.append(500 / cpu_s(partial(tutorial.step, rng.normal(20.0, 1.0, 500).tolist())))
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"{n:7} series: {median(ours) / 1e6:5.2f} M points/cpu-s, tutorial x{ratio:4.0f}")
    return median(ours)


def long_series(rounds: int) -> float:
    """Print and return the rate of ``score_series`` over one long series of noise, in points a CPU-second."""
    values = np.round(np.random.default_rng(3).normal(20.0, 1.0, LONG_POINTS), 2)
    t_ms = 1_700_000_000_000 + 1000 * np.arange(LONG_POINTS)
    rate = median(LONG_POINTS / cpu_s(lambda: score_series(t_ms, values)) for _ in range(rounds))
    print(f"score_series, one series of {LONG_POINTS} points: {rate / 1e6:.3f} M points/cpu-s")
    return rate


def main(rounds: int = 5) -> int:
    """Print all figures; 1 when one is below its target."""
    rates = [compare(n, rounds) for n in SERIES]
    size = sum(column.nbytes for column in warm(1_000, 16).dump().values()) / 1_000
    print(f"state: {size:.0f} bytes a series")
    rates_reached = rates[1] >= RATE_MIN and rates[1] / rates[2] <= SLOWER_MAX
    return int(long_series(rounds) < LONG_RATE_MIN or not rates_reached)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
