"""Opened episodes as alerts for people and programs, each once within a cool-down."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from plexus_detect.evaluate import Event
from plexus_detect.lane import Policy
from plexus_detect.series import SUFFIX, Kind, SeriesKey
from plexus_detect.telling import told

Severity = Literal["warning", "critical"]

# An alert is critical above so many times its threshold.
CRITICAL = 3.0

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True)
class Alert:
    """What is written to the topic of alerts. ``score`` and ``threshold`` are in one unit, magnitudes. The
    sample is the one that opened the episode, its values those of its whole message; of an event of a whole
    fleet there is none, the score is a number of devices, and ``device`` names the first of the fleet.

    ``id`` is the same whenever the same messages are read again. ``metric`` is the metric, or the group.
    """

    t_ms: int
    device: str
    sample_index: int | None
    score: float
    threshold: float
    severity: Severity
    reason: str
    sensor_values: Mapping[str, float]
    metric: str
    kind: str
    id: str

    def encode(self) -> bytes:
        """The JSON of the alert; its time is in seconds since the epoch, as in a reading."""
        return _ENCODER.encode(
            {
                "timestamp": self.t_ms / 1000,
                "device": self.device,
                "sample_index": self.sample_index,
                "score": self.score,
                "threshold": self.threshold,
                "severity": self.severity,
                "reason": self.reason,
                "sensor_values": self.sensor_values,
            }
        )


def severity_of(score: float, threshold: float) -> Severity:
    """Critical above three times the threshold."""
    return "critical" if score > CRITICAL * threshold else "warning"


def threshold_of(event: Event, key: SeriesKey, rule: int, policy: Policy) -> float:
    """The line that an event's score is beyond, in the unit of the score."""
    if event.kind is Kind.ANOMALY:
        return next(group.episode.threshold for group in policy.groups if group.is_named(key))
    of = policy.rules[rule]
    if event.kind is Kind.FLEET_EVENT:
        return float(of.fleet.group_min) if of.fleet is not None else 1.0
    return of.fleet_episode.threshold if event.kind is Kind.FLEET_ZSCORE else of.episode.threshold


def alert_of(
    event: Event, key: SeriesKey, threshold: float, sample: tuple[int | None, Mapping[str, float]], name: str
) -> Alert:
    """The alert of an event; ``name`` is that of the topic and partition its messages came from."""
    kind, score = SUFFIX[event.kind].removeprefix("."), abs(event.score)
    identity = "\n".join((name, *key, kind, str(event.t_ms)))
    return Alert(
        t_ms=event.t_ms,
        device=key.source,
        sample_index=sample[0],
        score=score,
        threshold=threshold,
        severity=severity_of(score, threshold),
        reason=str(told(event, key)["msg"]),
        sensor_values=sample[1],
        metric=key.metric,
        kind=kind,
        id=hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(),
    )


class CoolDown:
    """Which alerts are told: of one series and kind none within ``quiet_ms`` of event time after the last one
    told, but for the first critical one."""

    def __init__(self, quiet_ms: int) -> None:
        self.quiet_ms = quiet_ms
        # When the last alert was, and the last critical one (-1: never), by series and kind.
        self.told: dict[tuple[int, int], tuple[int, int]] = {}

    def lets(self, series: int, kind: Kind, t_ms: int, severity: Severity) -> bool:
        """Whether an alert is told, which then begins a cool-down."""
        last, critical = self.told.get((series, kind), (-1, -1))
        since = critical if severity == "critical" else last
        if since >= 0 and t_ms - since < self.quiet_ms:
            return False
        self.told[series, kind] = (t_ms, t_ms if severity == "critical" else critical)
        return True

    def forget(self, series: set[int]) -> None:
        """Forget series that are gone."""
        self.told = {alert: times for alert, times in self.told.items() if alert[0] not in series}
