"""What a tick did, as one value; the log line and the exported counters are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from plexus_detect.cursor import Advance
from plexus_detect.evaluate import Evaluation, Event
from plexus_detect.histogram import Histogram
from plexus_detect.series import F64, Reason

# From the time of a sample to the score of it being accepted, seconds.
SCORED_BOUNDS_S = (0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True)
class Standing:
    """Where all series stand: watched series by what they do, open episodes by what they are against, and
    how far behind now the cursor is that is furthest: it stands still while no answer moves any."""

    series: Mapping[str, int]
    episodes: Mapping[str, int]
    cursor_age_ms: int | None


class Verdict(StrEnum):
    """What a tick says of the platform: it is well, no device sends, it is ill, or it refuses the key."""

    OK = "ok"
    NO_DATA = "no_data"
    PLATFORM_ILL = "platform_ill"
    KEY_TROUBLE = "key_trouble"


@dataclass
class TickReport:
    """One poll cycle. Counts are of this tick; ``lag_ms`` is the age of the newest sample at its end,
    ``under_way`` how many slow queries it did not wait for."""

    tick: int = 0
    now_ms: int = 0
    dur_ms: int = 0
    verdict: Verdict = Verdict.OK
    fetch_ms: float = 0.0
    score_ms: float = 0.0
    commit_ms: float = 0.0
    requests: int = 0
    answers: int = 0
    under_way: int = 0
    rows: int = 0
    points: int = 0
    late: int = 0
    revised: int = 0
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
    dropped: int = 0
    opened: int = 0
    closed: int = 0
    errors: list[str] = field(default_factory=list)
    events: tuple[Event, ...] = ()
    standing: Standing | None = None

    def absorb(self, taken: Advance, evaluation: Evaluation) -> None:
        """Add what the answers brought and what came of it."""
        self.points = len(taken.points)
        self.late = int(taken.points.late.sum()) - taken.revised
        self.repeats, self.revised = taken.repeats, taken.revised
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
    def ok(self) -> bool:
        """True when everything that was asked was answered; devices may have sent nothing."""
        return not self.errors and (self.answers > 0 or not self.under_way)

    @property
    def reads(self) -> bool:
        """True when something that was asked was answered."""
        return self.answers > len(self.errors)

    @property
    def failed(self) -> bool:
        """True when at least one query of the tick failed."""
        return bool(self.errors)

    def counts(self) -> dict[str, Any]:
        """Every number by name, for the log line."""
        skip = ("errors", "events", "standing")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}


@dataclass
class DeliveryReport:
    """Totals of the delivery loop since the start.

    ``failing_since_s``: since when (monotonic clock) no post was accepted and some failed; ``error``: why the
    last one did. ``event_to_score``: from the time of each sample to the post of its score being accepted.
    """

    posts: int = 0
    posted: int = 0
    expired: int = 0
    late: int = 0
    uncertain: int = 0
    found_stored: int = 0
    resent: int = 0
    rejected: int = 0
    errors: int = 0
    failing_since_s: float | None = None
    error: str = ""
    event_to_score: Histogram = field(default_factory=lambda: Histogram(SCORED_BOUNDS_S))

    def failed(self, error: str, now_s: float) -> None:
        """An attempt came to nothing."""
        self.errors += 1
        self.error = error
        if self.failing_since_s is None:
            self.failing_since_s = now_s

    def accepted(self, points: int, age_s: F64) -> None:
        """A post was accepted: so many points; and how old those samples are that are news."""
        self.posts += 1
        self.posted += points
        self.event_to_score.add(age_s)
        self.failing_since_s, self.error = None, ""
