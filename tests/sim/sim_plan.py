"""What goes wrong in a run, and when: made from a seed, apart from the world.

Times are milliseconds since the start of the simulation. Whatever keeps the worker from reading stays out of
the world's ``calm`` spans; single posts may fail at any time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sim_network import Fate
from sim_world import LIVE_MS, World, is_calm

READ, POST, READ_API, ALL = "/api/v1/telemetry", "/ingest", "/v1", "/"

# What a single request may meet: name, kind of the sandbox's fault, its route and its fields.
SINGLES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("429 with Retry-After, read", "status", READ, {"status": 429, "retry_after_s": 3}),
    ("429 with Retry-After, post", "status", POST, {"status": 429, "retry_after_s": 7}),
    ("429 with a long Retry-After, post", "status", POST, {"status": 429, "retry_after_s": 45}),
    ("500, read", "status", READ, {"status": 500}),
    ("500, any", "status", ALL, {"status": 500}),
    ("503, post", "status", POST, {"status": 503}),
    ("502 before, post", "status", POST, {"status": 502}),
    ("502 after, post", "status", POST, {"status": 502, "at": "after"}),
    ("401 of the key server, post", "status", POST, {"status": 401}),
    ("401, read", "status", READ, {"status": 401}),
    ("cut before, read", "cut", READ, {"at": "before"}),
    ("cut before, post", "cut", POST, {"at": "before"}),
    ("cut after, read", "cut", READ, {"at": "after"}),
    ("cut after, post", "cut", POST, {"at": "after"}),
    ("cut body, read", "cut", READ, {"at": "body"}),
    ("cut body, post", "cut", POST, {"at": "body"}),
    ("empty though data exist", "empty", READ, {}),
    ("rate drop", "rate_drop", POST, {}),
    ("stored twice by the platform", "duplicate", POST, {}),
    ("unordered ties", "unordered", READ, {}),
    ("visible late", "late", POST, {"late_ms": 6_000}),
    ("read API down", "store_down", READ_API, {}),
    ("slow, read", "latency", READ, {"latency_ms": 1_500}),
    ("slow, post", "latency", POST, {"latency_ms": 2_500}),
    ("too slow, read", "latency", READ, {"latency_ms": 8_000}),
    ("too slow, post", "latency", POST, {"latency_ms": 8_000}),
)

# What the platform may do for minutes.
SPELLS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("outage: 503 of everything", "status", ALL, {"status": 503}),
    ("outage: 500 of reads", "status", READ, {"status": 500}),
    ("outage: 401 of the key server", "status", POST, {"status": 401}),
    ("outage: 401 of reads", "status", READ, {"status": 401}),
    ("outage: 429 of everything", "status", ALL, {"status": 429, "retry_after_s": 20}),
    ("outage: empty answers", "empty", READ, {}),
    ("outage: half of all cut after", "cut", ALL, {"at": "after", "probability": 0.5}),
    ("outage: a third of all cut off", "cut", ALL, {"at": "body", "probability": 0.3}),
    ("outage: slow", "latency", ALL, {"latency_ms": 3_000, "probability": 0.5}),
    ("outage: posts stored twice", "duplicate", POST, {"probability": 0.3}),
    ("outage: rate drops", "rate_drop", POST, {"probability": 0.5}),
)

# What the network may do for minutes.
CUTS: tuple[tuple[Fate, str], ...] = (
    ("refused", ALL),
    ("refused", POST),
    ("hanging", ALL),
    ("hanging", POST),
    ("hanging", READ),
    ("lost", ALL),
    ("lost", READ),
)


@dataclass(frozen=True)
class Trouble:
    """A fault of the sandbox, from ``at_ms`` on for ``next`` requests, or until ``until_ms``."""

    at_ms: int
    until_ms: int | None
    name: str
    kind: str
    given: dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """The network from ``at_ms`` until ``until_ms``."""

    at_ms: int
    until_ms: int
    fate: Fate
    route: str


@dataclass(frozen=True)
class Jump:
    """From now on the clock of the worker's machine is ``ahead_ms`` from the platform's."""

    at_ms: int
    ahead_ms: int


@dataclass(frozen=True)
class Strike:
    """A kill: from ``at_ms`` on at the ``n``-th iteration of the loop, or before or after the ``n``-th
    statement. ``stop`` asks politely instead. Another worker is started ``down_s`` later."""

    at_ms: int
    how: Literal["turn", "before", "after", "stop"]
    n: int = 0
    down_s: float = 0.5


@dataclass
class Plan:
    """Everything that goes wrong in a run; nothing in a clean one."""

    troubles: list[Trouble] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)

    def end_ms(self) -> int:
        """When the last of it is over."""
        ends = [t.until_ms or t.at_ms for t in self.troubles] + [c.until_ms for c in self.cuts]
        ends += [s.at_ms + round(1000 * s.down_s) for s in self.strikes] + [j.at_ms for j in self.jumps]
        return max(ends, default=0)


def make_plan(world: World) -> Plan:
    """The faults of a world's seed."""
    rng = random.Random(f"plan {world.seed}")
    plan = Plan()
    for name, kind, route, given in rng.sample(SINGLES, 14):
        at_ms = _when(rng, world)
        if at_ms is not None and (route == POST or not is_calm(world.calm, at_ms, at_ms + 20_000)):
            many = {"route": route, "next": rng.choice([1, 1, 2, 3]), **given}
            plan.troubles.append(Trouble(at_ms, None, name, kind, many))
    for _ in range(rng.choice([2, 3, 4])):
        _spell(rng, world, plan)
    for _ in range(rng.choice([1, 1, 2])):
        size = rng.choice([2_000, 40_000, 600_000, 3_600_000, 40_000_000])
        plan.jumps.append(Jump(_when(rng, world), rng.choice([-1, 1]) * rng.randrange(size // 2, size)))
    for _ in range(rng.randrange(2, 7)):
        _strike(rng, world, plan)
    plan.strikes.sort(key=lambda strike: strike.at_ms)
    return plan


def _when(rng: random.Random, world: World) -> int:
    """Mostly somewhere in the live part, sometimes while the worker starts for the first time."""
    if rng.random() < 0.1 and not world.fleet:
        return rng.randrange(15_000)
    return LIVE_MS + rng.randrange(world.live_ms)


def _span(rng: random.Random, world: World, longest_ms: int) -> tuple[int, int]:
    long_ms = rng.randrange(5_000, max(6_000, min(longest_ms, world.live_ms // 4)))
    at_ms = LIVE_MS + rng.randrange(world.live_ms - long_ms)
    return at_ms, at_ms + long_ms


def _spell(rng: random.Random, world: World, plan: Plan) -> None:
    at_ms, until_ms = _span(rng, world, 300_000)
    if is_calm(world.calm, at_ms, until_ms):
        # Nor one of posts: a worker that is started anew does not begin before it could post.
        return
    if rng.random() < 0.5:
        fate, route = rng.choice(CUTS)
        plan.cuts.append(Cut(at_ms, until_ms, fate, route))
        return
    name, kind, route, given = rng.choice(SPELLS)
    given = {"route": route, "seed": world.seed, **given}
    plan.troubles.append(Trouble(at_ms, until_ms, name, kind, given))
    if kind == "empty":
        down = "read API down"
        plan.troubles.append(Trouble(at_ms, until_ms, down, "store_down", {"route": READ_API}))


def _strike(rng: random.Random, world: World, plan: Plan) -> None:
    how: Sequence[Literal["turn", "before", "after", "stop"]] = ("turn", "turn", "before", "after", "stop")
    down_s = rng.choice([0.05, 0.5, 5.0, rng.uniform(5, min(240, world.live_ms / 8_000))])
    at_ms = _when(rng, world)
    if at_ms < LIVE_MS:
        down_s = min(down_s, 5.0)
    if not is_calm(world.calm, at_ms, at_ms + round(1000 * down_s) + 30_000):
        chosen = rng.choice(how)
        n = rng.randrange(1, 150) if chosen == "turn" else rng.randrange(1, 40)
        plan.strikes.append(Strike(at_ms, chosen, n, down_s))
