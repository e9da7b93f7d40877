"""Compares a run with a clean pass over the same world, and adds up the figures of many."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sim_plan import Plan, make_plan
from sim_run import Outcome, simulate
from sim_world import World, make_world

Row = tuple[str, str, int, float]

# Several values of one sample, none of which came in time, may have the same score.
SEVERAL = ".zscore_late"


@dataclass
class Verdict:
    """What came of a seed. ``wrong`` are sentences; without any the run was as it should be."""

    seed: int
    figures: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def replay(self) -> str:
        """The line that runs this seed again."""
        return f"{Path(sys.executable).name} tests/sim/sim_replay.py {self.seed}"

    def complaint(self) -> str:
        """What is wrong and how to see it again."""
        return f"seed {self.seed}: {'; '.join(self.wrong)}\nreplay: {self.replay}"


def compare(world: World, clean: Outcome, disturbed: Outcome) -> Verdict:
    """Hold the rows of a run against those of a clean pass."""
    verdict = Verdict(world.seed, faults=dict(disturbed.faults), digest=disturbed.digest)
    expected, ours = _counts(world, clean), _counts(world, disturbed)
    known, had_by_us = {row[:3] for row in expected}, {row[:3] for row in ours}
    missing = [r for r in sorted((expected - ours).elements()) if r in ours or r[:3] not in had_by_us]
    strange = [row for row in sorted(ours) if row not in expected]
    different, extra = ([r for r in strange if (r[:3] in known) is had] for had in (True, False))
    twice = sum((ours - expected).values()) - sum(ours[row] for row in strange)
    excused = disturbed.tally.get("resent", 0) + disturbed.platform_twice
    for what, rows in (("missing", missing), ("extra", extra), ("different", different)):
        if rows:
            verdict.wrong.append(f"{len(rows)} {what}, the first {'/'.join(map(str, rows[0]))}")
    if twice > excused:
        verdict.wrong.append(f"{twice} twice, of which only {excused} were to be expected")
    if any(n > 1 and not row[1].endswith(SEVERAL) for row, n in clean.rows.items()):
        verdict.wrong.append("the clean pass posted something twice")
    if not expected:
        verdict.wrong.append("nothing was posted")
    for lost in ("dropped", "expired", "rejected"):
        if disturbed.tally.get(lost):
            verdict.wrong.append(f"{disturbed.tally[lost]} {lost}")
    verdict.wrong += [f"crash: {crash}" for crash in (*clean.crashes, *disturbed.crashes)]
    verdict.figures = {
        "seeds": 1,
        "points compared": expected.total(),
        "episodes compared": _episodes(expected),
        "missing": len(missing),
        "extra": len(extra),
        "different": len(different),
        "twice, excused": twice,
        "read back and sent again": disturbed.tally.get("resent", 0),
        "faults that hit": sum(disturbed.faults.values()),
        "kills": disturbed.kills,
        "polite stops": disturbed.stops,
        "exits by itself": disturbed.exits,
        "ticks": disturbed.ticks,
        "requests": disturbed.requests,
        "virtual hours, x1000": round(disturbed.virtual_s / 3.6),
    }
    return verdict


def _counts(world: World, outcome: Outcome) -> Counter[Row]:
    return Counter({row: n for row, n in outcome.rows.items() if (row[0], row[2]) not in world.loose})


def _episodes(rows: Counter[Row]) -> int:
    """How many stretches of scores that are not zero there are in the series that people see."""
    n, was = 0, ("", "", 0.0)
    for source, metric, _t_ms, value in sorted(rows):
        if metric.endswith("zscore"):
            n += value != 0 and (was[2] == 0 or was[:2] != (source, metric))
            was = source, metric, value
    return n


def judge(seed: int, folder: Path) -> Verdict:
    """Run the world of a seed twice, once as it is and once with its faults, and compare."""
    world = make_world(seed)
    began_s = time.process_time()
    clean = simulate(world, Plan(), folder / f"{seed}-clean")
    disturbed = simulate(world, make_plan(world), folder / f"{seed}-disturbed")
    verdict = compare(world, clean, disturbed)
    verdict.figures["CPU ms"] = round(1000 * (time.process_time() - began_s))
    return verdict


class Totals:
    """The sum of many verdicts."""

    def __init__(self) -> None:
        self.figures: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.failed: list[str] = []

    def add(self, figures: dict[str, int], faults: dict[str, int]) -> None:
        """Add one verdict's numbers."""
        self.figures.update(figures)
        self.faults.update(faults)

    def lines(self) -> list[str]:
        """The sums, one a line."""
        out = [f"{name:>28}: {n}" for name, n in self.figures.items()]
        return [*out, "faults by kind:", *(f"{name:>40}: {n}" for name, n in sorted(self.faults.items()))]


def packed(verdict: Verdict) -> str:
    """The numbers of a verdict as text, to go from one process to another."""
    return json.dumps([verdict.figures, verdict.faults])


def unpacked(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """What ``packed`` put together."""
    figures, faults = json.loads(text)
    pair: tuple[dict[str, int], dict[str, int]] = figures, faults
    return pair
