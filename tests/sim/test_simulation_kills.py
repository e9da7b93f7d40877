"""Killed at every iteration of the loop, and before and after every statement, of a few polls.

In the ordinary run at some of them, with ``-m soak`` at all.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from sim_compare import compare
from sim_plan import Plan, Strike
from sim_run import Outcome, simulate
from sim_world import World, make_world

# A small world without fleets: two punctual devices and one that sends late, polled every two seconds.
FIRST_MS = 60_000
How = Literal["turn", "before", "after"]


def small_world() -> World:
    """A few polls of a few devices."""
    world = make_world(5)
    last = FIRST_MS + 7 * world.step_ms
    kept = {at_ms: rows for at_ms, rows in world.arrivals.items() if at_ms <= last}
    world = replace(world, calm=[], samples=7, batch=5)
    world.arrivals.clear()
    world.arrivals.update(kept)
    return world


@pytest.fixture(scope="module", name="clean")
def _clean(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The pass that nobody disturbs."""
    return simulate(small_world(), Plan(), tmp_path_factory.mktemp("clean"))


def strike(how: How, n: int, clean: Outcome, folder: Path) -> bool:
    """Kill at the ``n``-th moment; whether the run was long enough to have one. Its rows are the same."""
    world = small_world()
    plan = Plan(strikes=[Strike(0, how, n, 1.0)])
    disturbed = simulate(world, plan, folder / f"{how}-{n}")
    verdict = compare(world, clean, disturbed)
    assert verdict.wrong == [], f"{how} {n}"
    return disturbed.kills == 1


@pytest.mark.parametrize("how", ["turn", "before", "after"])
def test_some_moments(how: How, clean: Outcome, tmp_path: Path) -> None:
    """A dozen moments spread over the run."""
    n = clean.turns if how == "turn" else clean.statements
    for k in range(1, n, n // 12 + 1):
        strike(how, k, clean, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("how", ["turn", "before", "after"])
def test_every_moment(how: How, part: int, clean: Outcome, tmp_path: Path) -> None:
    """Each of them, from the first to the last."""
    n = clean.turns if how == "turn" else clean.statements
    struck = [strike(how, k, clean, tmp_path) for k in range(1 + part, n + 1, 8)]
    assert sum(struck) > len(struck) / 2
