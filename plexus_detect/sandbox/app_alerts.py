"""``/api/alerts`` and ``/api/annotations``: what people see, and where a detector may write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from plexus_detect.sandbox.alerts import STATUSES, Alert
from plexus_detect.sandbox.calls import Call, Refusal, app_key, internal_error, json_body, reply, route
from plexus_detect.sandbox.javascript import parse_number, parse_time, pg_text
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.schema import MISSING, SEVERITIES, expected, kind_of, optional
from plexus_detect.sandbox.stamps import is_uuid, new_id

LIMIT_DEFAULT = 200
LIMIT_MAX = 1000
_TRIGGERS = ("alert_rule", "event", "limit_violation")
_COLOURS = ("amber", "blue", "green", "red", "purple", "gray")
_VERDICTS = {
    "helpful": "On-call verdict: \u2713 helpful \u2014 this alert was worth firing.",
    "noise": "On-call verdict: \u2717 noise \u2014 this alert was not worth firing.",
}


def listed(plexus: Plexus, call: Call) -> Response:
    """Return alerts, newest first. An unknown source drops its filter; an unknown status is a 500."""
    alerts = plexus.stores.alerts.listed(call.org)
    counts = {status: sum(alert["status"] == status for alert in alerts) for status in STATUSES}
    columns = (("status", "status", STATUSES), ("severity", "severity", SEVERITIES))
    for name, column, allowed in (*columns, ("triggerType", "trigger_type", _TRIGGERS)):
        wanted = [part for part in call.query.get(name, "").split(",") if part]
        if not set(wanted) <= set(allowed):
            raise internal_error()
        alerts = [alert for alert in alerts if not wanted or alert[column] in wanted]
    names = [part for part in call.query.get("sourceId", "").split(",") if part]
    found = [plexus.stores.sources.find(call.org, name) for name in names]
    ids = {source["id"] for source in found if source is not None}
    if ids:
        alerts = [alert for alert in alerts if alert["source_id"] in ids]
    start, stop = _page(call)
    return reply({"alerts": [_with_source(plexus, alert) for alert in alerts[start:stop]], "counts": counts})


def _page(call: Call) -> tuple[int, int]:
    def whole(name: str, otherwise: int) -> int:
        number = parse_number(call.query.get(name, ""))
        return int(number) if number is not None and 1 <= number < 1e9 else otherwise

    offset = whole("offset", 0)
    return offset, offset + min(whole("limit", LIMIT_DEFAULT), LIMIT_MAX)


def _with_source(plexus: Plexus, alert: Alert) -> Alert:
    source = plexus.stores.sources.find(alert["org_id"], alert["source_id"])
    slug = source["slug"] if source else None
    return alert | {"source_slug": slug, "source_name": (source["name"] or slug) if source else None}


def _alert(plexus: Plexus, call: Call) -> Alert:
    if not is_uuid(call.ids["id"]):
        raise internal_error()
    alert = plexus.stores.alerts.get(call.org, call.ids["id"])
    if alert is None:
        raise Refusal(404, {"error": "Alert not found"})
    return alert


def get(plexus: Plexus, call: Call) -> Response:
    """Return one alert with its timeline and verdicts."""
    alert = _alert(plexus, call)
    events = plexus.stores.alerts.timeline(alert)
    given = [event["metadata"].get("verdict") for event in events if event["event_type"] == "verdict"]
    stats: dict[str, int] = {verdict: given.count(verdict) for verdict in _VERDICTS} | {"total": len(given)}
    return reply({"alert": _with_source(plexus, alert), "events": events, "verdict_stats": stats})


def create(plexus: Plexus, call: Call) -> Response:
    """Write an alert of a client's own; nobody is notified."""
    body = _json_object(call)
    trigger = body.get("trigger_type")
    if trigger != "limit_violation":
        details = [{"path": "trigger_type", "message": 'Invalid input: expected "limit_violation"'}]
        message = "Request validation failed"
        raise Refusal(400, {"error": "VALIDATION_ERROR", "message": message, "details": details})
    source_id = body.get("source_id")
    if not isinstance(source_id, str) or not is_uuid(source_id):
        raise internal_error()
    carried = ("metric", "value", "threshold", "bound", "severity", "context_snapshot")
    given = {name: body[name] for name in carried if body.get(name) is not None}
    alert = plexus.stores.alerts.add(call.org, source_id, trigger_type=trigger, **given)
    return reply({"alert": alert}, 201)


