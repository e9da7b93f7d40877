"""Streams of points for tests: noise, values that break naive sums, and strategies for both."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from plexus_detect.series import Points

# Values that a broken sensor, parser or device really sends.
BAD_VALUES = (np.nan, np.inf, -np.inf, 1e308, -1e308, -3.4e38, 3.4e38, 1e12, 0.0, 5e-324)


def points(series: object, t_ms: object, value: object, late: object = None) -> Points:
    """Points from anything that NumPy takes for columns; scalars are repeated."""
    value = np.atleast_1d(np.asarray(value, np.float64))
    n = len(value)
    flags = np.zeros(n, np.bool_) if late is None else np.asarray(late, np.bool_)
    return Points(
        np.broadcast_to(np.asarray(series, np.int64), n).copy(),
        np.broadcast_to(np.asarray(t_ms, np.int64), n).copy(),
        value,
        flags,
    )


def series_of(value: object, step_ms: int = 1000) -> Points:
    """One series with a value every ``step_ms``."""
    return points(0, step_ms * np.arange(np.size(value)), value)


def noise(n: int, seed: int = 0, mean: float = 20.0, deviation: float = 0.5) -> np.ndarray:
    """``n`` normal values."""
    return np.random.default_rng(seed).normal(mean, deviation, n)


def ticks(columns: np.ndarray, step_ms: int = 1000, start_ms: int = 0) -> Points:
    """Rows of a matrix (times, series) as points in order of time."""
    n, k = columns.shape
    t_ms = start_ms + step_ms * np.repeat(np.arange(n), k)
    return points(np.tile(np.arange(k), n), t_ms, columns.ravel())


def cut(stream: Points, places: list[int]) -> list[Points]:
    """The stream in parts, cut at ``places``."""
    bounds = [0, *sorted(min(p, len(stream)) for p in places), len(stream)]
    return [stream.take(slice(a, b)) for a, b in pairwise(bounds)]


@st.composite
def streams(draw: st.DrawFn, rows: int = 3, size: int = 150, *, late: bool = True) -> Points:
    """Points of a few series in any order: noise, steps, bad values, clocks that stand still or jump."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, size))
    value = rng.normal(0.0, 10.0 ** draw(st.integers(-3, 3)), n) + 10.0 ** draw(st.integers(-3, 9))
    if draw(st.booleans()):
        value = np.round(value, 1)
    for _ in range(draw(st.integers(0, 3))):
        value[rng.integers(n) :] += rng.choice([-30.0, 5.0, 1e3, 1e12])
    bad = rng.random(n) < draw(st.sampled_from([0.0, 0.05, 0.5]))
    value[bad] = rng.choice(np.array(BAD_VALUES), int(bad.sum()))
    gap = rng.choice([0, 1, 1000, 1000, 1000, 5000, -2000, 86_400_000, -86_400_000], n)
    if draw(st.booleans()):
        gap = np.full(n, 1000)
    flags = rng.random(n) < (0.1 if late and draw(st.booleans()) else 0.0)
    return points(rng.integers(0, draw(st.integers(1, rows)), n), np.cumsum(gap), value, flags)


def places(size: int = 150) -> st.SearchStrategy[list[int]]:
    """Where to cut a stream."""
    return st.lists(st.integers(0, size), max_size=6)
