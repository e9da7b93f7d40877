"""The ASGI application: faults first, then the app's sign-in redirect, then the routes of three services.

One port serves all three: their paths do not clash, but for ``/health``, where the gateway answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plexus_detect.sandbox import (
    app_alerts,
    app_monitors,
    app_sources,
    app_telemetry,
    device_socket,
    gateway,
    manage,
    read_api,
    traffic,
)
from plexus_detect.sandbox.faults import Fault, fault_body
from plexus_detect.sandbox.plexus import Plexus

# Cuts the TCP connection of a client address, and tells whether there was one to cut.
Cut = Callable[[tuple[str, int]], bool]

_PUBLIC = (
    "/api/alerts",
    "/api/webhooks",
    "/api/sources/register",
    "/api/internal",
    "/api/auth/verify-",
    "/api/ping",
)
_OURS = ("/manage", "/slack")
_UNESCAPED = "-_.!~*'()"


def application(plexus: Plexus, cut: Cut) -> ASGIApp:
    """Return the whole platform as one ASGI app."""
    routes = [
        *app_telemetry.routes(plexus),
        *app_monitors.routes(plexus),
        *app_sources.routes(plexus),
        *app_alerts.routes(plexus),
        *gateway.routes(plexus),
        *device_socket.routes(plexus),
        *read_api.routes(plexus),
        *manage.routes(plexus),
    ]
    starlette = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _wrong_method})
    starlette.router.redirect_slashes = False
    return Doors(plexus, starlette, cut)


async def _not_found(request: Request, error: Exception) -> Response:
    del error
    if request.url.path.startswith("/api"):
        return HTMLResponse(
            "<!DOCTYPE html><html><body>404: This page could not be found.</body></html>", 404
        )
    if request.url.path.startswith("/v1"):
        return JSONResponse({"detail": "Not Found"}, 404)
    return PlainTextResponse("404 page not found\n", 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
    names = sorted(name for name in allowed.split(", ") if name != "HEAD")
    if request.url.path.startswith("/api"):
        return Response(status_code=405)
    if request.url.path.startswith("/v1"):
        return JSONResponse({"detail": "Method Not Allowed"}, 405, {"allow": ", ".join(names)})
    return PlainTextResponse("Method Not Allowed\n", 405, {"allow": ", ".join(names)})


class Doors:
    """What stands in front of the routes."""

    def __init__(self, plexus: Plexus, inner: ASGIApp, cut: Cut) -> None:
        self._plexus = plexus
        self._inner = inner
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection or request."""
        if scope["type"] != "http" or scope["path"].startswith(_OURS):
            await self._inner(scope, receive, send)
            return
        seen = _Seen(send)
        try:
            await self._serve(scope, receive, seen)
        finally:
            query = scope["query_string"].decode("latin-1")
            entry = (self._plexus.stamps.now_ms(), scope["method"], scope["path"], query, seen.status)
            self._plexus.traffic.add(traffic.Request(*entry))

    async def _serve(self, scope: Scope, receive: Receive, send: _Seen) -> None:
        path, faults = scope["path"], self._plexus.faults
        latency = faults.hit("latency", path)
        if latency is not None:
            await asyncio.sleep(latency.latency_ms / 1000)
        if faults.hit("cut", path, "before"):
            await self._drop(scope)
            return
        status = faults.hit("status", path, "before")
        response = _fault_response(status, path) if status else _at_the_door(scope)
        if response is not None:
            await Request(scope, receive).body()
            await response(scope, receive, send)
            return
        await self._after(scope, receive, send)

    async def _after(self, scope: Scope, receive: Receive, send: _Seen) -> None:
        path, faults = scope["path"], self._plexus.faults
        lost, half = faults.hit("cut", path, "after"), faults.hit("cut", path, "body")
        status = faults.hit("status", path, "after")
        if lost or half or status:
            kept = _Kept()
            await self._inner(scope, receive, kept)
            if status and not lost and not half:
                await _fault_response(status, path)(scope, receive, send)
                return
            if half:
                await kept.half(send)
            await self._drop(scope)
            return
        await self._inner(scope, receive, send)

    async def _drop(self, scope: Scope) -> None:
        client = scope.get("client")
        if client is None or not self._cut(tuple(client)):
            # Called without sockets: what a client would make of the cut connection.
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        # The server learns of the lost connection in its next turns; an answer before would be an error.
        for _ in range(3):
            await asyncio.sleep(0)


class _Seen:
    """Passes an answer on and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class _Kept:
    """Keeps an answer from being sent."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self._messages.append(message)

    async def half(self, send: Send) -> None:
        """Send the head, which promises the whole body, and half of the body."""
        head = self._messages[0]
        body = b"".join(message.get("body", b"") for message in self._messages[1:])
        await send(head)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})


def _fault_response(fault: Fault, path: str) -> Response:
    headers = dict(gateway.CORS) if path.startswith("/ingest") else {}
    if fault.retry_after_s is not None:
        headers["retry-after"] = f"{fault.retry_after_s:g}"
    body, text = fault_body(fault.status, path)
    if body is None:
        return PlainTextResponse(text, fault.status, headers)
    return JSONResponse(body, fault.status, headers)


def _at_the_door(scope: Scope) -> Response | None:
    """Return the app's redirect for a stray slash, or for a request without a key, if one is due."""
    path: str = scope["path"]
    if not path.startswith("/api/"):
        return None
    query = scope["query_string"].decode("latin-1")
    if path.endswith("/"):
        where = path.rstrip("/") + (f"?{query}" if query else "")
        return PlainTextResponse(where, 308, {"location": where})
    request = Request(scope)
    if request.headers.get("x-api-key", "").startswith("plx_") or path.startswith(_PUBLIC):
        return None
    origin = f"{request.url.scheme}://{request.url.netloc}"
    asked = f"{origin}{path}" + (f"?{query}" if query else "")
    where = f"{origin}/sign-in?redirect_url={quote(asked, safe=_UNESCAPED)}"
    return PlainTextResponse(where, 307, {"location": where})
