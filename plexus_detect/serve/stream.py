"""The routes of the streaming detectors."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError

from plexus_detect.serve.body import Answer, json_of
from plexus_detect.serve.catalogue import listing
from plexus_detect.serve.feeding import stream_request, take
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.registry import Registry
from plexus_detect.serve.service import Service
from plexus_detect.serve.settings import checked_id
from plexus_detect.serve.shapes import AnomalyStreamRequest

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": AnomalyStreamRequest.model_json_schema()}},
    }
}


def stream_routes(service: Service, errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The router; ``errors`` documents what every route may answer."""
    router = APIRouter(tags=["stream"], responses=errors)
    registry = service.registry

    @router.post("/anomaly/stream", openapi_extra=_BODY)
    async def feed(request: Request) -> Answer:
        """Score one point or a batch, and learn from it; the first request of an id creates its detector."""
        body = await json_of(request)
        if not isinstance(body, dict):
            what = "Input should be a valid dictionary"
            raise RequestValidationError(
                [{"type": "dict_type", "loc": ("body",), "msg": what, "input": body}]
            )
        return Answer(await take(service, stream_request(body)))

    @router.get("/anomaly/stream/detectors")
    async def detectors() -> Answer:
        """All detectors, also those on disk."""
        found = registry.stats()
        return Answer({"object": "list", "data": found, "total": len(found)})

    @router.get("/anomaly/backends")
    async def backends() -> Answer:
        """The backends and what each is for."""
        return Answer(listing())

    _one_detector(router, registry)
    return router


def _one_detector(router: APIRouter, registry: Registry) -> None:
    """The routes of a detector by its id."""

    @router.get("/anomaly/stream/{model_id}")
    async def detector(model_id: str) -> Answer:
        """The figures of one detector."""
        live = registry.live.get(checked_id(model_id))
        found = live.stats() if live is not None else registry.stored.get(model_id)
        if found is None:
            raise Refused(404, f"Streaming detector not found: {model_id}")
        return Answer({"object": "streaming_detector", **found})

    @router.delete("/anomaly/stream/{model_id}")
    async def delete(model_id: str) -> Answer:
        """Forget a detector with all it learned."""
        if not await registry.delete(checked_id(model_id)):
            raise Refused(404, f"Streaming detector not found: {model_id}")
        return Answer({"object": "delete_result", "model": model_id, "deleted": True})

    @router.post("/anomaly/stream/{model_id}/reset")
    async def reset(model_id: str) -> Answer:
        """Forget what a detector learned, and keep its parameters."""
        async with registry.use(checked_id(model_id)) as known, known.lock:
            known.reset()
        return Answer({"object": "reset_result", "model": model_id, "status": "collecting", "reset": True})

    @router.post("/anomaly/stream/{model_id}/rollback")
    async def rollback(model_id: str) -> Answer:
        """Use the model before the one in use again, under a version of its own; 409 where there is none."""
        async with registry.use(checked_id(model_id)) as known, known.lock:
            if not known.roll_back():
                raise Refused(409, f"There is no model before version {known.learner.version} of {model_id}")
            version = known.learner.version
        return Answer({"object": "rollback_result", "model": model_id, "model_version": version})
