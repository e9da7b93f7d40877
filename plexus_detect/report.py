"""What a tick did, as one value; the log line and the exported counters are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from plexus_detect.cursor import Advance
from plexus_detect.evaluate import Evaluation, Event
from plexus_detect.series import Reason


@dataclass
class TickReport:
    """One poll cycle. Counts are of this tick; ``lag_ms`` is the age of the newest sample at its end."""

    tick: int = 0
    now_ms: int = 0
    dur_ms: int = 0
    requests: int = 0
    rows: int = 0
    points: int = 0
    late: int = 0
    revised: int = 0
    too_late: int = 0
    repeats: int = 0
    unusable: int = 0
    foreign: int = 0
    held_back: int = 0
    scored: int = 0
    warming: int = 0
    flat: int = 0
    stale: int = 0
    not_a_number: int = 0
    fleet_warming: int = 0
    group_small: int = 0
    derived: int = 0
    series: int = 0
    cut_off: int = 0
    lag_ms: int | None = None
    outbox: int = 0
    opened: int = 0
    closed: int = 0
    errors: list[str] = field(default_factory=list)
    events: tuple[Event, ...] = ()

    def absorb(self, taken: Advance, evaluation: Evaluation) -> None:
        """Add what the answers brought and what came of it."""
        self.points = len(taken.points)
        self.late = int(taken.points.late.sum()) - taken.revised
        self.repeats, self.revised, self.too_late = taken.repeats, taken.revised, taken.too_late
        self.unusable, self.foreign, self.held_back = taken.unusable, taken.foreign, taken.held_back
        own, fleet = evaluation.unknown, evaluation.fleet_unknown
        self.scored = self.points - sum(own.values())
        self.warming, self.flat = own.get(Reason.WARMING, 0), own.get(Reason.FLAT, 0)
        self.not_a_number = own.get(Reason.NOT_A_NUMBER, 0)
        self.stale = own.get(Reason.STALE, 0) + fleet.get(Reason.STALE, 0)
        self.fleet_warming, self.group_small = fleet.get(Reason.WARMING, 0), fleet.get(Reason.GROUP_SMALL, 0)
        self.derived = len(evaluation.derived)
        self.events = evaluation.events
        self.opened = sum(e.what == "opened" for e in evaluation.events)
        self.closed = sum(e.what == "closed" for e in evaluation.events)
        if len(taken.points):
            self.lag_ms = self.now_ms - int(taken.points.t_ms.max())

    @property
    def failed(self) -> bool:
        """True when at least one query of the tick failed."""
        return bool(self.errors)

    def counts(self) -> dict[str, Any]:
        """Every number by name, for the log line."""
        skip = ("errors", "events")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}


@dataclass
class DeliveryReport:
    """Totals of the delivery loop since the start."""

    posts: int = 0
    posted: int = 0
    expired: int = 0
    late: int = 0
    uncertain: int = 0
    found_stored: int = 0
    resent: int = 0
    rejected: int = 0
    errors: int = 0
