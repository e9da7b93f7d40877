"""Alerts and their timelines."""

from __future__ import annotations

import json
from typing import Any

from plexus_detect.sandbox.database import Database
from plexus_detect.sandbox.javascript import Json, pg_text
from plexus_detect.sandbox.stamps import Stamps, new_id

Alert = dict[str, Any]
STATUSES = ("open", "acknowledged", "resolved")


class AlertStore:
    """One JSON row per alert and per entry of its timeline."""

    def __init__(self, database: Database, stamps: Stamps) -> None:
        self._db = database
        self._stamps = stamps

    def add(self, org: str, source_uuid: str, **given: Json) -> Alert:
        """Open an alert with the columns given and return its row."""
        now_us = self._stamps.now_us()
        now = pg_text(now_us)
        alert: Alert = {
            "id": new_id(),
            "org_id": org,
            "source_id": source_uuid,
            "trigger_type": "alert_rule",
            "metric": "",
            "value": 0,
            "threshold": None,
            "bound": None,
            "severity": "warning",
            "status": "open",
            "recommended_actions": [],
            "alert_stats": [],
            "context_snapshot": {},
            "limit_id": None,
            "triggered_at": now,
            "acknowledged_at": None,
            "acknowledged_by": None,
            "resolved_at": None,
            "resolved_by": None,
            "resolution_notes": None,
            "created_at": now,
            "updated_at": now,
            "rule_id": None,
            "is_alert_active": False,
            "closed_at": None,
            "current_verdict": None,
        } | given
        self._db.run("INSERT INTO alerts VALUES (?, ?, ?, ?)", (alert["id"], org, json.dumps(alert), now_us))
        return alert

    def update(self, alert: Alert, **changes: Json) -> Alert:
        """Write columns of an alert and return the new row."""
        alert = alert | changes | {"updated_at": pg_text(self._stamps.now_us())}
        self._db.run("UPDATE alerts SET row = ? WHERE id = ?", (json.dumps(alert), alert["id"]))
        return alert

    def get(self, org: str | None, alert_id: str) -> Alert | None:
        """Return an alert by id; ``org`` None is the platform itself asking."""
        for its_org, row in self._db.rows("SELECT org, row FROM alerts WHERE id = ?", (alert_id,)):
            if org in {None, its_org}:
                found: Alert = json.loads(row)
                return found
        return None

    def listed(self, org: str | None = None) -> list[Alert]:
        """Return alerts, the newest trigger first; ``org`` None is every org."""
        found = self._db.rows(
            "SELECT row FROM alerts WHERE ? IS NULL OR org = ? ORDER BY triggered_us DESC", (org, org)
        )
        return [json.loads(row) for (row,) in found]

    def note(self, alert: Alert, event_type: str, message: str, metadata: dict[str, Any]) -> None:
        """Append to an alert's timeline."""
        now_us = self._stamps.now_us()
        event = {
            "id": new_id(),
            "org_id": alert["org_id"],
            "alert_id": alert["id"],
            "event_type": event_type,
            "actor_id": None,
            "message": message,
            "metadata": metadata,
            "created_at": pg_text(now_us),
        }
        self._db.run(
            "INSERT INTO alert_events VALUES (?, ?, ?, ?)",
            (event["id"], alert["id"], json.dumps(event), now_us),
        )

    def timeline(self, alert: Alert) -> list[dict[str, Any]]:
        """Return the entries of an alert's timeline, oldest first."""
        found = self._db.rows(
            "SELECT row FROM alert_events WHERE alert_id = ? ORDER BY created_us", (alert["id"],)
        )
        return [json.loads(row) for (row,) in found]
