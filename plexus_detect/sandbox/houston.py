"""Thresholds, evaluated on every accepted point by the clock of processing, never by the point's own time.

Strict: a value equal to its bound is in bounds. One breach opens; two in-bounds points at least 30 s apart
close; breaches in the 60 s after a close are forgotten. Intervals are scaled. State is in memory.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from plexus_detect.sandbox.javascript import Json, number_text, pg_text, plain_number
from plexus_detect.sandbox.monitors import Monitor
from plexus_detect.sandbox.notices import Notices
from plexus_detect.sandbox.points import Point
from plexus_detect.sandbox.settings import Settings
from plexus_detect.sandbox.stamps import Stamps
from plexus_detect.sandbox.stores import Stores

RECOVERY_S = 30.0
COOLDOWN_S = 60.0
RECONCILE_S = 300.0
_FORGETTING = 0.01


@dataclass
class Distribution:
    """Exponentially weighted mean and deviation of a rule's values, as alerts carry it."""

    mean: float = 0.0
    variance: float = 0.0
    count: int = 0

    def learn(self, value: float) -> None:
        """Take one value in."""
        delta = value - self.mean if self.count else 0.0
        self.mean = self.mean + _FORGETTING * delta if self.count else value
        self.variance = (1 - _FORGETTING) * (self.variance + _FORGETTING * delta * delta)
        self.count += 1

    def shown(self) -> dict[str, Any]:
        """Return the distribution as an alert's context shows it."""
        deviation = plain_number(math.sqrt(self.variance))
        return {"mean": plain_number(self.mean), "count": self.count, "stddev": deviation}


@dataclass
class RuleState:
    """What the engine remembers of one rule; times in ms of the sandbox's clock."""

    alert_id: str | None = None
    opened_ms: int = 0
    recovery_since_ms: int | None = None
    cooldown_until_ms: int = 0
    trigger: float = 0.0
    peak: float = 0.0
    breaches: int = 0
    points: int = 0
    values: Distribution = field(default_factory=Distribution)
    at_open: dict[str, Any] = field(default_factory=dict)


