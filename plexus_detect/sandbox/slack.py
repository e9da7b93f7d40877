"""Slack messages in the platform's shape: built, kept in a bounded list, and delivered to a webhook."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from plexus_detect.sandbox.javascript import number_text
from plexus_detect.sandbox.settings import Settings

KEPT_MAX = 1000
RETRY_S = (60.0, 300.0, 1800.0)
_TIMEOUT_S = 10.0
_CONTEXT_ENTRIES_MAX = 5
_TITLES = {
    "alert.triggered": ("Alert Triggered", "#E01E5A"),
    "alert.resolved": ("Alert Resolved", "#2EB67D"),
    "alert.acknowledged": ("Alert Acknowledged", "#36C5F0"),
    "device.offline": ("Device Offline", "#ECB22E"),
    "device.online": ("Device Online", "#2EB67D"),
}


class Device(NamedTuple):
    """Who a message is about."""

    slug: str
    name: str


def alert_message(
    event: str, device: Device, alert: Mapping[str, Any], summary: str, app_url: str
) -> dict[str, Any]:
    """Return the webhook body of an alert's notification."""
    fields = [("Source", device.name), ("Metric", alert["metric"]), ("Value", number_text(alert["value"]))]
    if alert["threshold"]:  # a threshold of 0 is left out, as the platform does
        fields.append(("Threshold", number_text(alert["threshold"])))
    fields.append(("Severity", alert["severity"]))
    context = [
        (name.replace("_", " ").title(), value if isinstance(value, str) else number_text(value))
        for name, value in alert["context_snapshot"].items()
        if isinstance(value, str | int | float)
    ]
    return _message(event, summary, [fields, context[:_CONTEXT_ENTRIES_MAX]], _link(app_url, device))


def device_message(event: str, device: Device, app_url: str) -> dict[str, Any]:
    """Return the webhook body of a device going offline or coming back."""
    summary = f"{_TITLES[event][0]} for {device.name}"
    return _message(event, summary, [[("Source", device.name)]], _link(app_url, device))


def _link(app_url: str, device: Device) -> str:
    return f"{app_url}/devices/{device.slug}"


def _message(event: str, summary: str, sections: list[list[tuple[str, str]]], link: str) -> dict[str, Any]:
    title, colour = _TITLES[event]
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"*{title}*\n{summary}"}}
    ]
    blocks += [
        {
            "type": "section",
            "fields": [{"type": "mrkdwn", "text": f"*{name}:*\n{text}"} for name, text in section],
        }
        for section in sections
        if section
    ]
    button = {"type": "button", "text": {"type": "plain_text", "text": "View in Plexus"}, "url": link}
    blocks.append({"type": "actions", "elements": [button]})
    return {"attachments": [{"color": colour, "blocks": blocks}]}


@dataclass
class Sent:
    """One message. ``delivery`` is kept (no webhook), pending, delivered or failed."""

    t_ms: int
    event: str
    body: dict[str, Any]
    delivery: str = "kept"
    attempts: int = field(default=0)

    def shown(self) -> dict[str, Any]:
        """Return the message as ``GET /slack`` lists it."""
        return {"t_ms": self.t_ms, "event": self.event, "delivery": self.delivery, "body": self.body}


class Slack:
    """The workspace's integration: a bounded list, and a thread that delivers when there is a webhook.

    Delivery retries after 1, 5 and 30 minutes (scaled) and never holds up the server: at most ``KEPT_MAX``
    messages wait, and the oldest gives way.
    """

    def __init__(self, settings: Settings) -> None:
        self.app_url = ""
        self._webhook = settings.slack_webhook
        self._events = settings.slack_events
        self._targets = frozenset(settings.notification_targets)
        self._waits_s = [seconds / settings.time_scale for seconds in RETRY_S]
        self._messages: deque[Sent] = deque(maxlen=KEPT_MAX)
        self._queue: list[tuple[float, int, Sent]] = []
        self._pushed = 0
        self._wake = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def wants(self, event: str, targets: list[str] | None) -> bool:
        """Tell whether a notification goes out: by subscription, or because a monitor names us."""
        if targets is not None:
            return not self._targets.isdisjoint(targets)
        return event in self._events

    def post(self, t_ms: int, event: str, body: dict[str, Any]) -> None:
        """Keep a message, and queue it for the webhook."""
        sent = Sent(t_ms, event, body)
        self._messages.append(sent)
        if self._webhook is None:
            return
        sent.delivery = "pending"
        with self._wake:
            self._push(0.0, sent)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._deliver, name="sandbox-slack", daemon=True)
                self._thread.start()
            self._wake.notify()

    def messages(self) -> list[Sent]:
        """Return the kept messages, newest last."""
        return list(self._messages)

    def clear(self) -> None:
        """Forget the kept messages."""
        self._messages.clear()

    def close(self) -> None:
        """Stop delivering; what was not delivered stays so."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout=_TIMEOUT_S + 1)

    def _push(self, wait_s: float, sent: Sent) -> None:
        if len(self._queue) >= KEPT_MAX:
            heapq.heappop(self._queue)[2].delivery = "failed"
        self._pushed += 1
        heapq.heappush(self._queue, (time.monotonic() + wait_s, self._pushed, sent))

    def _due(self) -> Sent | None:
        with self._wake:
            while not self._closed:
                wait_s = self._queue[0][0] - time.monotonic() if self._queue else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._queue)[2]
                self._wake.wait(wait_s)
        return None

    def _deliver(self) -> None:
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
            while (sent := self._due()) is not None:
                if self._delivered(client, sent.body):
                    sent.delivery = "delivered"
                elif sent.attempts < len(self._waits_s):
                    with self._wake:
                        self._push(self._waits_s[sent.attempts], sent)
                    sent.attempts += 1
                else:
                    sent.delivery = "failed"

    def _delivered(self, client: httpx.Client, body: dict[str, Any]) -> bool:
        try:
            return client.post(self._webhook or "", json=body).is_success
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
