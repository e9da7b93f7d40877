"""The routes of the Polars buffers."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from plexus_detect.serve.body import Answer, StrictRoute
from plexus_detect.serve.buffers import (
    CELLS_MAX,
    LAGS,
    STATS,
    WINDOWS,
    Buffer,
    Buffers,
    FeatureWish,
    features,
)
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.service import Service
from plexus_detect.serve.settings import checked_id
from plexus_detect.serve.shapes import AppendRequest, BufferRequest, FeaturesRequest

_EVERYTHING = FeatureWish(WINDOWS, STATS, LAGS, zero=True)


def buffer_routes(service: Service, errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The router; ``errors`` documents what every route may answer."""
    router = APIRouter(prefix="/polars", tags=["buffers"], responses=errors, route_class=StrictRoute)
    buffers = service.buffers

    @router.post("/buffers", responses={409: {"description": "There is one of this id"}})
    async def create(asked: BufferRequest) -> Answer:
        """Make a buffer."""
        made = buffers.create(checked_id(asked.buffer_id, "buffer_id"), asked.window_size)
        about = {"buffer_id": made.buffer_id, "window_size": made.window_size}
        return Answer({"object": "buffer_created", **about, "status": "created"})

    @router.get("/buffers")
    async def listing() -> Answer:
        """All buffers."""
        found = [buffer.stats() for buffer in buffers.all()]
        return Answer({"object": "list", "data": found, "total": len(found)})

    @router.get("/buffers/{buffer_id}")
    async def stats(buffer_id: str) -> Answer:
        """The figures of one buffer."""
        return Answer(buffers.get(checked_id(buffer_id, "buffer_id")).stats())

    @router.delete("/buffers/{buffer_id}")
    async def delete(buffer_id: str) -> Answer:
        """Forget a buffer."""
        buffers.delete(checked_id(buffer_id, "buffer_id"))
        return Answer({"deleted": True, "buffer_id": buffer_id})

    @router.post("/buffers/{buffer_id}/clear")
    async def clear(buffer_id: str) -> Answer:
        """Forget the rows of a buffer."""
        buffers.get(checked_id(buffer_id, "buffer_id")).clear()
        return Answer({"cleared": True, "buffer_id": buffer_id, "size": 0})

    _rows(router, buffers)
    return router


def _rows(router: APIRouter, buffers: Buffers) -> None:
    """The routes of a buffer's rows."""

    @router.get("/buffers/{buffer_id}/data")
    async def data(buffer_id: str, tail: int | None = None, with_features: bool = False) -> Answer:
        """The rows of a buffer, or the last ``tail`` of them."""
        buffer = buffers.get(checked_id(buffer_id, "buffer_id"))
        return await _data(buffer, _EVERYTHING if with_features else None, tail)

    @router.post("/append")
    async def append(asked: AppendRequest) -> Answer:
        """Add one row or several to a buffer."""
        buffer = buffers.get(checked_id(asked.buffer_id, "buffer_id"))
        rows = asked.data if isinstance(asked.data, list) else [asked.data]
        buffers.append(buffer, rows)
        about = {"buffer_id": buffer.buffer_id, "appended": len(rows), "buffer_size": buffer.rows}
        return Answer({"object": "append_result", **about, "avg_append_ms": buffer.average_ms})

    @router.post("/features")
    async def rolling(asked: FeaturesRequest) -> Answer:
        """The rows of a buffer with rolling statistics and lags of their numeric columns."""
        buffer = buffers.get(checked_id(asked.buffer_id, "buffer_id"))
        wish = FeatureWish(
            WINDOWS if asked.rolling_windows is None else asked.rolling_windows,
            STATS if asked.include_rolling_stats is None else asked.include_rolling_stats,
            () if not asked.include_lags else LAGS if asked.lag_periods is None else asked.lag_periods,
            zero=asked.fill == "zero",
        )
        return await _data(buffer, wish, asked.tail)


async def _data(buffer: Buffer, wish: FeatureWish | None, tail: int | None) -> Answer:
    """Rows as the documents have them; worked out in a thread, so that others are served meanwhile."""
    frame, numeric = buffer.frame(), buffer.numeric
    shown = min(buffer.rows, tail) if tail is not None and tail > 0 else buffer.rows
    cells = shown * (len(buffer.kinds) + (wish.width(len(numeric)) if wish else 0))
    if cells > CELLS_MAX:
        raise Refused(400, f"The answer would hold {cells} values; ask for at most {CELLS_MAX} with tail")

    def made() -> Answer:
        full = features(frame, numeric, wish) if wish is not None else frame
        last = full.tail(shown)
        columns = last.columns if shown else []
        about = {"buffer_id": buffer.buffer_id, "rows": last.height, "columns": columns}
        return Answer({"object": "polars_data", **about, "data": buffer.rows_of(last)})

    return await asyncio.to_thread(made)
