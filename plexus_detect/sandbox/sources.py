"""Sources: what the app knows of devices, and whether the loader records them."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

from plexus_detect.sandbox.database import Database
from plexus_detect.sandbox.javascript import Json, pg_text
from plexus_detect.sandbox.points import PointStore
from plexus_detect.sandbox.settings import Settings
from plexus_detect.sandbox.stamps import Stamps, is_uuid, new_id

SLUG = re.compile(r"[a-z0-9][a-z0-9._-]*", re.ASCII)
SLUG_BYTES_MAX = 256
_ANNOUNCE_S = 0.5
_ONLINE_S = 300.0

Row = dict[str, Any]


class SourceStore:
    """The source table, kept in memory and written through.

    A slug first met in telemetry is announced, and the source exists half a second later: what it sends
    until then is accepted and never stored. A UUID-shaped slug is never created.
    """

    def __init__(self, database: Database, points: PointStore, stamps: Stamps, settings: Settings) -> None:
        self._db = database
        self._points = points
        self._stamps = stamps
        self._announce_ms = settings.span_ms(_ANNOUNCE_S)
        self._online_ms = settings.span_ms(_ONLINE_S)
        self._lock = threading.Lock()
        self._announced: dict[tuple[str, str], int] = {}
        self._rows: dict[tuple[str, str], Row] = {
            (org, slug): json.loads(row)
            for org, slug, row in database.rows("SELECT org, slug, row FROM sources ORDER BY created_us")
        }

    def create(self, org: str, slug: str, *, status: str = "pending", **given: Json) -> Row | None:
        """Add a source and return its row, or None when the slug is taken."""
        with self._lock:
            if (org, slug) in self._rows:
                return None
            created_us = self._stamps.now_us()
            row = _new_row(org, slug, pg_text(created_us)) | {"status": status} | given
            self._db.run(
                "INSERT INTO sources VALUES (?, ?, ?, ?, ?)",
                (row["id"], org, slug, json.dumps(row), created_us),
            )
            self._rows[org, slug] = row
            self._announced.pop((org, slug), None)
        return self._shown(row, self._points.last_seen(org, slug))

    def records(self, org: str, slug: str) -> bool:
        """Tell whether the loader stores this source's points now; announce it when it is unknown."""
        row = self._rows.get((org, slug))
        if row is None:
            if is_uuid(slug):
                return False
            with self._lock:
                self._announced.setdefault((org, slug), self._stamps.now_ms())
            self.settle()
            row = self._rows.get((org, slug))
        return row is not None and row["config"].get("recording") is True

    def settle(self) -> None:
        """Create the announced sources whose half second is over."""
        now = self._stamps.now_ms()
        with self._lock:
            due = [key for key, since in self._announced.items() if now - since >= self._announce_ms]
        for org, slug in due:
            self.create(org, slug, status="online")

    def find(self, org: str, name: str) -> Row | None:
        """Return the row with this slug or id as the app shows it, or None."""
        self.settle()
        row = self._rows.get((org, name))
        if row is None and is_uuid(name):
            row = next((r for (o, _), r in list(self._rows.items()) if o == org and r["id"] == name), None)
        return None if row is None else self._shown(row, self._points.last_seen(org, row["slug"]))

    def listed(self, org: str, *, kind: str | None = None, stored_status: str | None = None) -> list[Row]:
        """Return the rows of an org, newest first. The status filter sees the stored column only."""
        self.settle()
        seen = self._points.sources(org)
        return [
            self._shown(row, seen.get(row["slug"]))
            for (its_org, _), row in reversed(list(self._rows.items()))
            if its_org == org
            and (kind is None or row["source_type"] == kind)
            and (stored_status is None or row["status"] == stored_status)
        ]

    def _shown(self, row: Row, last_seen_ms: int | None) -> Row:
        if last_seen_ms is None:
            return dict(row)
        shown = row | {"last_seen_at": pg_text(last_seen_ms * 1000)}
        if row["source_type"] == "device":
            fresh = self._stamps.now_ms() - last_seen_ms < self._online_ms
            shown["status"] = "online" if fresh else "offline"
        return shown


def _new_row(org: str, slug: str, created: str) -> Row:
    return {
        "id": new_id(),
        "org_id": org,
        "source_type": "device",
        "slug": slug,
        "name": None,
        "description": None,
        "status": "pending",
        "last_seen_at": None,
        "last_connected_at": None,
        "last_error": None,
        "device_type": None,
        "connection_type": None,
        "credentials_encrypted": None,
        "config": {"recording": True},
        "metadata": {},
        "created_at": created,
        "updated_at": created,
        "health_score": None,
        "tags": [],
        "is_telemetry_store": False,
        "ssh_credentials_encrypted": None,
        "visibility": "org",
        "created_by": None,
    }
