"""Whether what a monitor watches is what a configuration posts, and which values such a score takes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from plexus_detect.monitors.expansion import scored_metric
from plexus_detect.series import SUFFIX

# Names of kinds are those of the suffixes, without the dot.
OF_FLEET = frozenset({"fleet_zscore", "fleet_zscore_raw", "fleet_event"})
SIGNED = frozenset({"zscore_raw", "fleet_zscore_raw"})
# What is in the metric's own unit.
IN_UNITS = frozenset({"expected", "lower", "upper"})
FLAG, LATE, JOINT = "fleet_event", "zscore_late", "anomaly"
# Which detectors have a score of their own for a single check.
_CHECKED_BY = {"drift": ("auto", "drift"), "stuck": ("auto", "stuck")}


class Never(NamedTuple):
    """Why a score is never posted, and what to do about it."""

    why: str
    to_do: str


@dataclass(frozen=True)
class RuleOf:
    """One rule of ``series``: its line, its detector and whether its sources are compared."""

    line: float
    detector: str
    compared: bool


@dataclass(frozen=True)
class ScoreGroup:
    """One entry of ``detectors``: the metrics it joins and the sources it takes."""

    metrics: frozenset[str]
    takes: Callable[[str], bool]


@dataclass(frozen=True)
class Posting:
    """What a configuration posts.

    ``series`` are the kinds that are posted, ``rule_of`` gives the position in ``rules`` for a source and a
    metric, ``cohort_of`` what a source is compared within; both give None for neither. ``heartbeat`` is the
    source of the sign of life with its interval, None where there is none.
    """

    series: Collection[str]
    rules: tuple[RuleOf, ...]
    rule_of: Callable[[str, str], int | None]
    cohort_of: Callable[[str], int | None]
    fleet: bool = True
    fleet_line: float = 3.0
    fleet_min: int = 5
    group_line: float = 3.0
    groups: Mapping[str, ScoreGroup] = field(default_factory=dict)
    heartbeat: tuple[str, int] | None = None

    def never(self, metric: str, sources: Collection[str] = ()) -> Never | None:
        """Why the score ``metric`` is never posted on any of ``sources``, or, without sources, on any at all;
        None when it may be, or is no name of ours."""
        base, kind = parted(metric)
        if base is None:
            return None
        if f".{kind}" not in SUFFIX.values():
            return Never(f"no version posts .{kind}", "watch another name")
        if kind not in self.series:
            return Never(f"post.series has no {kind}", f"add {kind} to post.series, or watch another score")
        if kind == JOINT:
            return self._never_joint(base, sources)
        if kind in OF_FLEET and not self.fleet:
            return Never("fleet.enabled is false", "switch it on, or remove this monitor")
        reasons = [self._untaken(base, kind, source) for source in sources]
        return next(iter(reasons), None) if all(reasons) else None

    def _never_joint(self, name: str, sources: Collection[str]) -> Never | None:
        group = self.groups.get(name)
        if group is None:
            return Never(f"detectors has no {name}", f"add a detector {name}, or correct the metric")
        if sources and not any(map(group.takes, sources)):
            return Never(f"detector {name} takes no such source", "widen its sources, or narrow this monitor")
        return None

    def _untaken(self, base: str, kind: str, source: str) -> Never | None:
        """Why one source has no such score."""
        index = self.rule_of(source, base)
        if index is None:
            return Never(f"no rule of series takes {base}", "add one, or narrow this monitor")
        rule = self.rules[index]
        if kind in _CHECKED_BY and rule.detector not in _CHECKED_BY[kind]:
            return Never(f"detector {rule.detector} has no {kind}", "let detect.detector be auto")
        if kind not in OF_FLEET:
            return None
        if not rule.compared:
            return Never("its rule says fleet: false", "remove that, or narrow this monitor")
        if self.cohort_of(source) is None:
            return Never(
                "no cohort holds its source and fleet.rest is false", "add it to one of fleet.cohorts"
            )
        return None

    def line(self, metric: str, source: str | None) -> float | None:
        """The line in units of a score: beyond it something is odd. None where the score has no line, or
        none that is the same for all sources when ``source`` is None."""
        base, kind = parted(metric)
        if base is None or kind in IN_UNITS or kind == FLAG:
            return None
        if kind == JOINT:
            return self.group_line
        if kind in OF_FLEET:
            return self.fleet_line
        index = None if source is None else self.rule_of(source, base)
        if index is not None:
            return self.rules[index].line
        lines = {rule.line for rule in self.rules}
        return lines.pop() if len(lines) == 1 else None


def parted(metric: str) -> tuple[str | None, str]:
    """A name as what it was made from and its kind; None and nothing for one that devices send."""
    base = scored_metric(metric)
    return base, "" if base is None else metric[len(base) + 1 :]


def bounds_of(kind: str) -> tuple[float | None, float | None]:
    """The least and the greatest value that a score can take; None for no bound."""
    if kind == "" or kind in SIGNED or kind in IN_UNITS:
        return None, None
    return 0.0, 1.0 if kind == FLAG else None
