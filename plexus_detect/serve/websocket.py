"""The WebSocket for continuous feeding: settings once, then rows, and an answer to every message.

A message with ``data`` is a request as for the stream endpoint, and is answered like one. A first message
without ``data`` holds the settings of all that follow: from then on each message is rows, one JSON object a
line (NDJSON), answered by one result. An error is answered by ``{"object": "error", "status", "detail"}``
and ends nothing; a message that is too large closes the connection (code 1009).
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from plexus_detect.serve.body import decoded, encoded
from plexus_detect.serve.feeding import stream_request, take
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.service import Service

PATH = "/anomaly/ws"


def socket_routes(service: Service) -> APIRouter:
    """The router."""
    router = APIRouter()

    @router.websocket(PATH)
    async def feed(socket: WebSocket) -> None:
        """Answer messages until the client goes."""
        await socket.accept()
        talk = _Talk(service)
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                raw = message.get("bytes") or (message.get("text") or "").encode("utf-8", "replace")
                if len(raw) > service.settings.body_bytes_max:
                    await socket.close(1009, "message too large")
                    return
                await socket.send_text(encoded(await talk.answered(raw)).decode())
        except WebSocketDisconnect:
            return

    return router


class _Talk:
    """One connection: its settings, once they came."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings: dict[str, Any] | None = None

    async def answered(self, raw: bytes) -> dict[str, Any]:
        """The answer to a message."""
        try:
            if self._settings is not None:
                rows = [_object(line) for line in raw.splitlines() if line.strip()]
                return await take(self._service, stream_request({**self._settings, "data": rows}))
            body = _object(raw)
            if "data" in body:
                return await take(self._service, stream_request(body))
            answer = await take(self._service, stream_request({**body, "data": []}))
            self._settings = body
            return answer
        except Refused as error:
            return {"object": "error", "status": error.status_code, "detail": error.sentence}


def _object(raw: bytes) -> dict[str, Any]:
    """A message or line that holds a JSON object; raises Refused."""
    try:
        value = decoded(raw)
    except json.JSONDecodeError as error:
        raise Refused(422, f"This is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(422, "This is not a JSON object")
    return value
