"""The read API under ``/v1``: names, last values, series. Here a failing store shows: 500 in plain text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from plexus_detect.sandbox.calls import Call, Handler, Refusal, api_key, nobody, reply, route
from plexus_detect.sandbox.javascript import Json, epoch_ms
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.points import Window

ROWS_MAX = 10_000
_HOUR_MS = 3_600_000
_LAST = re.compile(r"(\d+)([mhd])", re.ASCII)
_UNIT_MS = {"m": 60_000, "h": _HOUR_MS, "d": 24 * _HOUR_MS}
_WIDTH_MS = {"1m": 60_000, "10m": 600_000, "1h": _HOUR_MS, "1d": 24 * _HOUR_MS}
# Spans below these get the interval beside them; longer ones a day.
_AUTO = ((600_000, "raw"), (10 * _HOUR_MS, "1m"), (72 * _HOUR_MS, "10m"), (360 * _HOUR_MS, "1h"))


def sources(plexus: Plexus, call: Call) -> Response:
    """Return the sources that ever stored a point or are connected; online means a device WebSocket."""
    wanted = call.query.get("status")
    if wanted not in {None, "online", "offline"}:
        raise _unprocessable(
            "literal_error", "status", "Input should be 'online' or 'offline'", wanted,
            ctx={"expected": "'online' or 'offline'"},
        )  # fmt: skip
    devices = [
        _device(slug, slug in _online(plexus, call.org), seen) for slug, seen in _seen(plexus, call.org)
    ]
    if wanted:
        devices = [device for device in devices if device["online"] == (wanted == "online")]
    return reply({"devices": devices})


def source(plexus: Plexus, call: Call) -> Response:
    """Return one source; an id that never existed is answered all the same."""
    slug = call.ids["id"]
    seen = dict(_seen(plexus, call.org)).get(slug, 0)
    return reply(_device(slug, slug in _online(plexus, call.org), seen))


def _seen(plexus: Plexus, org: str) -> list[tuple[str, int | None]]:
    stored: dict[str, int | None] = dict(plexus.stores.points.sources(org))
    return sorted((dict.fromkeys(_online(plexus, org)) | stored).items())


def _online(plexus: Plexus, org: str) -> set[str]:
    return {slug for its_org, slug in list(plexus.sockets) if its_org == org}


def _device(slug: str, online: bool, seen: int | None) -> dict[str, Any]:
    return {"source_id": slug, "online": online, "last_seen_ms": seen}


def metric_names(plexus: Plexus, call: Call) -> Response:
    """Return every metric name ever stored, internal and derived ones too."""
    return reply(plexus.stores.points.metric_names(call.org, call.ids["id"]))


def latest(plexus: Plexus, call: Call) -> Response:
    """Return the last value of every metric within the hour, without its time."""
    now = plexus.stamps.now_ms()
    found = plexus.stores.points.latest(Window(call.org, now - _HOUR_MS, now, now), call.ids["id"])
    return reply({"metrics": {name: value for name, (value, _) in found.items()}})


def query(plexus: Plexus, call: Call) -> Response:
    """Return series, raw or in buckets. Truncation keeps the oldest rows, by metric name."""
    window = _window(plexus, call)
    interval, auto = _interval(call, window)
    metrics = [name.strip() for name in call.query.get("metrics", "").split(",") if name.strip()]
    points, slug = plexus.stores.points, call.ids["id"]
    series: dict[str, dict[str, list[Any]]] = {}
    rows: list[tuple[Any, ...]]
    if interval == "raw":
        columns: tuple[str, ...] = ("timestamp_ms", "value")
        rows = list(points.raw(window, slug, metrics, ROWS_MAX + 1))
    else:
        columns = ("timestamp_ms", "min", "max", "avg", "count")
        found = points.buckets(window, slug, metrics, _WIDTH_MS[interval], ROWS_MAX + 1)
        rows = [row[1:] for row in found]
    for row in rows[:ROWS_MAX]:
        lists = series.setdefault(row[0], {column: [] for column in columns})
        for column, value in zip(columns, row[1:], strict=True):
            lists[column].append(value)
    return reply(
        {
            "interval": interval,
            "auto_downsampled": auto and interval != "raw",
            "series": series,
            "truncated": len(rows) > ROWS_MAX,
        }
    )


def _interval(call: Call, window: Window) -> tuple[str, bool]:
    asked = call.query.get("interval")
    if asked is None:
        span = window.to_ms - window.from_ms
        return next((name for below, name in _AUTO if span < below), "1d"), True
    if asked != "raw" and asked not in _WIDTH_MS:
        raise Refusal(400, {"detail": f"interval must be one of {['raw', *_WIDTH_MS]}"})
    return asked, False


def _window(plexus: Plexus, call: Call) -> Window:
    now = plexus.stamps.now_ms()
    start, end, last = (call.query.get(name) for name in ("start", "end", "last"))
    if start is None and end is None:
        if last == "":
            raise Refusal(500, "Internal Server Error")
        match = _LAST.fullmatch(last or "1h")
        if match is None:
            raise Refusal(400, {"detail": "invalid last \u2014 use e.g. 1h, 30m, 7d"})
        return Window(call.org, now - int(match[1]) * _UNIT_MS[match[2]], now, now)
    bounds = [_instant(name, text) for name, text in (("start", start), ("end", end)) if text is not None]
    if len(bounds) < 2:
        raise Refusal(400, {"detail": "start and end must be provided together"})
    return Window(call.org, bounds[0], bounds[1], now)


def _instant(name: str, text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        short = len(text) < 10
        reason = "input is too short" if short else "invalid datetime"
        raise _unprocessable(
            "datetime_from_date_parsing", name, f"Input should be a valid datetime or date, {reason}", text,
            ctx={"error": reason},
        ) from None  # fmt: skip
    return epoch_ms(at if at.tzinfo else at.replace(tzinfo=UTC))


def _unprocessable(kind: str, name: str, message: str, given: Json, **more: Json) -> Refusal:
    detail = {"type": kind, "loc": ["query", name], "msg": message, "input": given, **more}
    return Refusal(422, {"detail": [detail]})


def fleet_health(plexus: Plexus, call: Call) -> Response:
    """Return how many sources there are and how many are connected."""
    total = len(_seen(plexus, call.org))
    return reply({"sources_total": total, "sources_online": len(_online(plexus, call.org))})


def fleet_metrics(plexus: Plexus, call: Call) -> Response:
    """Return one metric of every source in buckets, never raw."""
    metric = call.query.get("metric")
    if metric is None:
        raise _unprocessable("missing", "metric", "Field required", None)
    window = _window(plexus, call)
    interval, _ = _interval(call, window)
    interval = "1m" if interval == "raw" else interval
    online = _online(plexus, call.org)
    rows = plexus.stores.points.buckets(window, None, [metric], _WIDTH_MS[interval], ROWS_MAX + 1)
    entries = [
        {
            "source_id": slug,
            "online": slug in online,
            "timestamp_ms": at,
            "avg": mean,
            "min": low,
            "max": high,
            "count": count,
        }
        for slug, _, at, low, high, mean, count in rows[:ROWS_MAX]
    ]
    return reply(
        {
            "metric": metric,
            "interval": interval,
            "sources_online": len(online),
            "sources_w_metric": len({entry["source_id"] for entry in entries}),
            "sources": entries,
            "truncated": len(rows) > ROWS_MAX,
        }
    )


def command(plexus: Plexus, call: Call) -> Response:
    """Queue nothing: the sandbox sends no commands to devices."""
    del plexus, call
    return reply({"queued": False})


def moved(plexus: Plexus, call: Call) -> Response:
    """Send the old name of a route to the new one."""
    del plexus
    return RedirectResponse(call.path.replace("/v1/devices", "/v1/sources", 1), 308)


def _over_the_store(handler: Handler) -> Handler:
    def answer(plexus: Plexus, call: Call) -> Response:
        if plexus.faults.hit("store_down", call.path):
            raise Refusal(500, "Internal Server Error")
        return handler(plexus, call)

    return answer


def routes(plexus: Plexus) -> list[Route]:
    """Return the routes of the read API."""
    handlers = {
        "/v1/sources": sources,
        "/v1/sources/{id}": source,
        "/v1/sources/{id}/metrics": metric_names,
        "/v1/sources/{id}/metrics/latest": latest,
        "/v1/sources/{id}/metrics/query": query,
        "/v1/fleet/health": fleet_health,
        "/v1/fleet/metrics": fleet_metrics,
    }
    reads = [route(plexus, path, api_key, GET=_over_the_store(handler)) for path, handler in handlers.items()]
    return [
        *reads,
        route(plexus, "/v1/sources/{id}/commands", api_key, POST=command),
        route(plexus, "/v1/devices/{rest:path}", nobody, GET=moved),
        route(plexus, "/v1/devices", nobody, GET=moved),
    ]
