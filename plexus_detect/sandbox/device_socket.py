"""``GET /ws/device``: the WebSocket that a device sends through. No acknowledgements, as recorded."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from plexus_detect.sandbox.calls import Refusal, gateway_key
from plexus_detect.sandbox.javascript import Json
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.sources import SLUG, SLUG_BYTES_MAX
from plexus_detect.sandbox.validate import POINTS_MAX, InvalidPoint, read_points

FRAME_BYTES_MAX = 1024 * 1024
PATH = "/ws/device"
_AUTH_WAIT_S = 10.0
_BURST_FRAMES = 2000.0
_FRAMES_PER_S = 500.0
_NOT_AUTH = "first message must be device_auth"
_REASONS = {401: "Invalid API key", 403: "API key lacks write scope"}


@dataclass
class Link:
    """One device's connection. A newer one of the same source sets ``evicted``."""

    org: str
    slug: str
    loop: asyncio.AbstractEventLoop
    evicted: asyncio.Event = field(default_factory=asyncio.Event)
    tokens: float = _BURST_FRAMES
    filled_s: float = field(default_factory=time.monotonic)

    def admits(self) -> bool:
        """Take one frame out of the bucket: 2000 at once, 500 a second."""
        now_s = time.monotonic()
        self.tokens = min(_BURST_FRAMES, self.tokens + (now_s - self.filled_s) * _FRAMES_PER_S)
        self.filled_s = now_s
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


async def serve(plexus: Plexus, socket: WebSocket) -> None:
    """Hold one device's connection until it ends or is evicted."""
    await socket.accept()
    try:
        link = await _authenticated(plexus, socket)
        if link is None:
            return
        key = (link.org, link.slug)
        older: Link | None = plexus.sockets.get(key)
        if older is not None:
            older.loop.call_soon_threadsafe(older.evicted.set)
        plexus.sockets[key] = link
        try:
            now = plexus.stamps.now_ms()
            await _send(socket, {"type": "authenticated", "source_id": link.slug, "server_time_ms": now})
            await _listen(plexus, socket, link)
        finally:
            if plexus.sockets.get(key) is link:
                del plexus.sockets[key]
    except WebSocketDisconnect:
        return


async def _send(socket: WebSocket, message: dict[str, Any]) -> None:
    await socket.send_text(json.dumps(message, separators=(",", ":")))


async def _authenticated(plexus: Plexus, socket: WebSocket) -> Link | None:
    try:
        first = _decoded(await asyncio.wait_for(socket.receive_text(), _AUTH_WAIT_S))
    except (TimeoutError, KeyError):
        first = None
    message, slug = _NOT_AUTH, ""
    if isinstance(first, dict) and first.get("type") == "device_auth":
        slug = str(first.get("source_id") or "")
    if SLUG.fullmatch(slug) and len(slug) <= SLUG_BYTES_MAX and isinstance(first, dict):
        try:
            org = gateway_key(plexus, {"x-api-key": str(first.get("api_key") or "")}).org
            return Link(org, slug, asyncio.get_running_loop())
        except Refusal as refusal:
            message = _REASONS[refusal.status]
    await _send(socket, {"type": "error", "message": message})
    await socket.close(1008, "auth failed")
    return None


async def _listen(plexus: Plexus, socket: WebSocket, link: Link) -> None:
    evicted = asyncio.create_task(link.evicted.wait())
    try:
        while True:
            received = asyncio.create_task(socket.receive())
            await asyncio.wait({received, evicted}, return_when=asyncio.FIRST_COMPLETED)
            if evicted.done():
                received.cancel()
                return  # ending without a close frame drops the connection, as the gateway does
            message = received.result()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                answer = await _frame(plexus, link, message["text"])
                if answer is not None:
                    await _send(socket, {"type": "error"} | answer)
    finally:
        evicted.cancel()


async def _frame(plexus: Plexus, link: Link, text: str) -> dict[str, Any] | None:
    if not link.admits():
        return {"code": "RATE_LIMITED"}
    frame = _decoded(text)
    if not isinstance(frame, dict):
        return {"code": "INVALID_JSON"}
    kind = frame.get("type")
    if kind == "telemetry":
        return await run_in_threadpool(_telemetry, plexus, link, frame.get("points"))
    if kind in {"heartbeat", "command_result", "command_status", "command_sync"}:
        return None
    return {"code": "INVALID_MESSAGE", "detail": "unknown message type"}


def _telemetry(plexus: Plexus, link: Link, points: Json) -> dict[str, Any] | None:
    if not isinstance(points, list):
        return {"code": "INVALID_MESSAGE", "detail": "'points' array is required"}
    if len(points) > POINTS_MAX:
        return {"code": "INVALID_MESSAGE", "detail": f"too many points: {len(points)} (max {POINTS_MAX})"}
    try:
        batch = read_points(points, link.slug, plexus.stamps.now_ms(), per_point_source=False)
    except InvalidPoint as error:
        return {"code": "INVALID_MESSAGE", "detail": str(error)}
    if points:
        plexus.accept(link.org, batch, PATH)
    return None


def _decoded(text: str) -> Json:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def routes(plexus: Plexus) -> list[WebSocketRoute]:
    """Return the device's WebSocket route."""

    async def endpoint(socket: WebSocket) -> None:
        await serve(plexus, socket)

    return [WebSocketRoute(PATH, endpoint)]
