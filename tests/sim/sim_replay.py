"""Runs seeds of the simulation again: ``python tests/sim/sim_replay.py 123``, or ``100..120`` for many.

With ``--trace`` the events of the disturbed run (requests, fates, kills) go to standard output.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

# The program of this checkout, whatever is installed.
sys.path[:0] = [str(Path(__file__).parents[2])]

from sim_compare import Totals, compare, judge  # noqa: E402
from sim_plan import Plan, make_plan  # noqa: E402
from sim_run import simulate  # noqa: E402
from sim_world import START_MS, make_world  # noqa: E402


def _traced(seed: int, folder: Path) -> None:
    world = make_world(seed)
    plan = make_plan(world)
    everything = [*plan.troubles, *plan.cuts, *plan.jumps, *plan.strikes]
    print(f"{world.detector}, step {world.step_ms} ms, poll {world.interval_ms} ms, fleets {world.fleet}")
    for event in sorted(everything, key=lambda event: event.at_ms):
        print(f"{event.at_ms / 1000:10.3f} {event}")
    lines: list[str] = []
    clean = simulate(world, Plan(), folder / "clean")
    disturbed = simulate(world, plan, folder / "disturbed", lines)
    print("\n".join(lines))
    expected = {row[:3]: row[3] for row in clean.rows}
    ours = {row[:3]: row[3] for row in disturbed.rows}
    for row in sorted(expected.keys() | ours.keys()):
        if expected.get(row) != ours.get(row):
            print(f"{(row[2] - START_MS) / 1000:10.3f} {row} clean {expected.get(row)}, here {ours.get(row)}")
    print(compare(world, clean, disturbed).complaint())


def main() -> int:
    """Run what the arguments say; 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("seeds", help="a number, or two with .. between them")
    parser.add_argument("--trace", action="store_true", help="print the events of the disturbed run")
    given = parser.parse_args()
    first, _, last = given.seeds.partition("..")
    totals, wrong = Totals(), 0
    for seed in range(int(first), int(last or first) + 1):
        with tempfile.TemporaryDirectory() as folder:
            if given.trace:
                _traced(seed, Path(folder))
                continue
            verdict = judge(seed, Path(folder))
        totals.add(verdict.figures, verdict.faults)
        wrong += bool(verdict.wrong)
        print(
            verdict.complaint() if verdict.wrong else f"seed {seed}: the same, {verdict.digest[:16]}",
            flush=True,
        )
    print("\n".join(totals.lines()))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
