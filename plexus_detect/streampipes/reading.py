"""Events of data streams as rows of metrics, and verdicts as events. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from plexus_detect.backtest.moments import time_ms
from plexus_detect.learn.rows import aligned, read_records
from plexus_detect.series import F64, I64

# An event whose time is further ahead of now is refused: those that follow would all count as late.
AHEAD_MS_MAX = 300_000

# The name of a device is cut to as much.
DEVICE_CHARS_MAX = 256


@dataclass(frozen=True)
class Form:
    """How the events of a stream are read.

    ``device`` is the property that names the device, or empty where the stream ``name`` is one device;
    ``timestamp`` the property of the time, ``metrics`` pairs of a metric and its property.
    """

    name: str
    device: str
    timestamp: str
    metrics: tuple[tuple[str, str], ...]


class Reading(NamedTuple):
    """m events as rows: the position of each among those that were read, its device, its time, and its
    metrics, (m, k), NaN for what is missing; ``refused`` counts the others by the reason."""

    at: list[int]
    devices: list[str]
    t_ms: I64
    x: F64
    refused: Counter[str]


def read(events: Sequence[tuple[Form, object]], metrics: Sequence[str], now_ms: int) -> Reading:
    """Events as rows of these metrics, in the order of their arrival."""
    at: list[int] = []
    devices: list[str] = []
    times: list[int] = []
    records: list[dict[str, object]] = []
    refused: Counter[str] = Counter()
    for i, (form, event) in enumerate(events):
        found = _head(form, event, now_ms)
        if isinstance(found, str):
            refused[found] += 1
            continue
        assert isinstance(event, Mapping)  # noqa: S101 - or it would have been refused
        at.append(i)
        devices.append(found[0])
        times.append(found[1])
        records.append({metric: event.get(name) for metric, name in form.metrics})
    names, x = read_records(records)
    return Reading(at, devices, np.array(times, np.int64), aligned(x, names, metrics), refused)


def _head(form: Form, event: object, now_ms: int) -> tuple[str, int] | str:
    """Device and time of an event, or why it is refused."""
    if not isinstance(event, Mapping):
        return "the event is no JSON object"
    t_ms = event_ms(event.get(form.timestamp))
    if t_ms is None:
        return f"'{form.timestamp}' is no time"
    if t_ms > now_ms + AHEAD_MS_MAX:
        return "the time is ahead of now"
    if not form.device:
        return form.name, t_ms
    named = event.get(form.device)
    if isinstance(named, bool) or not isinstance(named, str | int) or named == "":
        return f"'{form.device}' names no device"
    return str(named)[:DEVICE_CHARS_MAX], t_ms


def event_ms(value: object) -> int | None:
    """Milliseconds since the epoch of a number, or of a text that is one or an ISO time; None for others."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return time_ms(str(value))
    except (ValueError, OverflowError):
        return None


class Verdict(NamedTuple):
    """What is said of one event: ``score`` 1.0 at the line (NaN: there is none), ``is_anomaly`` beyond it,
    ``in_episode`` while an alert is open, and the ``reason``: of the score, or why there is none."""

    score: float
    is_anomaly: bool
    in_episode: bool
    reason: str


# The properties of the output stream beside timestamp and device: their types, and the values they take.
OUTPUT = {
    "is_anomaly": "boolean",
    "score": "double",
    "severity": "string",
    "reason": "string",
    "in_episode": "boolean",
}

# Beyond so many times the line an anomaly is critical.
CRITICAL = 3.0


def answer(form: Form, device: str, t_ms: int, verdict: Verdict) -> dict[str, Any]:
    """The event that is published. Without a score the property is not there: a number would be a lie."""
    out: dict[str, Any] = {
        "timestamp": t_ms,
        form.device or "device": device,
        "is_anomaly": verdict.is_anomaly,
        "severity": severity(verdict),
        "reason": verdict.reason,
        "in_episode": verdict.in_episode,
    }
    if math.isfinite(verdict.score):
        out["score"] = round(verdict.score, 6)
    return out


def severity(verdict: Verdict) -> str:
    """``none``, ``warning``, or ``critical`` above three times the line."""
    if not verdict.is_anomaly:
        return "none"
    return "critical" if verdict.score > CRITICAL else "warning"
