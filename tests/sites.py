"""Sites with a fleet: sources with their own offsets under common weather, in order of arrival."""

from __future__ import annotations

import numpy as np
from streams import points

from plexus_detect.episode import EpisodeParams, Episodes
from plexus_detect.fleet import Fleet, FleetParams
from plexus_detect.series import Points, Reason, Scores

T0 = 1_700_000_000_000
DAY = 86_400_000
DEFAULT = FleetParams()
SMALL = FleetParams(group_min=3, min_points=3, offset_window=20, relearn_ms=20_000)


def fleet_of(n: int, params: FleetParams = DEFAULT) -> Fleet:
    """One group of ``n`` sources."""
    fleet = Fleet(params)
    for _ in range(n):
        fleet.join(0)
    return fleet


def site(n: int = 12, k: int = 200, seed: int = 0, cadence_ms: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Times and values (k, n): every source with its own offset, common weather, little noise."""
    rng = np.random.default_rng(seed)
    t_ms = T0 + cadence_ms * np.arange(k)[:, None] + rng.integers(0, cadence_ms * 9 // 10, (k, n))
    weather = np.cumsum(rng.normal(0.0, 0.02, (k, 1)), axis=0)
    return t_ms, rng.normal(20.0, 3.0, n) + weather + rng.normal(0.0, 0.1, (k, n))


def arrival(t_ms: np.ndarray, value: np.ndarray, keep: np.ndarray | None = None) -> Points:
    """The rows in order of arrival: tick by tick, and within a tick as the sources happen to send."""
    k, n = value.shape
    order = np.argsort(np.random.default_rng(1).random((k, n)), axis=1)
    rows = order.ravel()
    take = np.arange(k).repeat(n), rows
    stream = points(rows, t_ms[take], value[take])
    return stream if keep is None else stream.take(keep[take])


def z_of(stream: Points, n: int, params: FleetParams = DEFAULT) -> np.ndarray:
    return fleet_of(n, params).step(stream).z


def episodes_of(stream: Points, z: np.ndarray, n: int) -> set[int]:
    """The sources with an episode."""
    bank = Episodes(EpisodeParams())
    bank.grow(n)
    _, moves = bank.step(stream.series, stream.t_ms, z, stream.late, np.full(len(z), Reason.FLEET, np.int8))
    return {int(stream.series[move.at]) for move in moves if move.opened}


def same(a: Scores, b: Scores) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        for name in ("z", "centre", "scale")
    )


def same_state(a: Fleet, b: Fleet) -> bool:
    mine, other = a.dump(), b.dump()
    return all(np.array_equal(mine[k], other[k], equal_nan=mine[k].dtype.kind == "f") for k in mine)


def two_groups(n: int = 12, params: FleetParams = SMALL) -> Fleet:
    """``n`` sources, every third in a second group."""
    fleet = Fleet(params)
    for row in range(n):
        fleet.join(int(row % 3 == 2))
    return fleet
