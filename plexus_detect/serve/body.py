"""Bodies in and out as JSON: strictly RFC 8259, so without NaN and Infinity, and never a surprise later."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from plexus_detect.serve.refused import Refused

_NOT_FINITE = (
    "The body holds NaN or Infinity, which is not JSON; leave the value out or send null where there is none"
)


def decoded(raw: bytes) -> Any:  # noqa: ANN401 - JSON may be anything
    """The value; raises Refused (400) for what Python could read but JSON does not know, and
    json.JSONDecodeError for what is no JSON at all."""
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise Refused(400, "The body is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        problem = str(error)
    try:
        json.loads(raw, parse_constant=_not_finite)
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError:
        raise Refused(400, "The body is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise Refused(400, f"The body holds something that cannot be used: {problem}")


def _not_finite(_token: str) -> NoReturn:
    raise Refused(400, _NOT_FINITE)


async def json_of(request: Request) -> Any:  # noqa: ANN401 - JSON may be anything
    """The body of a request; raises also RequestValidationError (422)."""
    try:
        return decoded(await request.body())
    except json.JSONDecodeError as error:
        what = {
            "type": "json_invalid",
            "loc": ("body", error.pos),
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": error.msg},
        }
        raise RequestValidationError([what]) from None


def encoded(value: object) -> bytes:
    """JSON; numbers that are not finite become null."""
    return msgspec.json.encode(value)


class Answer(JSONResponse):
    """A JSON answer."""

    def render(self, content: object) -> bytes:
        """The bytes of it."""
        return encoded(content)


class StrictRequest(Request):
    """A request whose body is read by ``decoded``."""

    async def json(self) -> Any:  # noqa: ANN401 - as in the class above
        """The body."""
        return decoded(await self.body())


class StrictRoute(APIRoute):
    """A route with such requests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await inner(StrictRequest(request.scope, request.receive))

        return handler
