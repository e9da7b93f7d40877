"""Small fleets over days for the backtest's tests: daily cycles, noise, a few faults, and their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from plexus_detect.backtest.bins import Bins
from plexus_detect.backtest.moments import Span
from plexus_detect.backtest.replay import Admitted, Episode, Replayed, Setup
from plexus_detect.config import Config, load_config
from plexus_detect.policy import policy_of
from plexus_detect.series import Points, SeriesKey

T0 = 1_777_593_600_000  # 2026-05-01T00:00:00Z
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def config(**given: str) -> Config:
    """A configuration without a key, from ``poll__history="1d"`` and the like."""
    return load_config([], {f"PLEXUS_DETECT_{name.upper()}": value for name, value in given.items()})


def setup(span: Span, bins: int = 0, **given: str) -> Setup:
    """What a replay under such a configuration is made from."""
    return Setup(policy_of(config(**given)), span, bins)


def week(
    devices: int = 6, metrics: int = 2, samples: int = 600, cadence_ms: int = MINUTE, seed: int = 0
) -> tuple[list[SeriesKey], Points]:
    """Series in order of name, and their points in order of time; ``dev-1`` steps by 9 for 30 samples."""
    rng = np.random.default_rng(seed)
    keys = [SeriesKey(f"dev-{d}", f"m{m}") for d in range(devices) for m in range(metrics)]
    t_ms = T0 + cadence_ms * np.arange(samples)
    columns = []
    for number, key in enumerate(keys):
        value = 20 + number + rng.normal(0, 0.2, samples) + np.sin(np.arange(samples) / 200)
        if key == ("dev-1", "m0"):
            value[samples // 2 : samples // 2 + 30] += 9
        keep = rng.random(samples) > 0.02
        jitter = rng.integers(0, cadence_ms // 2, samples)
        columns.append(Points(np.full(samples, number), t_ms + jitter, np.round(value, 2)).take(keep))
    points = Points.concat(columns)
    return keys, points.take(np.argsort(points.t_ms, kind="stable"))


def write_csv(path: Path, keys: list[SeriesKey], points: Points) -> Path:
    """The long form."""
    rows = zip(points.series.tolist(), points.t_ms.tolist(), points.value.tolist(), strict=True)
    lines = [f"{t},{keys[s].source},{keys[s].metric},{v!r}" for s, t, v in rows]
    path.write_text("\n".join(["timestamp,source,metric,value", *lines, ""]))
    return path


def episode(opened: float, closed: float | None, *, source: str = "a", metric: str = "t", **more) -> Episode:
    """An episode between two times in hours after T0, whose first sample was a minute before the alert."""
    opened_ms = round(T0 + opened * HOUR)
    given = {"kind": "zscore", "reason": "deviation", "peak": 6.0, "line": 3.0, "value": 1.0, "expected": 0.0}
    return Episode(
        key=SeriesKey(source, metric),
        since_ms=opened_ms - MINUTE,
        opened_ms=opened_ms,
        closed_ms=None if closed is None else round(T0 + closed * HOUR),
        **(given | more),
    )


def replayed(episodes: list[Episode], sources: tuple[str, ...] = ("a", "b"), days: float = 10.0) -> Replayed:
    """One series ``t`` for each source with a sample an hour over so many days, and these episodes."""
    n = len(sources)
    return Replayed(
        admitted=[Admitted(i, SeriesKey(source, "t"), 0) for i, source in enumerate(sources)],
        count=np.full(n, round(days * 24)),
        first_ms=np.full(n, T0),
        last_ms=np.full(n, round(T0 + days * DAY)),
        episodes=episodes,
        relearned=0,
        unscored=0,
    )


def drawn(keys: list[SeriesKey], span: Span, n: int = 96) -> tuple[Replayed, Bins]:
    """A replay without episodes, and bins in which every series has a value, a band and a calm score."""
    bins = Bins(span, n)
    bins.grow(len(keys))
    edges = (span.from_ms + (span.to_ms - span.from_ms) * np.arange(n) // n).astype(np.int64)
    for row in range(len(keys)):
        rows, value = np.full(n, row), np.sin(np.arange(n) / 9) + row
        bins.add(rows, edges, value)
        bins.score(rows, edges, np.full(n, 0.3))
        for name, offset in (("centre", 0.0), ("lower", -1.0), ("upper", 1.0)):
            bins.band(name, rows, edges, value + offset)
    shown = Replayed(
        [Admitted(i, key, 0) for i, key in enumerate(keys)],
        bins.count[: len(keys)].sum(axis=1),
        np.full(len(keys), span.from_ms),
        np.full(len(keys), span.to_ms),
        [],
        0,
        0,
    )
    return shown, bins