def act(plexus: Plexus, call: Call) -> Response:
    """Comment, acknowledge, resolve, reopen or give a verdict; the second and third notify."""
    alert = _alert(plexus, call)
    body = _json_object(call)
    action = _ACTIONS.get(str(body.get("action")))
    if action is None:
        raise Refusal(400, {"error": "Invalid action"})
    alert = action(plexus, alert, body)
    return reply({"alert": alert, "events": plexus.stores.alerts.timeline(alert)})


def _comment(plexus: Plexus, alert: Alert, body: dict[str, Any]) -> Alert:
    message = body.get("message")
    if not isinstance(message, str) or not message.strip():
        raise Refusal(400, {"error": "Message is required for comments"})
    plexus.stores.alerts.note(alert, "comment", message, {})
    return alert


def _acknowledge(plexus: Plexus, alert: Alert, body: dict[str, Any]) -> Alert:
    del body
    if alert["status"] != "open":
        raise Refusal(400, {"error": "Can only acknowledge open alerts"})
    at = pg_text(plexus.stamps.now_ms() * 1000)
    changes = {"status": "acknowledged", "acknowledged_at": at, "acknowledged_by": "system"}
    alert = plexus.stores.alerts.update(alert, **changes)
    plexus.stores.alerts.note(alert, "acknowledged", "Alert acknowledged", {})
    _tell(plexus, "alert.acknowledged", alert)
    return alert


def _resolve(plexus: Plexus, alert: Alert, body: dict[str, Any]) -> Alert:
    del body
    if alert["status"] == "resolved":
        raise Refusal(400, {"error": "Alert is already resolved"})
    at = pg_text(plexus.stamps.now_ms() * 1000)
    alert = plexus.stores.alerts.update(alert, status="resolved", resolved_at=at, resolved_by="system")
    plexus.stores.alerts.note(alert, "resolved", "Alert resolved", {})
    _tell(plexus, "alert.resolved", alert)
    return alert


def _reopen(plexus: Plexus, alert: Alert, body: dict[str, Any]) -> Alert:
    del body
    if alert["status"] == "open":
        raise Refusal(400, {"error": "Alert is already open"})
    nothing = dict.fromkeys(("acknowledged_at", "acknowledged_by", "resolved_at", "resolved_by"))
    alert = plexus.stores.alerts.update(alert, status="open", **nothing)
    plexus.stores.alerts.note(alert, "reopened", "Alert reopened", {})
    return alert


def _verdict(plexus: Plexus, alert: Alert, body: dict[str, Any]) -> Alert:
    verdict = body.get("verdict")
    if verdict not in _VERDICTS:
        raise Refusal(400, {"error": "verdict must be 'helpful' or 'noise'"})
    alert = plexus.stores.alerts.update(alert, current_verdict=verdict)
    about = {name: alert[name] for name in ("metric", "rule_id", "limit_id")} | {"verdict": verdict}
    plexus.stores.alerts.note(alert, "verdict", _VERDICTS[verdict], about)
    return alert


_ACTIONS: dict[str, Callable[[Plexus, Alert, dict[str, Any]], Alert]] = {
    "comment": _comment,
    "acknowledge": _acknowledge,
    "resolve": _resolve,
    "reopen": _reopen,
    "verdict": _verdict,
}


def _tell(plexus: Plexus, event: str, alert: Alert) -> None:
    source = plexus.stores.sources.find(alert["org_id"], alert["source_id"])
    rules = (m for kind in ("threshold", "event", "offline") for m in plexus.stores.monitors.of_kind(kind))
    monitor = next((m for m in rules if m.rule_id == alert["rule_id"]), None)
    if source is not None:
        plexus.notices.alert(event, source, alert, monitor)


