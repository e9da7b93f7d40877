"""``GET /api/v1/telemetry``: the app's read of stored points."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from plexus_detect.sandbox.calls import Call, Refusal, app_key, route
from plexus_detect.sandbox.javascript import iso_text, parse_number, parse_time
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.points import Window

LIMIT_DEFAULT = 10_000
LIMIT_MAX = 100_000
_HOUR_MS = 3_600_000


def telemetry(plexus: Plexus, call: Call) -> Response:
    """Return the newest rows of a window, ascending. A store that fails looks like no rows."""
    if not {"read", "*"} & set(call.key.scopes):
        raise Refusal(403, {"error": "API key does not have required scope: read"})
    query = call.query
    limit = _limit(query.get("limit", ""))
    now = plexus.stamps.now_ms()
    to_ms = _time(query, "to", now)
    from_ms = _time(query, "from", to_ms - _HOUR_MS)
    if from_ms >= to_ms:
        raise _invalid("from must be earlier than to", {"from": iso_text(from_ms), "to": iso_text(to_ms)})
    source, metric = query.get("source") or None, query.get("metric") or None
    names = [name.strip() for name in (metric or "").split(",") if name.strip()]
    rows, count = _rows(plexus, call, Wanted(Window(call.org, from_ms, to_ms, now), source, names, limit))
    echo = {
        "source": source,
        "metric": metric,
        "from": iso_text(from_ms),
        "to": iso_text(to_ms),
        "limit": limit,
    }
    body = f'{{"data":{rows},"count":{count},"query":{msgspec.json.encode(echo).decode()}}}'
    return Response(body, media_type="application/json")


class Wanted(NamedTuple):
    """What a request asks the store for."""

    window: Window
    source: str | None
    metrics: list[str]
    limit: int


def _rows(plexus: Plexus, call: Call, wanted: Wanted) -> tuple[str, int]:
    if plexus.faults.hit("empty", call.path):
        return "[]", 0
    unordered = plexus.faults.hit("unordered", call.path)
    try:
        return plexus.stores.points.telemetry(*wanted, unordered.shuffler() if unordered else None)
    except sqlite3.Error:
        return "[]", 0


def _limit(text: str) -> int:
    if not text:
        return LIMIT_DEFAULT
    number = parse_number(text)
    if number is None or number <= 0 or number != number // 1:
        raise _invalid("limit must be a positive integer", {"field": "limit", "value": text})
    if number > LIMIT_MAX:
        details = {"field": "limit", "value": text, "max": LIMIT_MAX}
        raise _invalid(f"limit must not exceed {LIMIT_MAX}", details)
    return int(number)


def _time(query: Mapping[str, str], field: str, otherwise: int) -> int:
    text = query.get(field)
    if not text:
        return otherwise
    t_ms = parse_time(text)
    if t_ms is None:
        raise _invalid(f"{field} must be a valid ISO 8601 timestamp", {"field": field, "value": text})
    return t_ms


def _invalid(message: str, details: dict[str, Any]) -> Refusal:
    return Refusal(400, {"error": "VALIDATION_ERROR", "message": message, "details": details})


def routes(plexus: Plexus) -> list[Route]:
    """Return the telemetry route."""
    return [route(plexus, "/api/v1/telemetry", app_key, GET=telemetry)]
