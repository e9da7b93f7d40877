"""What every request passes: keys, the size of its body, the count of it, and a net for bugs."""

from __future__ import annotations

import hmac
import logging
import re
import uuid
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plexus_detect import clock
from plexus_detect.logs import event
from plexus_detect.serve.body import Answer
from plexus_detect.serve.metrics import Metrics
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.settings import Settings

log = logging.getLogger(__name__)

# What a probe asks needs no key.
OPEN_PATHS = {"/health", "/livez", "/readyz"}

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


class Gate:
    """ASGI middleware (asgi.readthedocs.io)."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.keys = [key.encode() for key in settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket" and not self._may(scope):
            await send({"type": "websocket.close", "code": 1008, "reason": "API key missing or wrong"})
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s, status = clock.monotonic_s(), 0
        request_id = _request_id(scope)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                answer = Answer({"detail": refusal.sentence}, refusal.status_code, refusal.headers)
                await answer(scope, receive, counted)
            else:
                await self.app(scope, _limited(receive, self.settings.body_bytes_max), counted)
        except Exception as error:
            event(log, logging.ERROR, "request_failed", exc_info=error, request=request_id.decode())
            if status:
                raise
            sentence = f"Internal error; the server's log tells more under request id {request_id.decode()}"
            await Answer({"detail": sentence}, 500)(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.request(scope["method"], route, status, clock.monotonic_s() - began_s)

    def _refusal(self, scope: Scope) -> Refused | None:
        if not self._may(scope):
            headers = {"WWW-Authenticate": "Bearer"}
            return Refused(
                401, "API key missing or wrong; send it as Authorization: Bearer or X-API-Key", headers
            )
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.settings.body_bytes_max:
            return _too_large(self.settings.body_bytes_max)
        return None

    def _may(self, scope: Scope) -> bool:
        if not self.keys or scope["path"] in OPEN_PATHS:
            return True
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        shown = [headers.get("x-api-key", "")] + ([token.strip()] if scheme.lower() == "bearer" else [])
        return _among([text.encode("utf-8", "replace") for text in shown], self.keys)


def _among(shown: Iterable[bytes], keys: Iterable[bytes]) -> bool:
    """Whether one is a key, in a time that does not depend on which."""
    found = False
    for one in shown:
        for key in keys:
            found |= hmac.compare_digest(one, key)
    return found


def _too_large(limit: int) -> Refused:
    return Refused(
        413, f"The body is larger than {limit} bytes, the most that is taken; send smaller batches"
    )


def _limited(receive: Receive, limit: int) -> Receive:
    """Receive, but for a body that is larger although its header did not say so."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise _too_large(limit)
        return message

    return limited


def _request_id(scope: Scope) -> bytes:
    """The id that the caller gave the request, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            given: bytes = value
            return given
    return uuid.uuid4().hex.encode()
