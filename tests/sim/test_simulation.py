"""The simulation: whatever goes wrong, what is posted in the end is what one clean pass posts.

The night's run is ``pytest -m soak -n 2 --dist load tests/sim``: a thousand seeds, or those that the
variables ``SIM_FIRST`` and ``SIM_SEEDS`` say. What is promised, and what is not, stands in ``sim_run``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
from sim_compare import compare, judge, packed
from sim_plan import Plan, make_plan
from sim_run import simulate
from sim_world import make_world

FIRST, SEEDS = int(os.environ.get("SIM_FIRST", "1000")), int(os.environ.get("SIM_SEEDS", "1000"))


Record = Callable[[str, object], None]


def see(seed: int, folder: Path, record: Record) -> None:
    """Judge a seed and keep its figures for the summary."""
    verdict = judge(seed, folder)
    record("simulation", packed(verdict))
    if verdict.wrong:
        record("replay", verdict.complaint())
        pytest.fail(verdict.complaint(), pytrace=False)


@pytest.mark.parametrize("seed", range(20))
def test_a_disturbed_run_ends_as_a_clean_one(seed: int, tmp_path: Path, record_property: Record) -> None:
    """The same rows of every score, none missing, none changed, none twice but for those counted as such."""
    see(seed, tmp_path, record_property)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_night(seed: int, tmp_path: Path, record_property: Record) -> None:
    """The same for many more seeds."""
    see(seed, tmp_path, record_property)


def test_a_seed_is_always_the_same_run(tmp_path: Path) -> None:
    """Every request, answer, death and row of two runs of a seed are the same, at the same times."""
    seed = 6
    runs = [simulate(make_world(seed), make_plan(make_world(seed)), tmp_path / str(k)) for k in range(2)]
    assert runs[0].digest == runs[1].digest
    assert runs[0].kills + runs[0].stops > 0


def test_the_comparison_sees_a_loss(tmp_path: Path) -> None:
    """A worker that loses, changes or repeats a single row would be caught."""
    world = make_world(5)
    clean = simulate(world, Plan(), tmp_path / "a")
    assert compare(world, clean, clean).wrong == []
    row = next(row for row in clean.rows if row[1] == "temp.zscore_raw")
    lost, changed, twice, more = (deepcopy(clean) for _ in range(4))
    del lost.rows[row]
    del changed.rows[row]
    changed.rows[(*row[:3], row[3] + 1e-12)] = 1
    twice.rows[row] += 1
    more.rows[(row[0], row[1], row[2] + 1, 0.0)] = 1
    for outcome, word in ((lost, "missing"), (changed, "different"), (twice, "twice"), (more, "extra")):
        assert any(word in wrong for wrong in compare(world, clean, outcome).wrong)
