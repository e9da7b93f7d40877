"""Bounds of thresholds that never fire, always do, or lie where nothing can be meant. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from plexus_detect.monitors.documents import shown
from plexus_detect.monitors.lintrules import Findings
from plexus_detect.monitors.model import Wanted
from plexus_detect.monitors.posting import FLAG, LATE, SIGNED, bounds_of, parted

# Fewer values prove nothing.
COUNT_MIN = 10
# So many times as far away as the values are apart are bounds that were hardly meant.
FAR = 10.0
MOST = 0.5


@dataclass(frozen=True)
class Observed:
    """The values of a monitor's metric in the last ``days``: the least, the greatest, how many, about how far
    apart in time, and which share was outside the bounds, None where that is not known."""

    low: float
    high: float
    count: int
    interval_ms: int | None = None
    outside: float | None = None
    days: float = 7.0


def check_threshold(found: Findings, monitor: Wanted, line: float | None) -> None:
    """Rules about the bounds by themselves, and about those of a score whose ``line`` is known."""
    low, high = monitor.settings["min"], monitor.settings["max"]
    metric = monitor.key[1]
    if low is None and high is None:
        what = f"the threshold of {metric} has neither min nor max"
        found.add("never-fires", monitor.origin, what, "give at least one of them")
    elif low is not None and high is not None and low > high:
        what = f"min {shown(low)} is above max {shown(high)}, so every value is outside"
        found.add("always-fires", monitor.origin, what, "swap the two")
    elif low is not None and low == high:
        what = f"min and max are both {shown(low)}, so every other value alerts"
        found.add("one-value", monitor.origin, what, "part the two")
    else:
        _check_score(found, monitor, line)


def _check_score(found: Findings, monitor: Wanted, line: float | None) -> None:
    low, high, metric = monitor.settings["min"], monitor.settings["max"], monitor.key[1]
    _base, kind = parted(metric)
    least, most = bounds_of(kind)
    if kind in SIGNED:
        if (low is None) != (high is None):
            missing, bound = ("min", high) if low is None else ("max", low)
            what = f"{metric} is signed, and only one side of it is watched"
            found.add("one-sided", monitor.origin, what, f"add {missing}: {shown(-bound)}")
        _check_line(found, monitor, line)
        return
    if least is None:
        return
    if (low is not None and low > least) or (high is not None and high < least):
        bound = f"min {shown(low)}" if low is not None and low > least else f"max {shown(high)}"
        what = f"{metric} is at 0 while all is normal, which is outside {bound}"
        found.add("always-fires", monitor.origin, what, f"give a max of {shown(_usual(kind, line))} instead")
        return
    idle = [f"min {shown(low)}"] * (low is not None)
    if high is not None and most is not None and high >= most:
        idle.append(f"max {shown(high)}")
    if idle:
        span = "never below 0" if most is None else f"0 or {shown(most)}"
        what = f"{metric} is {span} and cannot pass {' and '.join(idle)}"
        works = high is not None and f"max {shown(high)}" not in idle
        to_do = "remove that bound" if works else f"give a max of {shown(_usual(kind, line))}"
        found.add("useless-bound" if works else "never-fires", monitor.origin, what, to_do)
    _check_line(found, monitor, line)


def _usual(kind: str, line: float | None) -> float:
    return 0.5 if kind == FLAG else 3.0 if line is None else line


def _check_line(found: Findings, monitor: Wanted, line: float | None) -> None:
    """A bound inside the line: no alert comes earlier, since an episode begins beyond it, and of what is not
    debounced alerts come for what the detector calls normal."""
    low, high, metric = monitor.settings["min"], monitor.settings["max"], monitor.key[1]
    _base, kind = parted(metric)
    if line is None or kind == LATE:
        return
    debounced = kind not in SIGNED and kind not in ("drift", "stuck")
    inside = [f"max {shown(high)}"] * (high is not None and high < line)
    if kind in SIGNED:
        inside += [f"min {shown(low)}"] * (low is not None and low > -line)
    if inside:
        why = "no alert comes sooner" if debounced else "it alerts on what the detector calls normal"
        what = f"{' and '.join(inside)} of {metric} lies inside the detector's line of {shown(line)}: {why}"
        found.add(
            "below-line", monitor.origin, what, f"use {shown(line)} or beyond, or lower the line itself"
        )


def check_history(found: Findings, monitor: Wanted, seen: Observed) -> None:
    """Rules about bounds and the values that came: nearly all outside, or none anywhere near."""
    low, high, (source, metric, _part) = monitor.settings["min"], monitor.settings["max"], monitor.key
    if seen.count < COUNT_MIN or (low is None and high is None) or (None not in (low, high) and low > high):
        return
    span, period = f"{seen.low:.6g} to {seen.high:.6g}", f"in the last {seen.days:g} days"
    everything = (high is not None and seen.low > high) or (low is not None and seen.high < low)
    if everything or (seen.outside is not None and seen.outside >= MOST):
        share = "all" if everything else "most"
        what = f"{share} values of {metric} {period} were outside the bounds"
        found.add("mostly-outside", monitor.origin, what, "see its unit, or move the bound", source, span)
        return
    reach = FAR * (seen.high - seen.low)
    if reach > 0.0 and not (
        (high is not None and high <= seen.high + reach) or (low is not None and low >= seen.low - reach)
    ):
        what = f"the bounds of {metric} are far from all it was {period}"
        found.add("far-from-data", monitor.origin, what, "see its unit, or move them nearer", source, span)
