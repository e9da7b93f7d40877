"""The gateway over HTTP: ``POST /ingest`` and ``GET /health``."""

from __future__ import annotations

import time
import zlib
from typing import Any

import msgspec
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from plexus_detect.sandbox.calls import Call, Refusal, gateway_key, nobody, route
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.validate import POINTS_MAX, InvalidPoint, read_points

BODY_BYTES_MAX = 5 * 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS
CORS = {"access-control-allow-origin": "*"}


def ingest(plexus: Plexus, call: Call) -> Response:
    """Take a batch of points: all of them or, on the first bad one, none. Any page may call (CORS)."""
    try:
        response: Response = JSONResponse(_take(plexus, call))
    except Refusal as refusal:
        response = refusal.response()
    response.headers.update(CORS)
    return response


def _take(plexus: Plexus, call: Call) -> dict[str, Any]:
    org = gateway_key(plexus, call.headers).org
    envelope = _envelope(_plain(call))
    points = envelope["points"]
    if len(points) > POINTS_MAX:
        raise _bad(f"too many points: {len(points)} (max {POINTS_MAX})")
    try:
        batch = read_points(
            points, envelope.get("source_id") or None, plexus.stamps.now_ms(), per_point_source=True
        )
    except InvalidPoint as error:
        raise _bad(str(error)) from None
    count = plexus.accept(org, batch, call.path) if points else 0
    body: dict[str, Any] = {"success": True, "count": count}
    if len(batch.counts) == 1:
        body["source_id"] = next(iter(batch.counts))
    return body


def _envelope(body: bytes) -> dict[str, Any]:
    try:
        envelope = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _bad("invalid JSON body") from None
    if not isinstance(envelope, dict) or not isinstance(envelope.get("source_id"), str | None):
        raise _bad("invalid JSON body")
    if envelope.get("points") is None:
        raise _bad("'points' array is required")
    if not isinstance(envelope["points"], list):
        raise _bad("invalid JSON body")
    return envelope


def _plain(call: Call) -> bytes:
    if len(call.body) > BODY_BYTES_MAX:
        raise _too_large()
    if call.headers.get("content-encoding", "").lower() != "gzip":
        return call.body
    inflater = zlib.decompressobj(_GZIP)
    try:
        plain = inflater.decompress(call.body, BODY_BYTES_MAX + 1)
    except zlib.error:
        raise _bad("invalid gzip body") from None
    if len(plain) > BODY_BYTES_MAX:
        raise _too_large()
    return plain


def _bad(sentence: str) -> Refusal:
    return Refusal(400, {"error": sentence})


def _too_large() -> Refusal:
    return Refusal(413, {"error": f"payload too large (max {BODY_BYTES_MAX} bytes)"})


def options(plexus: Plexus, call: Call) -> Response:
    """Answer a browser's preflight."""
    del plexus, call
    return Response(status_code=204, headers={**CORS, "access-control-allow-methods": "POST, OPTIONS"})


def routes(plexus: Plexus) -> list[Route]:
    """Return the gateway's HTTP routes."""
    started_s = time.monotonic()

    def health(plexus: Plexus, call: Call) -> Response:
        del call
        uptime_s = int(time.monotonic() - started_s)
        counts = {"browsers": 0, "devices": len(plexus.sockets)}
        return JSONResponse({**counts, "redis": "connected", "status": "ok", "uptime_s": uptime_s})

    return [
        route(plexus, "/ingest", nobody, POST=ingest, OPTIONS=options),
        route(plexus, "/health", nobody, GET=health),
    ]
