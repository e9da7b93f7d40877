"""The routes of the batch models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter

from plexus_detect import clock
from plexus_detect.learn.rows import aligned, read_records
from plexus_detect.series import F64
from plexus_detect.serve.body import Answer, StrictRoute
from plexus_detect.serve.encoders import Encoder
from plexus_detect.serve.models import BatchModel, BatchModels, Wanted
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.service import Service
from plexus_detect.serve.settings import COLUMNS_MAX, checked_id
from plexus_detect.serve.shapes import FitRequest, ModelRequest, Row, ScoreRequest

_SCHEMA_NEEDED = (
    "Schema is required when fitting with dict-based data. "
    "Example: schema = {'time_ms': 'numeric', 'user_agent': 'hash'}"
)


def batch_routes(service: Service, errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The router; ``errors`` documents what every route may answer."""
    router = APIRouter(tags=["batch"], responses=errors, route_class=StrictRoute)
    models = service.models

    @router.post("/anomaly/fit")
    async def fit(asked: FitRequest) -> Answer:
        """Fit a model to rows, and save it."""
        return Answer(await _fit(models, asked))

    @router.post("/anomaly/score")
    async def score(asked: ScoreRequest) -> Answer:
        """Score rows with a fitted model."""
        fitted = await _known(models, asked.model, asked.backend)
        threshold, found = await asyncio.to_thread(_scored, fitted, asked)
        count = sum(row["is_anomaly"] for row in found)
        summary = {
            "total_points": len(found),
            "anomaly_count": count,
            "anomaly_rate": count / len(found) if found else 0.0,
            "threshold": threshold,
        }
        return Answer(_list(fitted, found, summary))

    @router.post("/anomaly/detect")
    async def detect(asked: ScoreRequest) -> Answer:
        """Score rows and give those that are anomalies."""
        fitted = await _known(models, asked.model, asked.backend)
        threshold, found = await asyncio.to_thread(_scored, fitted, asked)
        flagged = [row for row in found if row.pop("is_anomaly")]
        return Answer(_list(fitted, flagged, {"anomalies_detected": len(flagged), "threshold": threshold}))

    _kept_models(router, models)
    return router


def _kept_models(router: APIRouter, models: BatchModels) -> None:
    """The routes of the models on disk."""

    @router.post("/anomaly/save")
    async def save(asked: ModelRequest) -> Answer:
        """Write a model's file; every fit does so already."""
        fitted = await _known(models, asked.model, asked.backend)
        path = await asyncio.to_thread(models.save, fitted)
        about = {
            "model": fitted.card.name,
            "backend": asked.backend,
            "filename": path.name,
            "path": str(path),
        }
        return Answer({"object": "save_result", **about, "encoder_path": None, "status": "saved"})

    @router.post("/anomaly/load")
    async def load(asked: ModelRequest) -> Answer:
        """Read a model's file; scoring does so by itself."""
        return Answer(await asyncio.to_thread(_loaded, models, asked))

    @router.get("/anomaly/models")
    async def listing() -> Answer:
        """The models on disk, the newest first."""
        found = await asyncio.to_thread(_listing, models)
        return Answer({"object": "list", "data": found, "models_dir": str(models.home), "total": len(found)})

    @router.delete("/anomaly/models/{filename}")
    async def delete(filename: str) -> Answer:
        """Remove a model."""
        checked_id(filename, "filename")
        if not await asyncio.to_thread(models.delete, filename):
            raise Refused(404, f"Model file not found: {filename}")
        return Answer({"object": "delete_result", "filename": filename, "deleted": True})


async def _fit(models: BatchModels, asked: FitRequest) -> dict[str, Any]:
    checked_id(asked.model)
    began_s = clock.monotonic_s()
    encoder, x = await asyncio.to_thread(_training_rows, asked)
    wanted = Wanted(
        asked.model,
        asked.backend,
        asked.normalization,
        asked.contamination,
        asked.overwrite,
        asked.description,
    )
    fitted, path = await models.fit(wanted, x, encoder)
    card = fitted.card
    answer = {
        "object": "fit_result",
        "model": card.name,
        "backend": card.backend,
        "samples_fitted": card.rows,
        "training_time_ms": (clock.monotonic_s() - began_s) * 1000.0,
        "model_params": {
            "backend": card.backend,
            "contamination": card.contamination,
            "threshold": fitted.scale.thresholds[card.normalization],
            "input_dim": card.input_dim,
        },
        "encoder": None if encoder is None else _about(encoder),
        "saved_path": str(path),
        "status": "fitted",
        "base_name": card.base_name,
        "versioned_name": card.name,
        "overwrite": asked.overwrite,
    }
    without = sorted(asked.model_fields_set & {"epochs", "batch_size"})
    if without:
        answer["warnings"] = [
            f"{name} has no effect: every backend has its own fixed one" for name in without
        ]
    return answer


