"""The application: routes, gate and life of one server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError

from plexus_detect import __version__
from plexus_detect.errors import PlexusDetectError
from plexus_detect.serve.batch import batch_routes
from plexus_detect.serve.body import Answer
from plexus_detect.serve.frames import buffer_routes
from plexus_detect.serve.gate import Gate
from plexus_detect.serve.service import Process, Service
from plexus_detect.serve.settings import Settings
from plexus_detect.serve.stream import stream_routes
from plexus_detect.serve.websocket import socket_routes

# The documented prefix of the outer server, and that of the runtime behind it.
PREFIXES = ("/v1/ml", "/v1")

# Of a value that cannot be used, no more than this is shown.
INPUT_CHARS_MAX = 200

_DETAIL = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
_DETAILS = {"type": "object", "properties": {"detail": {}}, "required": ["detail"]}


def _error(description: str, schema: dict[str, Any] = _DETAIL) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("A value that cannot be used"),
    401: _error("API key missing or wrong"),
    404: _error("There is nothing of this name"),
    413: _error("The body is too large"),
    422: _error("A body or parameter of another form", _DETAILS),
    429: _error("There is no room for more"),
}


def make_app(settings: Settings, trainer: Process, batch: Process) -> FastAPI:
    """The application; ``trainer`` and ``batch`` fit for the streaming detectors and for the batch models."""
    service = Service(settings, trainer, batch)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(title="plexus-detect serve", version=__version__, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(Gate, settings=settings, metrics=service.metrics)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(PlexusDetectError, _ours)
    for prefix in PREFIXES:
        documented = prefix == PREFIXES[0]
        for routes in (stream_routes, batch_routes, buffer_routes):
            app.include_router(routes(service, _ERRORS), prefix=prefix, include_in_schema=documented)
        app.include_router(socket_routes(service), prefix=prefix)
    _operations(app, service)
    return app


def _operations(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["operations"])
    @app.get("/livez", tags=["operations"])
    @app.get("/readyz", tags=["operations"])
    async def health() -> Answer:
        """That the server answers."""
        return Answer({"status": "healthy", "version": __version__, "detectors": len(service.registry)})

    @app.get("/metrics", tags=["operations"], responses={401: _ERRORS[401]})
    async def metrics() -> Response:
        """Counters and gauges for Prometheus."""
        text = service.metrics.text(service.gauges())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _invalid(_request: Request, error: Exception) -> Answer:
    """FastAPI's own list of what is wrong, without the input: that may be megabytes."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    found = [
        {k: v for k, v in one.items() if k != "input" or len(str(v)) < INPUT_CHARS_MAX} for one in problems
    ]
    return Answer({"detail": jsonable_encoder(found)}, 422)


async def _ours(_request: Request, error: Exception) -> Answer:
    """An error that says itself what is wrong."""
    return Answer({"detail": str(error)}, 400)