class Houston:
    """The threshold engine of one platform."""

    def __init__(self, stores: Stores, notices: Notices, stamps: Stamps, settings: Settings) -> None:
        self._monitors = stores.monitors
        self._alerts = stores.alerts
        self._sources = stores.sources
        self._notices = notices
        self._stamps = stamps
        self._recovery_ms = settings.span_ms(RECOVERY_S)
        self._cooldown_ms = settings.span_ms(COOLDOWN_S)
        self._states: dict[str, RuleState] = {}
        self._lock = threading.Lock()
        self._reconcile_at_ms = stamps.now_ms() + settings.span_ms(RECONCILE_S)
        # Alerts that an earlier run left active: a breach takes them up again without a word.
        self._left = {
            alert["rule_id"]: alert["id"]
            for alert in stores.alerts.listed()
            if alert["is_alert_active"] and alert["rule_id"] and alert["metric"] != "stream"
        }

    def observe(self, org: str, points: Iterable[Point]) -> None:
        """Evaluate points in the order they arrived."""
        if not self._monitors.of_kind("threshold"):
            return
        find = self._monitors.find
        with self._lock:
            for point in points:
                rule = find(org, "threshold", point.source, point.metric)
                if rule is not None:
                    self._step(rule, point.value)

    def _step(self, rule: Monitor, value: float) -> None:
        state = self._states.setdefault(rule.rule_id, RuleState())
        state.values.learn(value)
        bound = _broken_bound(rule, value)
        now = self._stamps.now_ms()
        if state.alert_id is None:
            if bound is not None and now >= state.cooldown_until_ms:
                self._open(rule, state, value, bound)
            return
        state.points += 1
        if bound is not None:
            state.breaches += 1
            state.peak = max(state.peak, value, key=abs)
            state.recovery_since_ms = None
        elif state.recovery_since_ms is None:
            state.recovery_since_ms = now
        elif now - state.recovery_since_ms >= self._recovery_ms:
            self._close(rule, state)

    def _open(self, rule: Monitor, state: RuleState, value: float, bound: float) -> None:
        now = self._stamps.now_ms()
        state.opened_ms, state.recovery_since_ms = now, None
        state.trigger = state.peak = value
        state.breaches, state.points = 0, 1
        state.at_open = state.values.shown()
        left = self._left.pop(rule.rule_id, None)
        if left is not None:
            state.alert_id = left
            return
        source = self._sources.find(rule.org, rule.source)
        if source is None:
            return
        shown_value, shown_bound = plain_number(value), plain_number(bound)
        alert = self._alerts.add(
            rule.org,
            source["id"],
            metric=rule.metric,
            value=shown_value,
            threshold=shown_bound,
            severity=rule.fields["severity"],
            context_snapshot={"threshold": shown_bound, "distribution": state.at_open},
            triggered_at=pg_text(now // 1000 * 1_000_000),
            rule_id=rule.rule_id,
            is_alert_active=True,
        )
        state.alert_id = alert["id"]
        words = f"Alert opened: {rule.metric} = {number_text(value)} (threshold: {number_text(bound)})"
        self._alerts.note(alert, "triggered", words, _metadata(rule, shown_value, state.at_open))
        self._notices.alert("alert.triggered", source, alert, rule)

    def _close(self, rule: Monitor, state: RuleState) -> None:
        now = self._stamps.now_ms()
        alert_id, state.alert_id = state.alert_id, None
        state.cooldown_until_ms = now + self._cooldown_ms
        closing = state.values.shown()
        stats = {
            "opened_at": state.opened_ms // 1000,
            "closed_at": now // 1000,
            "duration_seconds": (now - state.opened_ms) // 1000,
            "trigger_value": plain_number(state.trigger),
            "peak_value": plain_number(state.peak),
            "retrigger_count": state.breaches,
            "data_point_count": state.points,
            "open_dist": state.at_open,
            "close_dist": closing,
            "dist_drift": plain_number(abs(closing["mean"] - state.at_open["mean"])),
        }
        self._resolve(rule, alert_id or "", stats, closing)

    def _resolve(self, rule: Monitor, alert_id: str, stats: dict[str, Any], closing: dict[str, Any]) -> None:
        alert = self._alerts.get(None, alert_id)
        source = self._sources.find(rule.org, rule.source)
        if alert is None or source is None:
            return
        at = pg_text(self._stamps.now_ms() // 1000 * 1_000_000)
        by_hand = alert["status"] == "resolved"
        alert = self._alerts.update(
            alert,
            status="resolved",
            resolved_at=alert["resolved_at"] or at,
            closed_at=at,
            is_alert_active=False,
            alert_stats=stats or alert["alert_stats"],
        )
        words = f"Condition cleared: {rule.metric} = {number_text(alert['value'])}"
        self._alerts.note(alert, "resolved", words, _metadata(rule, alert["value"], closing))
        if not by_hand:
            self._notices.alert("alert.resolved", source, alert, rule)

    def forget(self, rule_id: str) -> None:
        """Drop a deleted rule. Its open alert loses the rule now and is closed by the next sweep."""
        with self._lock:
            self._states.pop(rule_id, None)
            self._left.pop(rule_id, None)
        for alert in self._alerts.listed():
            if alert["rule_id"] == rule_id:
                self._alerts.update(alert, rule_id=None)

    def sweep(self) -> None:
        """Close alerts whose rule is gone, and once, 300 s after the start, those that no breach renewed."""
        now = self._stamps.now_ms()
        for alert in self._alerts.listed():
            if alert["is_alert_active"] and alert["rule_id"] is None:
                at = pg_text(now * 1000)
                self._alerts.update(
                    alert, status="resolved", resolved_at=at, closed_at=at, is_alert_active=False
                )
        if now < self._reconcile_at_ms:
            return
        with self._lock:
            for rule in self._monitors.of_kind("threshold") if self._left else []:
                left = self._left.pop(rule.rule_id, None)
                if left is not None:
                    self._resolve(rule, left, {}, Distribution().shown())
            self._left.clear()


def _broken_bound(rule: Monitor, value: float) -> float | None:
    upper, lower = rule.fields["max"], rule.fields["min"]
    if upper is not None and value > upper:
        return float(upper)
    if lower is not None and value < lower:
        return float(lower)
    return None


def _metadata(rule: Monitor, value: Json, distribution: dict[str, Any]) -> dict[str, Any]:
    return {"value": value, "rule_id": rule.rule_id, "distribution": distribution}