def _about(encoder: Encoder) -> dict[str, Any]:
    return {"schema": encoder.schema, "features": list(encoder.schema), "columns": encoder.names}


def _training_rows(asked: FitRequest) -> tuple[Encoder | None, F64]:
    """The rows to fit, (n, f), and what encodes such rows; raises Refused (400)."""
    if not any(isinstance(row, dict) for row in asked.data):
        return None, _numbers(asked.data)
    if not asked.schema_:
        raise Refused(400, _SCHEMA_NEEDED)
    encoder = Encoder(asked.schema_)
    encoder.learn(asked.data)  # type: ignore[arg-type]
    return encoder, _encoded(asked.data, encoder)


def _numbers(data: Sequence[Any]) -> F64:
    widths = {len(row) for row in data}
    if len(widths) > 1:
        raise Refused(400, f"The rows have different numbers of columns: {sorted(widths)[:5]}")
    width = next(iter(widths), 0)
    if width > COLUMNS_MAX:
        raise Refused(400, f"The rows have {width} columns; at most {COLUMNS_MAX} can be")
    return np.array(data, np.float64).reshape(len(data), width)


def _encoded(data: Sequence[Row | list[float]], encoder: Encoder) -> F64:
    names = encoder.names
    if len(names) > COLUMNS_MAX:
        raise Refused(400, f"The schema gives {len(names)} columns; at most {COLUMNS_MAX} can be")
    found, x = read_records([encoder.encoded(row, only=True) for row in data])  # type: ignore[arg-type]
    return aligned(x, found, names)


async def _known(models: BatchModels, name: str, backend: str) -> BatchModel:
    checked_id(name)
    found = await asyncio.to_thread(models.get, name, backend)
    if found is None:
        raise Refused(
            400, f"Model not fitted: '{name}' with backend '{backend}'. Call /v1/ml/anomaly/fit first."
        )
    return found


def _scored(fitted: BatchModel, asked: ScoreRequest) -> tuple[float, list[dict[str, Any]]]:
    """The threshold in force, and every row's scores; raises Refused (400)."""
    card, encoder = fitted.card, fitted.encoder
    normalization = asked.normalization or card.normalization
    scale = fitted.scale
    threshold = scale.thresholds[normalization] if asked.threshold is None else asked.threshold
    if not asked.data:
        return threshold, []
    objects = isinstance(asked.data[0], dict)
    if objects != (encoder is not None):
        fitted_to = "objects, by a schema" if encoder is not None else "rows of numbers"
        raise Refused(400, f"The model was fitted to {fitted_to}; send the same to score")
    x = _numbers(asked.data) if encoder is None else _encoded(asked.data, encoder)
    if x.shape[1] != card.input_dim:
        raise Refused(400, f"The rows have {x.shape[1]} columns, the model was fitted to {card.input_dim}")
    raw = fitted.raw(x)
    scores = scale.scores(raw, normalization)
    rows = zip(scores.tolist(), (scores > threshold).tolist(), raw.tolist(), strict=True)
    return threshold, [
        {"index": i, "score": score, "is_anomaly": flagged, "raw_score": own}
        for i, (score, flagged, own) in enumerate(rows)
    ]


def _list(fitted: BatchModel, found: list[dict[str, Any]], summary: dict[str, Any]) -> dict[str, Any]:
    about = {"model": fitted.card.name, "backend": fitted.card.backend}
    return {"object": "list", "data": found, "total_count": len(found), **about, "summary": summary}


def _loaded(models: BatchModels, asked: ModelRequest) -> dict[str, Any]:
    checked_id(asked.model)
    fitted = models.get(asked.model, asked.backend)
    if fitted is None:
        there = [path.name for path, _ in models.cards()][:50]
        raise Refused(
            404,
            f"Model '{asked.model}' with backend '{asked.backend}' not found. Available models: {there}",
        )
    card = fitted.card
    return {
        "object": "load_result",
        "model": card.name,
        "backend": card.backend,
        "normalization": card.normalization,
        "filename": models.path(card.name, card.backend).name,
        "is_fitted": True,
        "threshold": fitted.scale.thresholds[card.normalization],
        "encoder_loaded": card.schema is not None,
        "encoder_schema": card.schema,
        "status": "loaded",
    }


def _listing(models: BatchModels) -> list[dict[str, Any]]:
    return [
        {
            "name": card.name,
            "filename": path.name,
            "base_name": card.base_name,
            "backend": card.backend,
            "path": str(path),
            "size_bytes": path.stat().st_size,
            "created": card.created,
            "is_versioned": card.name != card.base_name,
            "description": card.description,
        }
        for path, card in models.cards()
    ]
