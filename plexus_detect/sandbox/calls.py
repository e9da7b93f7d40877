"""One request as a handler sees it, how handlers refuse, and how each service reads a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from plexus_detect.sandbox.javascript import Json
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.settings import Key

KEY_LENGTH = 36
_NOBODY = Key(org="", scopes=())
# Far above any service's own limit: what is read of a body before the request is refused outright.
_BODY_BYTES_READ_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class Call:
    """A request with its key checked. Of a repeated query parameter only the first value counts."""

    org: str
    key: Key
    query: Mapping[str, str]
    ids: Mapping[str, str]
    headers: Mapping[str, str]
    path: str
    body: bytes


class Refusal(Exception):  # noqa: N818  it is an answer, not a failure of the sandbox
    """An answer that ends a handler early: JSON ``body``, or plain text."""

    def __init__(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers

    def response(self) -> Response:
        """Return the answer."""
        if isinstance(self.body, str):
            return PlainTextResponse(self.body, self.status, self.headers)
        return JSONResponse(self.body, self.status, self.headers)


Handler = Callable[[Plexus, Call], Response]
Authorize = Callable[[Plexus, Mapping[str, str]], Key]


def app_key(plexus: Plexus, headers: Mapping[str, str]) -> Key:
    """Return the key as the app reads it: a billing pause is ignored; scopes are the route's business."""
    key = _known(plexus, headers)
    if key is None:
        raise Refusal(401, {"error": "Unauthorized"})
    return key


def gateway_key(plexus: Plexus, headers: Mapping[str, str]) -> Key:
    """Return the key as the gateway reads it: a paused key is invalid, no scopes at all mean write."""
    if not headers.get("x-api-key"):
        raise Refusal(401, {"error": "missing x-api-key"})
    key = _known(plexus, headers)
    if key is None or not key.access_enabled:
        raise Refusal(401, {"error": "invalid API key"})
    if key.scopes and not {"write", "*"} & set(key.scopes):
        raise Refusal(403, {"error": "API key lacks write scope"})
    return key


def api_key(plexus: Plexus, headers: Mapping[str, str]) -> Key:
    """Return the key as the read API reads it: scopes never matter, a paused key has to pay."""
    key = _known(plexus, headers)
    if key is None:
        raise Refusal(401, {"detail": "invalid api key"})
    if not key.access_enabled:
        where = "https://app.plexus.company/settings?tab=billing"
        detail = {"error": "payment_required", "message": f"Add a payment method at {where}"}
        raise Refusal(402, {"detail": detail})
    return key


def nobody(plexus: Plexus, headers: Mapping[str, str]) -> Key:  # noqa: ARG001
    """Ask for no key: open routes."""
    return _NOBODY


def session_only(plexus: Plexus, headers: Mapping[str, str]) -> Key:  # noqa: ARG001
    """Refuse every API key: routes for a browser session."""
    raise Refusal(401, {"error": "Unauthorized"})


def _known(plexus: Plexus, headers: Mapping[str, str]) -> Key | None:
    text = headers.get("x-api-key", "")
    key = plexus.settings.keys.get(text)
    if key is None or key.expired or len(text) != KEY_LENGTH or not text.startswith("plx_"):
        return None
    return key


def json_body(call: Call) -> Json:
    """Return the parsed body.

    Raises:
        ValueError: when it is not JSON; NaN and infinities are not.

    """
    try:
        return json.loads(call.body, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(text: str) -> Json:
    raise ValueError(f"{text} is not JSON")


def reply(body: Json, status: int = 200) -> Response:
    """Return JSON."""
    return JSONResponse(body, status)


def internal_error() -> Refusal:
    """Return the app's answer to anything it did not expect."""
    return Refusal(500, {"error": "INTERNAL_ERROR", "message": "Internal server error"})


def first_values(raw_query: bytes) -> dict[str, str]:
    """Return the query parameters; of a repeated one, the first. A raw ``+`` is a space."""
    values: dict[str, str] = {}
    for name, value in parse_qsl(raw_query.decode("latin-1"), keep_blank_values=True):
        values.setdefault(name, value)
    return values


def route(plexus: Plexus, path: str, authorize: Authorize, **handlers: Handler) -> Route:
    """Return a route whose handlers, one a method, run in a worker thread after the key was checked."""

    async def serve(request: Request) -> Response:
        try:
            body = await read_body(request)
        except ClientDisconnect:
            # Nobody is there to read this answer: the client was killed or gave up.
            return Response(status_code=499)
        handler = handlers["GET" if request.method == "HEAD" else request.method]
        try:
            key = authorize(plexus, request.headers)
            call = Call(
                org=key.org,
                key=key,
                query=first_values(request.scope["query_string"]),
                ids=request.path_params,
                headers=request.headers,
                path=request.url.path,
                body=body,
            )
            response = await run_in_threadpool(handler, plexus, call)
        except Refusal as refusal:
            response = refusal.response()
        if request.method == "HEAD":
            return Response(b"", response.status_code, media_type=response.media_type)
        return response

    return Route(path, serve, methods=list(handlers))


async def read_body(request: Request) -> bytes:
    """Return the whole body; beyond the bound the rest is read and thrown away."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= _BODY_BYTES_READ_MAX:
            parts.append(part)
    return b"".join(parts)
