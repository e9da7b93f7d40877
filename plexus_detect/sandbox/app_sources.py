"""``/api/sources`` and what the app tells about devices: fleet health, last values, schemas."""

from __future__ import annotations

import uuid
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from plexus_detect.sandbox.calls import (
    Call,
    Refusal,
    app_key,
    internal_error,
    json_body,
    nobody,
    reply,
    route,
    session_only,
)
from plexus_detect.sandbox.javascript import pg_text, plain_number, row_text
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.points import FOREVER_MS, Window
from plexus_detect.sandbox.schema import MISSING, expected, one_of, optional
from plexus_detect.sandbox.sources import SLUG, SLUG_BYTES_MAX
from plexus_detect.sandbox.stamps import is_uuid

_HOUR_MS = 3_600_000
_RECENT_MS = 300_000
_KINDS = ("device", "connection")
_SESSION_ONLY = ("/api/api-keys", "/api/webhooks", "/api/integrations/slack", "/api/usage")


def listed(plexus: Plexus, call: Call) -> Response:
    """Return the sources of the org; filters that match nothing give an empty list."""
    rows = plexus.stores.sources.listed(
        call.org, kind=call.query.get("type") or None, stored_status=call.query.get("status") or None
    )
    slug, search = call.query.get("slug"), call.query.get("search", "").lower()
    if slug:
        rows = [row for row in rows if row["slug"] == slug]
    if search:
        rows = [row for row in rows if search in row["slug"] or search in (row["name"] or "").lower()]
    return reply({"sources": rows})


def get(plexus: Plexus, call: Call) -> Response:
    """Return one source by slug or id."""
    source = plexus.stores.sources.find(call.org, call.ids["id"])
    if source is None:
        raise Refusal(404, {"error": "Source not found"})
    return reply({"source": source})


def create(plexus: Plexus, call: Call) -> Response:
    """Create a source that is recorded from its first point on, unless its config says otherwise."""
    try:
        body = json_body(call)
    except ValueError:
        raise Refusal(400, {"error": "VALIDATION_ERROR", "message": "Invalid JSON body"}) from None
    details = _complaints(body if isinstance(body, dict) else {})
    if details:
        message = "Request validation failed"
        raise Refusal(400, {"error": "VALIDATION_ERROR", "message": message, "details": details})
    carried = ("source_type", "name", "description", "device_type", "metadata", "tags")
    given = {name: body[name] for name in carried if body.get(name) is not None}
    recording = {"recording": True} if body["source_type"] == "device" else {}
    config = recording | (body.get("config") or {})
    row = plexus.stores.sources.create(call.org, body["slug"], config=config, **given)
    if row is None:
        message = f'Source with slug "{body["slug"]}" already exists'
        raise Refusal(400, {"error": "VALIDATION_ERROR", "message": message})
    return reply({"source": row, "loaderPush": {"ok": False, "reason": "not_configured"}}, 201)


def _complaints(body: dict[str, Any]) -> list[dict[str, str]]:
    slug = body.get("slug", MISSING)
    found = {
        "source_type": one_of(_KINDS, body.get("source_type", MISSING)),
        "slug": expected("string", slug) or _bad_slug(slug),
        "name": optional("string", body.get("name")),
        "config": optional("object", body.get("config")),
        "metadata": optional("object", body.get("metadata")),
        "tags": optional("array", body.get("tags")),
    }
    return [{"path": path, "message": message} for path, message in found.items() if message]


def _bad_slug(slug: str) -> str | None:
    if not SLUG.fullmatch(slug):
        return "Must be lowercase letters, numbers, hyphens, dots, or underscores (no spaces)"
    if len(slug) > SLUG_BYTES_MAX:
        return f"Too big: expected string to have <={SLUG_BYTES_MAX} characters"
    return "Slug must not look like a UUID" if is_uuid(slug) else None


