"""Stand-ins with names: small, honest copies of what the package talks to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from plexus_detect.errors import RejectedError, TransientError

_DEFAULTS: dict[str, dict[str, Any]] = {
    "threshold": {"min": None, "max": None, "severity": "warning", "message": None},
    "event": {"severity": "info", "message": None, "enabled": True, "delivery": None},
    "offline": {"timeout_seconds": 300, "severity": "warning"},
}


def _id(*parts: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(parts)))


class FakeMonitorApi:
    """The monitors API in memory, with the platform's upserts, plain inserts and omissions.

    ``calls`` holds (method, body or path) of every request. The request at index ``fail_at`` raises
    ``failure``; with ``fail_after`` it takes effect first, as when an answer is lost. ``hidden`` keys are
    left out of the next ``hide_reads`` lists, as when a part of the platform's list fails.
    """

    def __init__(self, metrics: Mapping[str, tuple[str, ...]], silent: tuple[str, ...] = ()) -> None:
        self.metrics = dict(metrics)
        self.slugs = [*self.metrics, *silent]
        self.connections: list[str] = []
        self.pairs: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.offline: list[tuple[str, dict[str, Any]]] = []
        self._made = 0
        self.calls: list[tuple[str, Any]] = []
        self.fail_at: int | None = None
        self.failure: Exception = TransientError("POST /api/monitors -> cut", maybe_applied=True)
        self.fail_after = False
        self.hidden: set[tuple[str, str]] = set()
        self.hide_reads = 0

    def writes(self) -> list[tuple[str, Any]]:
        """The requests that change something."""
        return [call for call in self.calls if call[0] != "GET"]

    def _enter(self, method: str, what: Any) -> bool:
        """Note the request; True when its answer will be lost after it took effect."""
        self.calls.append((method, what))
        if self.fail_at != len(self.calls) - 1:
            return False
        if not self.fail_after:
            raise self.failure
        return True

    async def monitors(self) -> bytes:
        """GET /api/monitors."""
        lost = self._enter("GET", "/api/monitors")
        rows: list[dict[str, Any]] = []
        for slug, fields in reversed(self.offline):
            rows.append(self._row(slug, "", slug) | {"offline": fields, "type": "offline"})
        for (slug, metric, part), fields in reversed(self.pairs.items()):
            rows.append(self._row(slug, metric, _id("source", slug)) | {part: fields, "type": part})
        if self.hide_reads > 0:
            self.hide_reads -= 1
            rows = [row for row in rows if (row["source_slug"], row["metric"]) not in self.hidden]
        if lost:
            raise self.failure
        return json.dumps({"monitors": rows}).encode()

    @staticmethod
    def _row(slug: str, metric: str, source_id: str) -> dict[str, Any]:
        return {
            "source_id": source_id,
            "source_slug": slug,
            "source_name": slug,
            "metric": metric,
            "threshold": None,
            "event": None,
            "offline": None,
            "unpinned": False,
            "health": None,
            "created_at": "2026-11-22 01:53:57.727441+00",
        }

    async def sources(self) -> bytes:
        """GET /api/sources."""
        self._enter("GET", "/api/sources")
        rows = [
            {"id": _id("source", s), "slug": s, "source_type": "device", "name": None} for s in self.slugs
        ]
        rows += [{"id": _id("source", s), "slug": s, "source_type": "connection"} for s in self.connections]
        return json.dumps({"sources": rows}).encode()

    async def fleet_health(self) -> bytes:
        """GET /api/fleet/health."""
        self._enter("GET", "/api/fleet/health")
        fleet = [
            {"source_id": slug, "metrics": {name: {"latest": 1} for name in names}, "point_count": 1}
            for slug, names in self.metrics.items()
        ]
        return json.dumps({"fleet": fleet}).encode()

    async def create_source(self, slug: str, name: str) -> None:
        """POST /api/sources."""
        self._enter("POST source", slug)
        if slug not in self.slugs:
            self.slugs.append(slug)

    async def create_monitor(self, body: dict[str, Any]) -> None:
        """POST /api/monitors: replace thresholds and events, add offline monitors."""
        lost = self._enter("POST", json.loads(json.dumps(body, allow_nan=False)))
        slug = self._slug(body["source_id"])
        for part in ("threshold", "event"):
            if body.get(part) is not None:
                old = self.pairs.get((slug, body["metric"], part), {})
                self.pairs[slug, body["metric"], part] = self._stored(part, slug + body["metric"], body, old)
        if body.get("offline") is not None:
            self._made += 1  # An id is never given again.
            self.offline.append((slug, self._stored("offline", f"{slug}{self._made}", body, {})))
        if lost:
            raise self.failure

    @staticmethod
    def _stored(part: str, seed: str, body: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        known = {k: v for k, v in body[part].items() if k in _DEFAULTS[part]}
        targets = body.get("notification_targets", old.get("notification_target_ids"))
        more = {"enabled": True} if part == "offline" else {}
        return _DEFAULTS[part] | more | known | {"id": _id(part, seed), "notification_target_ids": targets}

    async def patch_monitor(self, body: dict[str, Any]) -> None:
        """PATCH /api/monitors: targets only."""
        lost = self._enter("PATCH", json.loads(json.dumps(body)))
        if "offline_id" in body:
            found = [f for _, f in self.offline if f["id"] == body["offline_id"]]
        else:
            pair = (self._slug(body["source_id"]), body["metric"])
            found = [f for key, f in self.pairs.items() if key[:2] == pair]
        if not found:
            raise RejectedError('PATCH /api/monitors -> 404: {"error":"Monitor not found"}')
        for fields in found:
            fields["notification_target_ids"] = body["notification_targets"]
        if lost:
            raise self.failure

    async def delete_pair(self, source: str, metric: str) -> None:
        """DELETE /api/monitors: success also when nothing matched."""
        assert metric, "the platform would delete every offline monitor of the source"
        lost = self._enter("DELETE", {"source_id": source, "metric": metric})
        for part in ("threshold", "event"):
            self.pairs.pop((self._slug(source), metric, part), None)
        if lost:
            raise self.failure

    async def delete_offline(self, monitor_id: str) -> None:
        """DELETE /api/monitors of one offline monitor."""
        lost = self._enter("DELETE", {"offline_id": monitor_id})
        self.offline = [entry for entry in self.offline if entry[1]["id"] != monitor_id]
        if lost:
            raise self.failure

    def _slug(self, source: str) -> str:
        for slug in (*self.slugs, *self.connections):
            if source in (slug, _id("source", slug)):
                return slug
        raise RejectedError(f"POST /api/monitors -> 404: Source '{source}' not found in org")
