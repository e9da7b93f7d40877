"""firing: the alerts that the platform's engines would make of a history, whatever its form and its parts."""

from __future__ import annotations

import numpy as np
import pytest
from alarm_house import T0, AlarmHouse, bounds, event_firings, firings, opened, rough
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.monitors.firing import EventEngine, Firing, ThresholdEngine, engine

NAN, INF = float("nan"), float("inf")


def plain(times: list[int], values: list[float], low: float | None, high: float | None) -> list[Firing]:
    """The rules point by point, as one would write them down."""
    found: list[Firing] = []
    opened_at: int | None = None
    calm_since: int | None = None
    deaf_until = -1
    peak, n = 0.0, 0
    for t, v in zip(times, values, strict=True):
        if v != v or v in (INF, -INF):
            continue
        breach = (high is not None and v > high) or (low is not None and v < low)
        if opened_at is None:
            if breach and t >= deaf_until:
                opened_at, calm_since, peak, n = t, None, v, 1
            continue
        n += 1
        if breach:
            calm_since = None
            peak = v if abs(v) > abs(peak) else peak
        elif calm_since is None:
            calm_since = t
        elif t - calm_since >= 30_000:
            found.append(Firing(opened_at, t, peak, n))
            opened_at, deaf_until = None, t + 60_000
    if opened_at is not None:
        found.append(Firing(opened_at, None, peak, n))
    return found


GAPS = st.sampled_from([0, 1, 1_000, 10_000, 29_999, 30_000, 30_001, 59_999, 60_000, 90_000])
VALUES = st.sampled_from([-4.0, -3.0, -1.0, 0.0, 3.0, 3.5, 5.0, -5.0, NAN, INF])
BOUND = st.sampled_from([None, -3.0, 0.0, 3.0])


@examples(4000)
@given(
    rows=st.lists(st.tuples(GAPS, VALUES), max_size=60),
    low=BOUND,
    high=BOUND,
    cuts=st.lists(st.integers(0, 60), max_size=4),
)
def test_the_rules_point_by_point(
    rows: list[tuple[int, float]], low: float | None, high: float | None, cuts: list[int]
) -> None:
    """Whole or in parts, a history fires as a plain loop over its points says, peaks and counts included."""
    t_ms = T0 + np.cumsum([gap for gap, _ in rows], dtype=np.int64)
    value = np.array([v for _, v in rows], np.float64)
    want = plain(t_ms.tolist(), value.tolist(), low, high)
    assert firings(t_ms, value, low, high) == want
    parts = ThresholdEngine(low, high)
    for times, values in zip(np.split(t_ms, sorted(cuts)), np.split(value, sorted(cuts)), strict=True):
        parts.step(times, values)
    assert list(parts.finish(0)) == want


def test_twenty_histories_fire_as_on_the_platform() -> None:
    """Twenty random histories under twenty thresholds have the alerts of the sandbox's engine, to which each
    point comes at its own time: as many, opened and closed at the same seconds."""
    house = AlarmHouse()
    rows, want = [], {}
    for seed in range(20):
        t_ms, value = rough(seed)
        source, limits = f"dev-{seed}", bounds(seed)
        house.watch(source, "t", "threshold", limits)
        rows += [(source, "t", t, v) for t, v in zip(t_ms.tolist(), value.tolist(), strict=True)]
        fired = firings(t_ms, value, limits["min"], limits["max"])
        if fired:
            want[source, "t"] = opened(fired)
    house.live(rows, max(row[2] for row in rows))
    assert house.alerts() == want
    counts = [len(alerts) for alerts in want.values()]
    assert sum(counts) > 100
    assert len(counts) < 20 or min(counts) == 1
    house.box.close()


@pytest.mark.parametrize("per_row", [False, True])
def test_events_fire_as_on_the_platform(per_row: bool) -> None:
    """Rows of an event monitor have the alerts that the sandbox's loop makes of them: digests and their
    silence, or one for each of the first ten and one for the rest."""
    house = AlarmHouse()
    rng = np.random.default_rng(7)
    gaps = np.concatenate([rng.integers(1, 400_000, 40), np.full(40, 500), rng.integers(1, 90_000, 40)])
    t_ms = T0 - 2_000 + np.cumsum(gaps)
    to_ms = int(t_ms[-1]) + 45_000
    house.watch("dev-1", "t", "event", {"delivery": "per_row" if per_row else "digest"})
    house.live([("dev-1", "t", t, 1.0) for t in t_ms.tolist()], to_ms)
    fired = event_firings(t_ms, np.ones(len(t_ms)), (T0, to_ms), per_row=per_row)
    assert opened(fired) == house.alerts()["dev-1", "t"]
    assert len(fired) > 20
    house.box.close()


@examples(2000)
@given(
    gaps=st.lists(st.sampled_from([0, 1, 9_999, 30_000, 31_000, 200_000, 400_000]), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    per_row=st.booleans(),
)
def test_events_in_parts(gaps: list[int], cuts: list[int], per_row: bool) -> None:
    """Where the parts of a history end changes no event's alerts."""
    t_ms = T0 + np.cumsum(gaps, dtype=np.int64)
    value = np.arange(len(gaps), dtype=np.float64)
    parts = EventEngine(T0, per_row=per_row)
    to_ms = T0 + sum(gaps) + 60_000
    # Points of one time are never in two parts: a part ends with a window of time.
    ends = [int(np.searchsorted(t_ms, t_ms[c])) for c in sorted(cuts) if c < len(t_ms)]
    for times, values in zip(np.split(t_ms, ends), np.split(value, ends), strict=True):
        parts.step(times, values)
    assert list(parts.finish(to_ms)) == event_firings(t_ms, value, (T0, to_ms), per_row=per_row)


def test_a_look_takes_a_thousand_rows() -> None:
    """What is more than a thousand rows waits for the next look."""
    t_ms = T0 + 1 + np.arange(2_500)
    fired = event_firings(t_ms, np.zeros(2_500), (T0, T0 + 600_000), per_row=True)
    assert [sum(f.points for f in fired if f.opened_ms == T0 + s * 1000) for s in (30, 60, 90, 120)] == [
        1000,
        1000,
        500,
        0,
    ]


def test_a_switched_off_event_is_silent() -> None:
    """An event monitor that is not enabled never fires; a threshold has no such switch."""
    t_ms, value = T0 + 30_000 * np.arange(1, 9), np.full(8, 9.0)
    for enabled, n in ((False, 0), (True, 1)):
        judge = engine("event", {"enabled": enabled}, T0)
        judge.step(t_ms, value)
        assert len(judge.finish(T0 + 300_000)) == n
    judge = engine("threshold", {"min": None, "max": 3}, T0)
    judge.step(t_ms, value)
    assert judge.finish(0) == (Firing(T0 + 30_000, None, 9.0, 8),)