def silence(plexus: Plexus, call: Call) -> Response:
    """Mute the monitor behind an alert for 1 to 168 hours (scaled)."""
    alert = _alert(plexus, call)
    hours = _json_object(call).get("hours")
    if hours is None or kind_of(hours) != "number" or not 1 <= hours <= 168:
        raise Refusal(400, {"error": "hours must be between 1 and 168"})
    if alert["rule_id"]:
        plexus.notices.silence(
            alert["rule_id"], plexus.stamps.now_ms() + plexus.settings.span_ms(hours * 3600)
        )
    return reply({"success": True})


def marks(plexus: Plexus, call: Call) -> Response:
    """Return marks; start and end count only together."""
    source, start, end = (call.query.get(name) for name in ("sourceId", "start", "end"))
    from_ms, to_ms = (parse_time(text) if text else None for text in (start, end))
    if (start and from_ms is None) or (end and to_ms is None):
        raise internal_error()
    ranged = from_ms is not None and to_ms is not None
    found = plexus.database.rows(
        "SELECT row FROM annotations"
        " WHERE org = ? AND (? = 0 OR start_ms BETWEEN ? AND ?) ORDER BY created_us",
        (call.org, int(ranged), from_ms, to_ms),
    )
    rows = [json.loads(row) for (row,) in found]
    return reply({"annotations": [row for row in rows if not source or row["source_id"] == source]})


def annotate(plexus: Plexus, call: Call) -> Response:
    """Put a mark on a chart; the source is free text and not checked."""
    body = _json_object(call)
    complaint = next((c for c in _complaints(body) if c), None)
    if complaint:
        raise Refusal(400, {"error": complaint})
    start_ms = parse_time(body["timestamp_start"])
    end = body.get("timestamp_end")
    end_ms = parse_time(end) if end else None
    if start_ms is None or (end and end_ms is None):
        raise internal_error()
    created_us = plexus.stamps.now_us()
    row = {
        "id": new_id(),
        "org_id": call.org,
        "source_type": "device",
        "source_id": body["source_id"],
        "telemetry_id": None,
        "timestamp_start": pg_text(start_ms * 1000),
        "timestamp_end": None if end_ms is None else pg_text(end_ms * 1000),
        "metric_name": body.get("metric_name"),
        "value_snapshot": None,
        "label": body["label"],
        "notes": body.get("notes"),
        "color": body.get("color") or "amber",
        "run_id": None,
        "created_by": None,
        "created_at": pg_text(created_us),
        "updated_at": pg_text(created_us),
    }
    plexus.database.run(
        "INSERT INTO annotations VALUES (?, ?, ?, ?, ?)",
        (row["id"], call.org, json.dumps(row), start_ms, created_us),
    )
    return reply({"annotation": row}, 201)


def _complaints(body: dict[str, Any]) -> list[str | None]:
    texts = [
        expected("string", body.get(name, MISSING)) for name in ("source_id", "timestamp_start", "label")
    ]
    texts += [optional("string", body.get(name)) for name in ("timestamp_end", "notes", "metric_name")]
    if any(texts):
        return texts
    for name, most in (("label", 500), ("notes", 2000)):
        if len(body.get(name) or "") > most:
            texts.append(f"Too big: expected string to have <={most} characters")
    if body.get("color") is not None and body["color"] not in _COLOURS:
        options = "|".join(f'"{colour}"' for colour in _COLOURS)
        texts.append(f"Invalid option: expected one of {options}")
    return texts


def _json_object(call: Call) -> dict[str, Any]:
    try:
        body = json_body(call)
    except ValueError:
        raise Refusal(400, {"error": "VALIDATION_ERROR", "message": "Invalid JSON body"}) from None
    return body if isinstance(body, dict) else {}


def routes(plexus: Plexus) -> list[Route]:
    """Return the alert and annotation routes."""
    return [
        route(plexus, "/api/alerts", app_key, GET=listed, POST=create),
        route(plexus, "/api/alerts/{id}", app_key, GET=get, PATCH=act),
        route(plexus, "/api/alerts/{id}/silence", app_key, POST=silence),
        route(plexus, "/api/annotations", app_key, GET=marks, POST=annotate),
    ]
