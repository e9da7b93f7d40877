"""The app's own loops, every 30 s: event monitors, offline monitors and the sweep of orphaned alerts."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from plexus_detect.sandbox.houston import Houston
from plexus_detect.sandbox.javascript import number_text, pg_text, row_text
from plexus_detect.sandbox.monitors import Monitor
from plexus_detect.sandbox.notices import Notices, device_of
from plexus_detect.sandbox.points import Window
from plexus_detect.sandbox.settings import Settings
from plexus_detect.sandbox.sources import Row
from plexus_detect.sandbox.stamps import Stamps
from plexus_detect.sandbox.stores import Stores

LOOP_S = 30.0
SUPPRESSION_S = 300.0
SEEN_WITHIN_MS = 7 * 24 * 3600 * 1000
_ROWS_MAX = 1000
_PER_ROW_MAX = 10


@dataclass
class EventState:
    """Where an event monitor stands, in ms: rows at or before the cursor never alert."""

    version: int
    cursor_ms: int
    quiet_until_ms: int = 0


class Watch:
    """Runs the loops when they are due; ``tick`` may be called as often as one likes."""

    def __init__(
        self, stores: Stores, houston: Houston, notices: Notices, stamps: Stamps, settings: Settings
    ) -> None:
        self._stores = stores
        self.houston = houston
        self._notices = notices
        self._stamps = stamps
        self._settings = settings
        self._loop_ms = settings.span_ms(LOOP_S)
        self._last_ms = stamps.now_ms()
        self._events: dict[str, EventState] = {}
        self._lock = threading.Lock()

    @property
    def age_s(self) -> int:
        """Seconds since the loops ran, as ``/api/ping`` says."""
        return max(0, (self._stamps.now_ms() - self._last_ms) // 1000)

    def tick(self) -> bool:
        """Run the loops if 30 s (scaled) went by since they last ran, and tell whether they did."""
        with self._lock:
            now = self._stamps.now_ms()
            if now - self._last_ms < self._loop_ms:
                return False
            self._last_ms = now
            for monitor in self._stores.monitors.of_kind("event"):
                self._event(monitor, now)
            for monitor in self._stores.monitors.of_kind("offline"):
                self._offline(monitor, now)
            self.houston.sweep()
            return True

    def _event(self, monitor: Monitor, now: int) -> None:
        state = self._events.get(monitor.id)
        if state is None or state.version != monitor.version:
            # The first look only sets the cursor: what came before it is swallowed.
            self._events[monitor.id] = EventState(monitor.version, now)
            return
        window = Window(monitor.org, state.cursor_ms, now, now)
        rows = self._stores.points.after(window, monitor.source, monitor.metric, _ROWS_MAX)
        source = self._stores.sources.find(monitor.org, monitor.source)
        if not rows or source is None:
            return
        state.cursor_ms = rows[-1][0]
        if monitor.fields["delivery"] == "per_row":
            for row in rows[:_PER_ROW_MAX]:
                self._fire_event(monitor, source, [row])
            rows = rows[_PER_ROW_MAX:]
        elif now < state.quiet_until_ms:
            return
        else:
            state.quiet_until_ms = now + self._settings.span_ms(SUPPRESSION_S)
        if rows:
            self._fire_event(monitor, source, rows)

    def _fire_event(self, monitor: Monitor, source: Row, rows: list[tuple[int, float | None]]) -> None:
        at = pg_text(self._stamps.now_ms() * 1000)
        alert = self._stores.alerts.add(
            monitor.org,
            source["id"],
            trigger_type="event",
            metric=monitor.metric,
            value=len(rows),
            severity=monitor.fields["severity"],
            context_snapshot={
                "table": "telemetry",
                "last_ts": row_text(rows[-1][0]),
                "first_ts": row_text(rows[0][0]),
                "row_count": len(rows),
                "latest_value": number_text(rows[-1][1]),
            },
            triggered_at=at,
            closed_at=at,  # born closed: an event has no condition that could end
        )
        words = monitor.fields["message"] or f"{monitor.metric} event"
        self._stores.alerts.note(alert, "triggered", words, {"row_count": len(rows)})
        self._notices.alert("alert.triggered", source, alert, monitor, words)

    def _offline(self, monitor: Monitor, now: int) -> None:
        source = self._stores.sources.find(monitor.org, monitor.source)
        seen = self._stores.points.last_seen(monitor.org, monitor.source)
        if source is None or seen is None or seen < now - SEEN_WITHIN_MS:
            return
        timeout_s = monitor.fields["timeout_seconds"]
        silent = now - seen > self._settings.span_ms(timeout_s)
        active = self._active(monitor)
        name = device_of(source).name
        if silent and active is None:
            alert = self._stores.alerts.add(
                monitor.org,
                source["id"],
                metric="stream",
                severity=monitor.fields["severity"],
                rule_id=monitor.rule_id,
                is_alert_active=True,
            )
            self._tell(
                monitor, source, alert, ("triggered", "offline", f"No data from {name} for {timeout_s}s")
            )
        elif not silent and active is not None:
            at = pg_text(now * 1000)
            closed = {"resolved_at": at, "closed_at": at, "is_alert_active": False}
            alert = self._stores.alerts.update(active, status="resolved", **closed)
            self._tell(monitor, source, alert, ("resolved", "online", f"Data resumed from {name}"))

    def _tell(self, monitor: Monitor, source: Row, alert: dict[str, Any], said: tuple[str, str, str]) -> None:
        transition, presence, words = said
        self._stores.alerts.note(alert, transition, words, {"rule_id": monitor.rule_id})
        self._notices.alert(f"alert.{transition}", source, alert, monitor, words)
        self._notices.device(f"device.{presence}", source)

    def _active(self, monitor: Monitor) -> dict[str, Any] | None:
        active = (a for a in self._stores.alerts.listed(monitor.org) if a["is_alert_active"])
        return next((a for a in active if a["rule_id"] == monitor.rule_id), None)
