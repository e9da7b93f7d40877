"""The scoring step beside the public tutorial's deque loop, and one long series at once.

Both ways run alternately in one process, one new point a series a tick; printed are the median rates per
CPU-second and their ratio. Run with ``python tests/bench/bench_scoring.py [rounds]``; the exit code is 1 when
a ratio at 10,000 series, or the long series, is below its target. At 1,000 series a tick takes about 0.15 ms,
which is the cost of calling NumPy a hundred times, and the targets are not met.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from plexus_detect import score_series
from plexus_detect.detectors import DetectorParams, ZScore
from plexus_detect.series import Points

RATIO_MIN = {15: 25.0, 120: 120.0, 3600: 3_000.0}
SERIES = (1_000, 10_000)
LONG_POINTS = 300_000
LONG_RATE_MIN = 100_000.0


class Tutorial:
    """The loop of the public tutorial: a deque of samples a series, everything computed from it anew."""

    def __init__(self, n: int, window: int) -> None:
        self.windows = [deque(maxlen=window) for _ in range(n)]
        self.streak = [0] * n

    def step(self, values: list[float]) -> None:
        """One new sample a series."""
        for i, value in enumerate(values):
            samples = self.windows[i]
            samples.append(value)
            z = self.zscore(list(samples))
            self.streak[i] = self.streak[i] + 1 if abs(z) > 3.0 else 0

    @staticmethod
    def zscore(values: list[float]) -> float:
        """z of the newest value against all of them."""
        if len(values) < 5:
            return 0.0
        mean = sum(values) / len(values)
        std = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
        return 0.0 if std < 0.01 else (values[-1] - mean) / std


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds, of all threads, user and system."""
    start = time.process_time()
    work()
    return time.process_time() - start


def warm(n: int, window: int, few: int) -> tuple[ZScore, Tutorial]:
    """Both ways with full windows over the same past; the tutorial's with ``few`` series."""
    rng = np.random.default_rng(1)
    ours = ZScore(DetectorParams(window=window, min_points=min(window, 30)))
    ours.grow(n)
    for k in range(window + 100):
        ours.step(Points(np.arange(n), np.full(n, 1000 * k), rng.normal(20.0, 1.0, n)))
    tutorial = Tutorial(few, window)
    for samples in tutorial.windows:
        samples.extend(rng.normal(20.0, 1.0, window).tolist())
    return ours, tutorial


def step_all(detector: ZScore, batches: list[Points]) -> None:
    """One tick after another."""
    for batch in batches:
        detector.step(batch)


def compare(n: int, window: int, rounds: int, ticks: int = 20) -> float:
    """Print one comparison and return the ratio. The tutorial's loop gets fewer series where it is slow."""
    few = min(n, 40 if window > 1000 else 1_000)
    ours, tutorial = warm(n, window, few)
    rng = np.random.default_rng(2)
    now, rates = 10**9, ([], [])
    for _ in range(rounds):
        values = rng.normal(20.0, 1.0, (ticks, n))
        batches = [Points(np.arange(n), np.full(n, now + 1000 * k), values[k]) for k in range(ticks)]
        now += 1000 * ticks
        rates[0].append(ticks * n / cpu_s(partial(step_all, ours, batches)))
        rates[1].append(few / cpu_s(partial(tutorial.step, values[0, :few].tolist())))
    ratio = median(a / b for a, b in zip(*rates, strict=True))
    print(
        f"{n:7} series, window {window:5}: {median(rates[0]) / 1e6:6.2f} M points/cpu-s, "
        f"tutorial {median(rates[1]) / 1e6:7.4f} M, ratio {ratio:7.0f} (target {RATIO_MIN[window]:.0f})"
    )
    return ratio


def long_series(rounds: int) -> float:
    """Print and return the rate of ``score_series`` over one long series of noise, in points a CPU-second."""
    values = np.random.default_rng(3).normal(20.0, 1.0, LONG_POINTS)
    t_ms = 1_700_000_000_000 + 1000 * np.arange(LONG_POINTS)
    rate = median(LONG_POINTS / cpu_s(lambda: score_series(t_ms, values)) for _ in range(rounds))
    print(f"score_series, one series of {LONG_POINTS} points: {rate / 1e6:.2f} M points/cpu-s")
    return rate


def main(rounds: int = 7) -> int:
    """Print all comparisons; 1 when one is below its target."""
    ratios = [[compare(n, w, rounds) / RATIO_MIN[w] for n in SERIES] for w in RATIO_MIN]
    return int(min(*(many for _few, many in ratios), long_series(rounds) / LONG_RATE_MIN) < 1.0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
