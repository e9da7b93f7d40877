"""What people said of a monitor's alerts, and the one change of its document that follows from it.

An alert is compared by its reach: the value farthest beyond its line that is known to have occurred. It would
have fired under another line if its reach lies beyond that one; it would not have fired if its reach is
inside and nothing can have reached farther. Where neither is known the cautious answer counts: an alert that
was noise or that nobody judged stays, a helpful one is lost.

The platform keeps as an alert's peak its value of largest magnitude, and says how many points lay beyond the
line only when the alert is closed (contract sections 5.1 and 7).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Literal

Verdict = Literal["helpful", "noise"]
Side = Literal["max", "min"]

CONSECUTIVE_MAX = 64  # of ``detect.consecutive``
_FINER = 40  # steps of rounding tried before the exact number is taken


@dataclass(frozen=True)
class Alert:
    """One alert of a threshold: ``value`` opened it beyond ``line``.

    ``peak`` is its value of largest magnitude and ``points`` how many lay beyond the line, both None while it
    is open and where the platform does not know all of it.
    """

    source: str
    metric: str
    verdict: Verdict | None
    value: float
    line: float
    peak: float | None = None
    points: int | None = None

    @property
    def side(self) -> Side:
        """Which bound it broke when it opened."""
        return "max" if self.value > self.line else "min"

    @property
    def reach(self) -> float:
        """The value farthest beyond the bound that it broke, as far as is known."""
        known = [self.value] if self.peak is None else [self.value, self.peak]
        return max(known) if self.side == "max" else min(known)


@dataclass(frozen=True)
class Bounds:
    """The line of a document: alerts fire below ``low`` and above ``high``; None is no bound."""

    low: float | None
    high: float | None

    def beyond(self, value: float) -> bool:
        """True where the value fires; a bound itself is still inside."""
        return (self.high is not None and value > self.high) or (self.low is not None and value < self.low)

    def settled(self, alert: Alert) -> bool:
        """True where nothing of the alert can have gone farther than its reach.

        The largest magnitude is the farthest value only where every value beyond the line has one sign, and
        of a monitor with two bounds the other bound may have been broken as well.
        """
        if alert.points == 1:
            return True
        if alert.peak is None or alert.points is None or None not in (self.low, self.high):
            return False
        return alert.line >= 0 if alert.side == "max" else alert.line <= 0

    def moved(self, side: Side, value: float) -> Bounds:
        """The same with one bound at another value."""
        return Bounds(self.low, value) if side == "max" else Bounds(value, self.high)


@dataclass(frozen=True)
class Debounce:
    """How the worker calms a score: an episode opens after ``consecutive`` points beyond ``threshold``, or
    with one of ``at_once`` (infinite: never). ``raw``: the document watches the score as it was before."""

    raw: bool
    threshold: float
    consecutive: int
    at_once: float = math.inf


@dataclass(frozen=True)
class Counts:
    """Alerts of the period by verdict."""

    helpful: int
    noise: int
    unjudged: int

    @property
    def judged(self) -> int:
        """How many have a verdict."""
        return self.helpful + self.noise


@dataclass(frozen=True)
class Proposal:
    """What to change, the alerts that count now and those that would with it, and why.

    ``field`` is the bound of a moved line; ``name`` where the debounced name is to be watched and
    ``consecutive`` where the worker's own setting should change; empty where there is nothing to propose.
    """

    field: Literal["max", "min", "name", "consecutive", ""]
    old: float | None
    new: float | None
    before: Counts
    after: Counts
    why: str


def counted(alerts: Iterable[Alert]) -> Counts:
    """The alerts by verdict."""
    verdicts = [alert.verdict for alert in alerts]
    return Counts(verdicts.count("helpful"), verdicts.count("noise"), verdicts.count(None))


def propose(
    alerts: Sequence[Alert], bounds: Bounds, *, verdicts_min: int = 3, debounce: Debounce | None = None
) -> Proposal:
    """The change after which the least noise fires and every helpful alert still does; the line comes first.

    ``alerts`` are those of one document, over all its sources. Nothing is proposed with fewer than
    ``verdicts_min`` verdicts, without noise, or where every change would cost a helpful alert.
    """
    firing = [alert for alert in alerts if bounds.beyond(alert.reach) or not bounds.settled(alert)]
    before = counted(firing)
    why = _too_early(before, verdicts_min)
    if not why:
        found = [*_moved_lines(firing, bounds), *_debounced(firing, bounds, debounce)]
        if found:
            return min(found, key=lambda proposal: proposal.after.noise)
        why = _no_way(firing, bounds)
    return Proposal("", None, None, before, before, why)


def _too_early(counts: Counts, verdicts_min: int) -> str:
    if counts == Counts(0, 0, 0):
        return "no alert fired"
    if counts.judged < verdicts_min:
        verdicts = "1 verdict" if counts.judged == 1 else f"{counts.judged} verdicts"
        return f"{verdicts}, and {verdicts_min} are needed"
    return "" if counts.noise else "no alert was noise"


def _no_way(firing: Sequence[Alert], bounds: Bounds) -> str:
    noise = [alert for alert in firing if alert.verdict == "noise"]
    if not any(bounds.settled(alert) for alert in noise):
        return "how far the noise reached is not known: it is open still, or its peak does not tell"
    return "noise and helpful alerts overlap: every change that drops noise could cost a helpful alert"


# --- the line ---------------------------------------------------------------------------------------------


def _moved_lines(firing: Sequence[Alert], bounds: Bounds) -> Iterator[Proposal]:
    if bounds.high is not None:
        yield from _moved_line(firing, bounds, "max", bounds.high)
    if bounds.low is not None:
        yield from _moved_line(firing, bounds, "min", bounds.low)


def _moved_line(firing: Sequence[Alert], bounds: Bounds, side: Side, old: float) -> Iterator[Proposal]:
    """The smallest move that drops the most noise on this side; computed as if it were the upper one."""
    sign = 1.0 if side == "max" else -1.0
    this = [alert for alert in firing if alert.side == side]
    helpful = min((sign * a.reach for a in this if a.verdict == "helpful"), default=math.inf)
    noise = [sign * a.reach for a in this if a.verdict == "noise" and bounds.settled(a)]
    within = [reach for reach in noise if reach < helpful]
    if not within or max(within) <= sign * old:
        return
    new = sign * rounded_up(max(within), helpful) + 0.0  # no negative zero
    then = bounds.moved(side, new)
    kept = [a for a in firing if then.beyond(a.reach) or not bounds.settled(a)]
    # A helpful alert counts as kept only where it surely is; this one may have opened under another line.
    if any(a.verdict == "helpful" and not then.beyond(a.reach) for a in firing):
        return
    said = f"noise up to {_short(sign * max(within))}"
    why = f"the smallest move that drops all noise ({said})"
    if (left := [a for a in kept if a.verdict == "noise"]) and all(not then.beyond(a.reach) for a in left):
        why = f"the smallest move that drops all noise whose peak is known ({said})"
    elif left:
        why = f"no line drops all noise and keeps what helped; this one drops {said}"
    yield Proposal(side, old, new, counted(firing), counted(kept), why + _nearest_helpful(sign, helpful))


def _nearest_helpful(sign: float, helpful: float) -> str:
    if math.isinf(helpful):
        return "; no alert was helpful, so nothing says how far a true fault reaches"
    return f" and keeps every helpful alert (from {_short(sign * helpful)})"


def rounded_up(least: float, below: float) -> float:
    """A number that a person would write, at least ``least`` and less than ``below``.

    Steps are 1 or 5 times a power of ten and at most a fifth of ``least``: 3.5, 4, 12, 30; finer ones where
    no such number fits, and ``least`` itself in the end.
    """
    if least == 0:
        return 0.0
    exact = Decimal(repr(least))
    fifth = abs(exact) / 5
    step = Decimal(5 if fifth.scaleb(-fifth.adjusted()) >= 5 else 1).scaleb(fifth.adjusted())
    for _ in range(_FINER):
        number = float((exact / step).to_integral_value(ROUND_CEILING) * step)
        if least <= number < below and math.isfinite(number):
            return number
        step /= 5 if step.as_tuple().digits == (5,) else 2
    return least


# --- persistence ------------------------------------------------------------------------------------------


def _debounced(firing: Sequence[Alert], bounds: Bounds, debounce: Debounce | None) -> Iterator[Proposal]:
    """Where noise was short and what helped was long. Points beyond the line are taken to have come in a row.

    The worker counts points beyond its own threshold, so the monitor's line has to be the same one; a score
    after debouncing is a magnitude, so of a raw one only departures in both directions or upwards will do.
    """
    if debounce is None or bounds.high != debounce.threshold or bounds.low not in (None, -bounds.high):
        return
    longest = [
        _points(a, debounce) or 0 for a in firing if a.verdict == "helpful" and not _at_once(a, debounce)
    ]
    below = min(longest, default=CONSECUTIVE_MAX + 1)
    below = min(below, debounce.consecutive if debounce.raw else CONSECUTIVE_MAX)
    short = [n for a in firing if a.verdict == "noise" and (n := _points(a, debounce)) and n < below]
    if not short or (debounce.raw and min(longest, default=below) < debounce.consecutive):
        return
    wanted = debounce.consecutive if debounce.raw else max(short) + 1
    kept = [a for a in firing if (_points(a, debounce) or wanted) >= wanted]
    why = f"noise was short (at most {max(short)} points in a row)"
    why += f", what helped was longer (at least {min(longest)})" if longest else ""
    before, after = counted(firing), counted(kept)
    if debounce.raw:
        yield Proposal("name", None, None, before, after, why)
    else:
        yield Proposal("consecutive", float(debounce.consecutive), float(wanted), before, after, why)


def _at_once(alert: Alert, debounce: Debounce) -> bool:
    """True where one point was far enough to open an episode by itself."""
    return max(abs(alert.value), abs(alert.peak or 0.0)) >= debounce.at_once


def _points(alert: Alert, debounce: Debounce) -> int | None:
    """How many points in a row were beyond the worker's line; None where unknown, or where one was enough.

    A score that is debounced already shows the last of the points that opened its episode and those after it.
    """
    if alert.points is None or _at_once(alert, debounce):
        return None
    return alert.points + (0 if debounce.raw else debounce.consecutive - 1)


# --- who makes the noise ----------------------------------------------------------------------------------


def by_source(alerts: Iterable[Alert]) -> list[tuple[str, Counts]]:
    """The counts of each source, the one with the most noise first."""
    grouped: dict[str, list[Alert]] = {}
    for alert in alerts:
        grouped.setdefault(alert.source, []).append(alert)
    found = [(source, counted(group)) for source, group in grouped.items()]
    return sorted(found, key=lambda entry: (-entry[1].noise, entry[0]))


def _short(value: float) -> str:
    return f"{value:.4g}"