def fleet_health(plexus: Plexus, call: Call) -> Response:
    """Return point counts and extremes per source and metric over the last hour."""
    now = plexus.stamps.now_ms()
    points = plexus.stores.points
    fleet: dict[str, dict[str, Any]] = {}
    # No upper end: a point stamped in the future counts here.
    for source, metric, low, high, mean, count, newest, latest in points.summary(
        Window(call.org, now - _HOUR_MS, FOREVER_MS, now)
    ):
        entry = fleet.setdefault(source, {"source_id": source, "point_count": 0, "metrics": {}, "newest": 0})
        entry["point_count"] += count
        entry["newest"] = max(entry["newest"], newest)
        numbers = {"avg": mean, "min": low, "max": high, "latest": latest}
        entry["metrics"][metric] = {name: plain_number(n) for name, n in numbers.items()} | {"count": count}
    for entry in fleet.values():
        entry["last_data_at"] = row_text(entry.pop("newest"))
    total = sum(entry["point_count"] for entry in fleet.values())
    summary = {"totalSources": len(fleet), "totalPoints": total, "missingData": 0}
    return reply({"fleet": list(fleet.values()), "summary": summary})


def device_metrics(plexus: Plexus, call: Call) -> Response:
    """Return the last value of every metric in the past five minutes."""
    now = plexus.stamps.now_ms()
    slug = call.ids["id"]
    latest = plexus.stores.points.latest(Window(call.org, now - _RECENT_MS, now, now), slug)
    metrics = {
        name: {"value": plain_number(value), "timestamp": row_text(t_ms)}
        for name, (value, t_ms) in latest.items()
    }
    return reply({"device_id": slug, "metrics": metrics, "count": len(metrics)})


def device_schema(plexus: Plexus, call: Call) -> Response:
    """Return what the announcer learned of a source's numeric metrics."""
    slug = call.ids["id"]
    ever = Window(call.org, -FOREVER_MS, FOREVER_MS, plexus.stamps.now_ms())
    schemas = [
        {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{call.org}/{slug}/{metric}")),
            "org_id": call.org,
            "source_id": slug,
            "metric": metric,
            "value_type": "number",
            "sample_count": count,
            "min_value": plain_number(low),
            "max_value": plain_number(high),
            "last_value_at": pg_text(newest * 1000),
            "first_seen_at": pg_text(oldest * 1000),
            "created_at": pg_text(oldest * 1000),
            "updated_at": pg_text(newest * 1000),
        }
        for metric, low, high, count, oldest, newest in plexus.stores.points.extent(ever, slug)
    ]
    return reply({"schemas": schemas})


def ping(plexus: Plexus, call: Call) -> Response:
    """Tell how long ago the app's loops ran; 503 when they are stale."""
    del call
    age_s = plexus.watch.age_s
    ages = {"poll": age_s, "drain": age_s, "offline": age_s}
    stale = age_s > 300
    return reply({"ok": not stale, "loop_age_seconds": ages}, 503 if stale else 200)


def verify_key(plexus: Plexus, call: Call) -> Response:
    """Tell what a key is worth, as the gateway asks."""
    text = call.headers.get("x-api-key")
    key = plexus.settings.keys.get(text or "")
    if key is None:
        raise Refusal(401, {"error": "Invalid API key" if text else "Missing API key"})
    if key.expired:
        raise Refusal(401, {"error": "API key has expired"})
    if not key.access_enabled:
        raise Refusal(403, {"error": "API key access disabled \u2014 check billing"})
    return reply({"org_id": key.org, "scopes": list(key.scopes) or ["write"]})


def register(plexus: Plexus, call: Call) -> Response:
    """Refuse: only the gateway, inside the platform, may register."""
    del plexus, call
    raise Refusal(401, {"error": "Unauthorized"})


def never(plexus: Plexus, call: Call) -> Response:
    """Stand behind the routes that no API key opens."""
    del plexus, call
    raise internal_error()


def routes(plexus: Plexus) -> list[Route]:
    """Return the source and device routes."""
    return [
        route(plexus, "/api/sources", app_key, GET=listed, POST=create),
        route(plexus, "/api/sources/register", nobody, POST=register),
        route(plexus, "/api/sources/{id}", app_key, GET=get),
        route(plexus, "/api/sources/{id}/metrics", session_only, GET=never),
        route(plexus, "/api/fleet/health", app_key, GET=fleet_health),
        route(plexus, "/api/devices/{id}/metrics", app_key, GET=device_metrics),
        route(plexus, "/api/devices/{id}/schema", app_key, GET=device_schema),
        route(plexus, "/api/ping", nobody, GET=ping),
        route(plexus, "/api/auth/verify-key", nobody, GET=verify_key),
        *(route(plexus, path, session_only, GET=never) for path in _SESSION_ONLY),
    ]
