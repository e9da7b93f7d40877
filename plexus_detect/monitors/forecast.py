"""How often monitors would have fired in a past period, now and as planned, for people and programs. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from plexus_detect.monitors.firing import Firing
from plexus_detect.monitors.ownership import Key

# Devices that a line names, and firings that the JSON form lists of each monitor and state.
NAMED_MAX, LISTED_MAX = 5, 100

# From this share of its points on within alerts a monitor says nothing: it is always on.
ALWAYS_SHARE = 0.5

# A history that begins after this share of the period is said to be short.
LATE_SHARE = 0.1

_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Forecast:
    """How often one monitor would have fired from ``from_ms`` up to ``to_ms``: ``now``, with the settings
    that the platform has, and ``then``, with those planned; None where there is no monitor.

    ``points`` is how many points it would have judged, the first at ``first_ms``. ``origin``: they are
    stored, or the worker's scores were replayed from the samples; with ``none`` there is no point, and
    ``reason`` says why.
    """

    now: tuple[Firing, ...] | None
    then: tuple[Firing, ...] | None
    points: int
    origin: Literal["stored", "replayed", "none"]
    from_ms: int
    to_ms: int
    first_ms: int | None = None
    reason: str = ""

    @property
    def always(self) -> bool:
        """True when as planned an alert would have been open at most of the points."""
        within = sum(firing.points for firing in self.then or () if firing.closed_ms != firing.opened_ms)
        return self.points > 0 and within >= ALWAYS_SHARE * self.points

    @property
    def never(self) -> bool:
        """True when there were points and none of them would have fired as planned."""
        return self.points > 0 and self.then == ()


@dataclass(frozen=True)
class Preview:
    """The forecasts of a plan over ``days``, in its order. ``documents`` says where each monitor is written;
    ``missing`` is one sentence when there could be no forecast at all, else empty."""

    days: float
    forecasts: Mapping[Key, Forecast] = field(default_factory=dict)
    documents: Mapping[Key, str] = field(default_factory=dict)
    missing: str = ""


def forecast_lines(forecasts: Mapping[Key, Forecast], documents: Mapping[Key, str], days: float) -> list[str]:
    """One line for each document and watched name: how often, on which devices, and how often now."""
    lines = []
    for (document, metric, part), keys in _groups(forecasts, documents).items():
        told = forecast_sentence({key: forecasts[key] for key in keys}, days)
        lines.append(f"{document}: {metric}{' (event)' * (part == 'event')} {told}")
    return lines


def forecast_sentence(forecasts: Mapping[Key, Forecast], days: float) -> str:
    """What monitors that say the same of several sources would have fired, and fire now: no subject."""
    return _sentence([(key[0], forecast) for key, forecast in forecasts.items()], days)


def forecast_json(forecasts: Mapping[Key, Forecast], documents: Mapping[Key, str]) -> list[dict[str, Any]]:
    """The same for programs, one object for each monitor; of its firings the newest are listed."""
    return [
        {
            "source": key[0],
            "metric": key[1],
            "part": key[2],
            "document": documents.get(key, ""),
            "from": _stamp(forecast.from_ms),
            "to": _stamp(forecast.to_ms),
            "origin": forecast.origin,
            "reason": forecast.reason,
            "points": forecast.points,
            "first": None if forecast.first_ms is None else _stamp(forecast.first_ms),
            "always": forecast.always,
            "never": forecast.never,
            "now": _firings_json(forecast.now),
            "then": _firings_json(forecast.then),
        }
        for key, forecast in forecasts.items()
    ]


def _firings_json(firings: Sequence[Firing] | None) -> dict[str, Any] | None:
    if firings is None:
        return None
    listed = [
        {
            "opened": _stamp(firing.opened_ms),
            "closed": None if firing.closed_ms is None else _stamp(firing.closed_ms),
            "peak": firing.peak,
            "points": firing.points,
        }
        for firing in firings[-LISTED_MAX:]
    ]
    return {"count": len(firings), "newest": listed}


def _groups(
    forecasts: Mapping[Key, Forecast], documents: Mapping[Key, str]
) -> dict[tuple[str, str, str], list[Key]]:
    found: defaultdict[tuple[str, str, str], list[Key]] = defaultdict(list)
    for key in forecasts:
        found[documents.get(key, ""), key[1], key[2]].append(key)
    return dict(found)


Of = Sequence[tuple[str, Forecast]]


def _sentence(of: Of, days: float) -> str:
    then, now = _counts(of, "then"), _counts(of, "now")
    seen = [pair for pair in of if pair[1].points]
    if not seen:
        return f"has no preview: {_remarks(of)}"
    devices = f"{len(of)} device{'s' * (len(of) != 1)}"
    had = f"{sum(now.values())} on {len(_fired(now))}"
    if not then:
        fired = f"fired {_times(sum(now.values()))} on {len(_fired(now))} of {devices}"
        return f"{fired} in {_days(days)} and would no more"
    if _fired(then):
        told = f"would have fired {_times(sum(then.values()))} in {_days(days)}"
        told += f" on {len(_fired(then))} of {devices}"
    else:
        told = f"would not have fired in {_days(days)} on {devices}"
    if now:
        told += f" (now: {had})" if now != then else " (as now)"
    told += f": {_devices(then)}" if _fired(then) else ""
    remarks = _remarks(of)
    return told + (f"; {remarks}" if remarks else "")


def _counts(of: Of, state: Literal["now", "then"]) -> dict[str, int]:
    """The firings of each device that has, or would have, the monitor."""
    firings = ((source, getattr(forecast, state)) for source, forecast in of)
    return {source: len(found) for source, found in firings if found is not None}


def _fired(counts: Mapping[str, int]) -> list[str]:
    return sorted((source for source, n in counts.items() if n), key=lambda source: (-counts[source], source))


def _devices(counts: Mapping[str, int]) -> str:
    fired = _fired(counts)
    named = ", ".join(f"{source} {counts[source]}" for source in fired[:NAMED_MAX])
    return named + (f" and {len(fired) - NAMED_MAX} more" if len(fired) > NAMED_MAX else "")


def _remarks(of: Of) -> str:
    """What a reader has to know to judge the counts."""
    always = [source for source, forecast in of if forecast.always]
    replayed = sum(1 for _source, forecast in of if forecast.origin == "replayed")
    late = [f for _, f in of if f.first_ms is not None and f.first_ms > _late_ms(f)]
    parts = [f"the alert would have been open most of the time on {_some(always)}"] if always else []
    if replayed:
        whose = "" if replayed == len(of) else f" of {replayed}"
        parts.append(f"scores{whose} replayed from the samples")
    if late:
        of_days = max((f.to_ms - (f.first_ms or 0)) / _DAY_MS for f in late)
        whose = "" if len(late) == len(of) else f" of {_some([s for s, f in of if f in late])}"
        parts.append(f"points{whose} only in the last {_days(of_days)}")
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for source, forecast in of:
        if forecast.reason:
            reasons[forecast.reason].append(source)
    return "; ".join([*parts, *(f"{reason}: {_some(sources)}" for reason, sources in reasons.items())])


def _late_ms(forecast: Forecast) -> float:
    return forecast.from_ms + LATE_SHARE * (forecast.to_ms - forecast.from_ms)


def _some(sources: Sequence[str]) -> str:
    named = ", ".join(sources[:NAMED_MAX])
    return named + (f" and {len(sources) - NAMED_MAX} more" if len(sources) > NAMED_MAX else "")


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _days(days: float) -> str:
    return "1 day" if days == 1 else f"{days:.2g} days" if days < 10 else f"{days:.0f} days"


def _stamp(t_ms: int) -> str:
    text = (_EPOCH + timedelta(milliseconds=t_ms)).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
