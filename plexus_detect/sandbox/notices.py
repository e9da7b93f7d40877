"""From an alert to a notification: who is told, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plexus_detect.sandbox.monitors import Monitor
from plexus_detect.sandbox.slack import Device, Slack, alert_message, device_message
from plexus_detect.sandbox.sources import Row
from plexus_detect.sandbox.stamps import Stamps


def device_of(source: Row) -> Device:
    """Return how messages name a source."""
    return Device(source["slug"], source["name"] or source["slug"])


class Notices:
    """Sends what the monitors' transitions are worth, in the platform's own words."""

    def __init__(self, slack: Slack, stamps: Stamps) -> None:
        self._slack = slack
        self._stamps = stamps
        self._silenced_until_ms: dict[str, int] = {}

    def silence(self, rule_id: str, until_ms: int) -> None:
        """Mute one rule until a time."""
        self._silenced_until_ms[rule_id] = until_ms

    def alert(
        self,
        event: str,
        source: Row,
        alert: Mapping[str, Any],
        monitor: Monitor | None,
        summary: str | None = None,
    ) -> None:
        """Tell of an alert. Thresholds always read "below threshold" and never use the monitor's message."""
        rule = monitor.rule_id if monitor else alert["rule_id"]
        if self._stamps.now_ms() < self._silenced_until_ms.get(rule or "", 0):
            return
        if self._slack.wants(event, monitor.targets if monitor else None):
            words = summary or f"{alert['metric']} below threshold"
            body = alert_message(event, device_of(source), alert, words, self._slack.app_url)
            self._slack.post(self._stamps.now_ms(), event, body)

    def device(self, event: str, source: Row) -> None:
        """Tell of a device going offline or coming back; monitors' targets play no part in it."""
        if self._slack.wants(event, None):
            body = device_message(event, device_of(source), self._slack.app_url)
            self._slack.post(self._stamps.now_ms(), event, body)
