"""``/api/monitors``: create or replace, list, retarget and delete. No scope is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from plexus_detect.sandbox.calls import Call, Refusal, app_key, internal_error, json_body, reply, route
from plexus_detect.sandbox.javascript import Json
from plexus_detect.sandbox.monitors import Monitor
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.schema import MISSING, expected, optional, positive_whole, severity, uuids
from plexus_detect.sandbox.sources import Row
from plexus_detect.sandbox.stamps import is_uuid

Check = Callable[[Any], str | None]


def _text(value: Json) -> str | None:
    return optional("string", value)


def _number(value: Json) -> str | None:
    return optional("number", value)


_PARTS: dict[str, dict[str, Check]] = {
    "threshold": {"min": _number, "max": _number, "severity": severity, "message": _text},
    "event": {"severity": severity, "message": _text},
    "offline": {"timeout_seconds": positive_whole, "severity": severity, "message": _text},
}


def listed(plexus: Plexus, call: Call) -> Response:
    """Return every monitor of the org, newest first."""
    sources = {row["slug"]: row for row in plexus.stores.sources.listed(call.org)}
    return reply({"monitors": plexus.stores.monitors.listed(call.org, sources)})


def create(plexus: Plexus, call: Call) -> Response:
    """Create or fully replace; the answer never says which, and an offline monitor is always added."""
    body = _object(call)
    errors = _field_errors(body)
    _refuse_on(errors, [] if errors else _form_errors(body))
    source = _source(plexus, call.org, body["source_id"])
    targets = body.get("notification_targets", MISSING)
    _known_targets(plexus, targets)
    for kind, fields in _wanted(body).items():
        metric = "" if kind == "offline" else body["metric"]
        monitor = plexus.stores.monitors.put(call.org, kind, source["slug"], metric, fields)
        if targets is not MISSING:
            plexus.stores.monitors.target(monitor, targets)
    return reply({"success": True}, 201)


def retarget(plexus: Plexus, call: Call) -> Response:
    """Change whom a monitor notifies, and nothing else."""
    body = _object(call)
    targets = body.get("notification_targets", MISSING)
    complaint = uuids(targets)
    _refuse_on({"notification_targets": [complaint]} if complaint else {}, [])
    offline_id = body.get("offline_id")
    if offline_id is not None:
        found = [plexus.stores.monitors.get(call.org, offline_id)]
    else:
        source = _source(plexus, call.org, body.get("source_id") or "")
        metric = body.get("metric") or ""
        kinds = ("threshold", "event")
        found = [plexus.stores.monitors.find(call.org, kind, source["slug"], metric) for kind in kinds]
    monitors = [monitor for monitor in found if monitor is not None]
    if not monitors:
        raise Refusal(404, {"error": "Monitor not found"})
    _known_targets(plexus, targets)
    for monitor in monitors:
        plexus.stores.monitors.target(monitor, targets)
    return reply({"success": True})


def delete(plexus: Plexus, call: Call) -> Response:
    """Delete by metric, or every offline monitor of a source, or one offline monitor by id."""
    store = plexus.stores.monitors
    offline_id = call.query.get("offline_id")
    if offline_id:
        if not is_uuid(offline_id):
            raise Refusal(500, {"error": "Failed to delete"})
        monitor = store.get(call.org, offline_id)
        if monitor is None or monitor.kind != "offline":
            raise Refusal(404, {"error": "Monitor not found"})
        return _removed(plexus, [monitor])
    name = call.query.get("source_id")
    if not name:
        raise Refusal(400, {"error": "Missing 'source_id' query param"})
    slug = _source(plexus, call.org, name)["slug"]
    metric = call.query.get("metric")
    if not metric:
        return _removed(plexus, [m for m in store.of_kind("offline", call.org) if m.source == slug])
    found = [store.find(call.org, kind, slug, metric) for kind in ("threshold", "event")]
    return _removed(plexus, [monitor for monitor in found if monitor is not None])


def _removed(plexus: Plexus, monitors: list[Monitor]) -> Response:
    plexus.stores.monitors.remove(monitors)
    for monitor in monitors:
        plexus.houston.forget(monitor.rule_id)
    return reply({"success": True})


def _object(call: Call) -> dict[str, Any]:
    try:
        body = json_body(call)
    except ValueError:
        raise internal_error() from None
    complaint = expected("object", body)
    if complaint:
        _refuse_on({}, [complaint])
    return dict(body)


def _field_errors(body: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str | None]] = {
        "source_id": [expected("string", body.get("source_id", MISSING))],
        "metric": [optional("string", body.get("metric"))],
    }
    if "notification_targets" in body:
        found["notification_targets"] = [uuids(body["notification_targets"])]
    for part, checks in _PARTS.items():
        value = body.get(part)
        if value is None:
            continue
        complaint = expected("object", value)
        found[part] = (
            [complaint] if complaint else [check(value.get(name, MISSING)) for name, check in checks.items()]
        )
    return {name: kept for name, all_of in found.items() if (kept := [c for c in all_of if c])}


def _form_errors(body: dict[str, Any]) -> list[str]:
    if all(body.get(part) is None for part in _PARTS):
        return ["At least one of threshold, event, or offline must be provided"]
    needs_metric = body.get("threshold") is not None or body.get("event") is not None
    if needs_metric and not body.get("metric"):
        return ["metric is required for a threshold or event monitor"]
    return []


def _refuse_on(field_errors: dict[str, list[str]], form_errors: list[str]) -> None:
    if field_errors or form_errors:
        details = {"formErrors": form_errors, "fieldErrors": field_errors}
        raise Refusal(400, {"error": "Validation failed", "details": details})


def _wanted(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    wanted: dict[str, dict[str, Any]] = {}
    threshold, event, offline = (body.get(part) for part in ("threshold", "event", "offline"))
    if threshold is not None:
        wanted["threshold"] = {
            "min": threshold.get("min"),
            "max": threshold.get("max"),
            "severity": threshold.get("severity", "warning"),
            "message": threshold.get("message"),
        }
    if event is not None:
        carried = ("visualization", "context_columns", "filters", "delivery", "time_column")
        wanted["event"] = {
            "severity": event.get("severity", "info"),
            "message": event.get("message"),
            "enabled": event.get("enabled", True),
        } | {name: event.get(name) for name in carried}
    if offline is not None:
        wanted["offline"] = {
            "timeout_seconds": offline.get("timeout_seconds", 300),
            "severity": offline.get("severity", "warning"),
            "enabled": True,
        }
    return wanted


def _source(plexus: Plexus, org: str, name: str) -> Row:
    source = plexus.stores.sources.find(org, name)
    if source is None:
        raise Refusal(404, {"error": f"Source '{name}' not found in org"})
    return source


def _known_targets(plexus: Plexus, targets: Json) -> None:
    known = plexus.settings.notification_targets
    unknown = [target for target in targets if target not in known] if isinstance(targets, list) else []
    if unknown:
        error = "Unknown notification target(s) for this org"
        raise Refusal(422, {"error": error, "unknown_target_ids": unknown})


def routes(plexus: Plexus) -> list[Route]:
    """Return the monitor route."""
    methods = {"GET": listed, "POST": create, "PATCH": retarget, "DELETE": delete}
    return [route(plexus, "/api/monitors", app_key, **methods)]
