"""budget: a line for every series, so that the fleet alerts no more often than it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.budget import INCIDENT_MS, LEVEL_MAX, LEVELS, Budget, line_factor

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
STEP_MS = 300_000


def bank(rows: int = 1, at_once: float = 0.0) -> Budget:
    budget = Budget(3, 3, 3, at_once)
    budget.grow(rows)
    return budget


def feed(
    budget: Budget, score: object, start_ms: int = 0, share: float = 0.1, late: object = False
) -> np.ndarray:
    """Scores of the first series, one every five minutes."""
    column = np.atleast_1d(np.asarray(score, np.float64))
    n = len(column)
    t_ms = start_ms + STEP_MS * np.arange(n)
    flags = np.broadcast_to(np.asarray(late, np.bool_), n)
    return budget.step(np.zeros(n, np.int64), t_ms, column, flags, np.full(n, share))


def same(a: Budget, b: Budget) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.dump().values(), b.dump().values(), strict=True))


def bumps(n: int, times: list[int], size: float = 5.0, length: int = 4) -> np.ndarray:
    """Quiet scores with a few beyond the line at some times."""
    score = np.full(n, 0.5)
    for t in times:
        score[t : t + length] = size
    return score


def test_a_quiet_series_keeps_the_detectors_own_line() -> None:
    """Without a score beyond the line nothing is raised, however small the budget."""
    assert (feed(bank(), np.full(5000, 0.99), share=1e-9) == 1.0).all()


def test_an_opening_raises_the_line_for_what_comes_after_it() -> None:
    """The line of a point never depends on that point; it is set anew when an hour begins."""
    factor = feed(bank(), bumps(600, [288, 400]), share=0.01)
    assert (factor[:300] == 1.0).all()
    assert factor[300] > 2.0
    assert factor[408] > factor[300]
    assert factor[-1] < LEVEL_MAX


def test_a_share_that_allows_it_leaves_the_line_alone() -> None:
    """A series with one opening in two days may have one a day."""
    assert (feed(bank(), bumps(576, [288]), share=1.0)[-1]) == 1.0


def test_two_in_a_row_would_not_have_opened_and_are_not_counted() -> None:
    """The level of an opening is what M of N scores reach, not the largest of them."""
    budget = bank()
    feed(budget, bumps(600, [100, 300], length=2))
    assert budget.openings.sum() == 0.0
    spike = np.full(100, 0.5)
    spike[50:53] = [20.0, 3.0, 20.0]
    feed(budget, spike, start_ms=10 * DAY_MS)
    assert np.ceil(budget.openings[0]).tolist() == [float(level < 3.0) for level in LEVELS]


def test_what_opens_at_once_is_counted() -> None:
    """A single score opens at all levels of which it is ``at_once`` times as large."""
    budget = bank(at_once=2.0)
    feed(budget, bumps(100, [50], size=8.0, length=1))
    assert np.ceil(budget.openings[0]).tolist() == [float(level < 4.0) for level in LEVELS]


def test_one_long_incident_counts_once() -> None:
    """Two days of flapping, and a day without a break, are one opening at each level; a later one another."""
    gap = INCIDENT_MS // STEP_MS
    flapping, endless, later = bank(), bank(), bank()
    feed(flapping, bumps(600, list(range(10, 590, 10))))
    feed(endless, bumps(400, [10], length=288))
    feed(later, bumps(400, [10, 20, 20 + gap]))
    counted = [np.ceil(budget.openings[0, 0]) for budget in (flapping, endless, later)]
    assert counted == [1.0, 1.0, 2.0]


def test_old_openings_fade() -> None:
    """After a calm month the line has come down again."""
    budget = bank()
    raised = feed(budget, bumps(5 * 288, [288 * k for k in range(1, 5)]), share=0.05)[-1]
    calm = feed(budget, np.full(60 * 288, 0.5), start_ms=5 * DAY_MS, share=0.05)[-1]
    assert raised > 2.0 * calm


def test_an_outage_is_not_calm() -> None:
    """Days on which the series was not seen do not count as days without an opening."""
    steady, away = bank(), bank()
    score = bumps(3 * 288, [288, 500])
    feed(steady, score)
    feed(away, score)
    assert feed(away, [0.5], start_ms=90 * DAY_MS)[0] == pytest.approx(
        feed(steady, [0.5], start_ms=3 * DAY_MS)[0], rel=0.01
    )


def test_late_and_unknown_scores_are_not_counted() -> None:
    """They change nothing, and have the line that holds then."""
    budget = bank()
    feed(budget, bumps(100, [50]), late=True)
    feed(budget, np.full(100, np.nan))
    assert same(budget, bank())


@pytest.mark.parametrize("heavy", [False, True])
def test_a_fleet_keeps_its_budget(heavy: bool) -> None:
    """Twenty series, whose own lines would open many times a week, open about as often as they may."""
    rng = np.random.default_rng(7)
    n, days, share = 20, 40, 2.0 / 7.0 / 20.0
    draw = rng.standard_t(3, (days * 288, n)) if heavy else rng.normal(size=(days * 288, n))
    score = np.zeros_like(draw)
    for i in range(1, len(draw)):
        score[i] = 0.8 * score[i - 1] + 0.6 * draw[i]
    score = np.abs(score) * rng.uniform(0.25, 0.6, n)
    budget, rows, late = bank(n), np.arange(n), np.zeros(n, np.bool_)
    factor = np.array(
        [budget.step(rows, np.full(n, STEP_MS * i), x, late, np.full(n, share)) for i, x in enumerate(score)]
    )
    opened = {}
    for name, beyond in (("own", score > 1.0), ("budget", score > factor)):
        held = beyond[2:] & beyond[1:-1] & beyond[:-2]
        held = held[1:] & ~held[:-1]
        opened[name] = int(held[14 * 288 :].sum()) / (days - 14) * 7
    assert opened["own"] > 100
    assert opened["budget"] <= 2 * 2.0


@examples(500)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(0, 7))
def test_calls_of_any_size_and_snapshots_change_nothing(seed: int, sizes: list[int], restart: int) -> None:
    """All at once, bit by bit, or loaded from a snapshot: the same lines and the same state."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    rows = rng.integers(0, 3, n)
    gaps = [0, 1000, 60_000, HOUR_MS, -5000, -40 * HOUR_MS]
    t_ms = np.cumsum(rng.choice(gaps, n, p=[0.2, 0.2, 0.3, 0.2, 0.09, 0.01]))
    score = np.where(rng.random(n) < 0.3, rng.uniform(1.0, 40.0, n), 0.5)
    score[rng.random(n) < 0.1] = np.nan
    late, share = rng.random(n) < 0.1, rng.uniform(0.001, 1.0, 3)[rows]
    whole, parts, start = bank(3), bank(3), 0
    expected = whole.step(rows, t_ms, score, late, share)
    out = []
    for number, size in enumerate(sizes):
        at = slice(start, start + size)
        start += size
        if number == restart:
            loaded = bank(3)
            loaded.load({k: v.copy() for k, v in parts.dump().items()})
            parts = loaded
        out.append(parts.step(rows[at], t_ms[at], score[at], late[at], share[at]))
    assert np.array_equal(np.concatenate(out), expected)
    assert same(whole, parts)


@given(st.lists(st.integers(0, 50), min_size=32, max_size=32), st.floats(0.04, 400), st.floats(0, 10))
def test_a_line_is_never_below_the_detectors_own_nor_lost(
    counts: list[int], days: float, share: float
) -> None:
    """Whatever was counted, the factor lies between 1 and 30, and a larger share never raises it."""
    openings, seen = np.array([counts], np.float64), np.array([days])
    factor, freer = (line_factor(openings, seen, np.array([s]))[0] for s in (share, 2 * share))
    assert 1.0 <= freer <= factor <= LEVEL_MAX
