"""Rolling and lag features row by row beside Polars over the whole window for every row, and over a batch.

Three columns, windows of 10, 60 and 300 rows, lags of 1, 5 and 10: 48 features. The plain way keeps the last
3600 rows in a frame of one chunk, appends a row, computes all features of the frame and takes the last row;
over a batch it computes all features once, which is where Polars is faster. The ways run alternately in one
process; printed are median rates per CPU-second (all threads) and their ratios. Run with
``python tests/bench/bench_features.py [rounds]``; the exit code is 1 when the ways disagree or a ratio is
below its target.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import polars as pl

from plexus_detect.learn.features import FeatureParams, Features
from plexus_detect.learn.rows import read_records

COLUMNS = ("vibration", "current", "temperature")
PARAMS = FeatureParams((10, 60, 300), (1, 5, 10))
WINDOW, BATCH = 3600, 10_000
SINGLE_RATIO_MIN, BATCH_RATIO_MIN = 10.0, 0.2


def expressions() -> list[pl.Expr]:
    """All features in Polars, under the names and in the order of ``FeatureParams.names``."""
    made = [pl.col(name) for name in COLUMNS]
    for column in map(pl.col, COLUMNS):
        for w in PARAMS.rolling:
            made += [column.rolling_mean(w, min_samples=1), column.rolling_std(w, min_samples=1)]
            made += [column.rolling_min(w, min_samples=1), column.rolling_max(w, min_samples=1)]
        made += [column.shift(n) for n in PARAMS.lags]
    return [e.alias(name) for e, name in zip(made, PARAMS.names(COLUMNS), strict=True)]


class Plain:
    """The last 3600 rows in a frame, all features computed anew for every row."""

    def __init__(self, x: np.ndarray) -> None:
        self.frame = pl.DataFrame(x[-WINDOW:], schema=list(COLUMNS))
        self.features = expressions()

    def step(self, row: np.ndarray) -> np.ndarray:
        """The features (1, 48) of the next row (1, 3)."""
        newest = pl.DataFrame(row, schema=list(COLUMNS))
        self.frame = pl.concat([self.frame.tail(WINDOW - 1), newest], rechunk=True)
        return self.frame.select(self.features).tail(1).to_numpy()


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds, of all threads, user and system."""
    start = time.process_time()
    work()
    return time.process_time() - start


def values(n: int, seed: int) -> np.ndarray:
    """(n, 3) values of three sensors."""
    return np.random.default_rng(seed).normal((1.0, 5.0, 72.0), (0.1, 0.5, 2.0), (n, 3))


def warm() -> tuple[Features, Plain]:
    """Both ways with the same full window behind them."""
    ours, past = Features(3, PARAMS), values(WINDOW, 1)
    ours.grow(1)
    ours.step(0, past)
    return ours, Plain(past)


def compare(name: str, ours: list[float], theirs: list[float], least: float) -> bool:
    """Print two rates and their ratio; True when it reaches its target."""
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"{name:10} ours {median(ours):10,.0f} rows/cpu-s, polars {median(theirs):10,.0f}, "
        f"ratio {ratio:6.2f} (target {least})"
    )
    return ratio >= least


def single(rounds: int, ours_rows: int = 1_000, their_rows: int = 25) -> bool:
    """Row by row."""
    ours, plain = warm()
    rows = values(200, 2)
    for row in rows:
        if not np.allclose(ours.step(0, row[None]), plain.step(row[None]), rtol=1e-9):
            print("the two ways disagree")
            return False
    rates: tuple[list[float], list[float]] = ([], [])
    for k in range(rounds):
        rows = values(ours_rows, 3 + k)
        rates[0].append(ours_rows / cpu_s(lambda rows=rows: [ours.step(0, row[None]) for row in rows]))
        few = rows[:their_rows]
        rates[1].append(their_rows / cpu_s(lambda few=few: [plain.step(row[None]) for row in few]))
    return compare("single", *rates, SINGLE_RATIO_MIN)


def batch(rounds: int) -> bool:
    """10,000 rows at once, to a matrix."""
    ours, plain = warm()
    rates: tuple[list[float], list[float]] = ([], [])
    for k in range(rounds):
        x = values(BATCH, 3 + k)
        frame = pl.DataFrame(x, schema=list(COLUMNS))
        rates[0].append(BATCH / cpu_s(lambda x=x: ours.step(0, x)))
        rates[1].append(BATCH / cpu_s(lambda frame=frame: frame.select(plain.features).to_numpy()))
    return compare("batch", *rates, BATCH_RATIO_MIN)


def reading(rounds: int) -> None:
    """Records to columns, one and 10,000 at a time."""
    records = [dict(zip(COLUMNS, row, strict=True)) for row in values(BATCH, 2).tolist()]
    one = median(
        1_000 / cpu_s(lambda: [read_records(records[i : i + 1]) for i in range(1_000)]) for _ in range(rounds)
    )
    many = median(BATCH / cpu_s(lambda: read_records(records)) for _ in range(rounds))
    print(f"records    one by one {one:,.0f} /cpu-s, at once {many:,.0f} /cpu-s")


def longest(rounds: int) -> None:
    """CPU times of single rows: of the slowest, which are those that end a block, and with longer windows."""
    for rolling in (PARAMS.rolling, (600, 3600), (36_000,)):
        held = Features(3, FeatureParams(rolling, PARAMS.lags))
        held.grow(1)
        held.step(0, values(40_000, 1))
        times = [cpu_s(partial(held.step, 0, row[None])) for row in values(1_000 * rounds, 2)]
        p50, p99, most = np.percentile(1e6 * np.array(times), (50, 99, 100))
        print(f"windows {rolling}: CPU of a row p50 {p50:.0f} us, p99 {p99:.0f} us, max {most:.0f} us")


def main(rounds: int = 7) -> int:
    """Print all comparisons; 1 when one is below its target."""
    reached = [single(rounds), batch(rounds)]
    reading(rounds)
    longest(rounds)
    return int(not all(reached))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
