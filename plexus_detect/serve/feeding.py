"""Rows into a streaming detector, results out: what the stream endpoint and the WebSocket share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from plexus_detect import clock
from plexus_detect.learn.stream import Learner
from plexus_detect.serve.detector import Detector, params_of
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.service import Service
from plexus_detect.serve.settings import checked_id
from plexus_detect.serve.shapes import AnomalyStreamRequest

# A batch is worked on in slices of about so long, seconds, and other requests come in between.
SLICE_S = 0.01
FIRST_ROWS, ROWS_MAX = 32, 1024

# Backends whose scores and blame cost so little that a thread would cost more, up to so many features.
LIGHT_WIDTH = 256
LIGHT = frozenset({"ecod", "hbos", "copod", "isolation_forest", "loda", "mcd"})


def stream_request(body: Mapping[str, Any]) -> AnomalyStreamRequest:
    """The request; raises Refused with pydantic's own text (400), as documented."""
    try:
        asked = AnomalyStreamRequest.model_validate(body)
    except ValidationError as error:
        raise Refused(400, str(error)) from None
    checked_id(asked.model)
    return asked


async def take(service: Service, asked: AnomalyStreamRequest) -> dict[str, Any]:
    """Feed the rows of a request to its detector, which it makes if there is none; the documented answer."""
    made: list[Detector] = []

    def make() -> Detector:
        made.append(Detector(asked.model, params_of(asked), asked.threshold, asked.schema_, service.trainer))
        return made[0]

    async with service.registry.use(asked.model, make) as detector:
        rows = [asked.data] if isinstance(asked.data, dict) else asked.data
        async with detector.lock:
            results = await _fed(service, detector, rows)
            learner = detector.learner
            answer: dict[str, Any] = {
                "object": "streaming_result",
                "model": asked.model,
                "status": learner.status,
                "results": results,
                "model_version": learner.version,
                "samples_collected": learner.collected,
                "samples_until_ready": detector.until_ready,
                "threshold": detector.threshold,
            }
            if learner.fitted is None and results:
                # After a first fit that failed it takes longer than min_samples.
                answer["samples_until_ready"] = results[-1]["samples_until_ready"]
            if not made and (warnings := detector.differing(asked)):
                answer["warnings"] = warnings
            return answer


def _light(learner: Learner) -> bool:
    width = learner.params.features.width(len(learner.names))
    return learner.params.backend in LIGHT and width <= LIGHT_WIDTH


async def _fed(
    service: Service, detector: Detector, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The results of rows, in their order. The detector's lock is held."""
    learner, metrics = detector.learner, service.metrics
    names, x = detector.read(rows)
    results: list[dict[str, Any]] = []
    at, size = 0, FIRST_ROWS
    while at < len(x):
        if at:
            await clock.sleep_s(0.0)
        part = x[at : at + size]
        began_s = clock.monotonic_s()
        fits, version, failures = learner.fits, learner.version, learner.failures
        if _light(learner) and not learner.waits(len(part)):
            results += detector.step(names, part)
        else:
            results += await service.waiting(detector.step, names, part)
        metrics.fits["ok"] += learner.version - version
        metrics.fits["refused"] += (learner.fits - fits) - (learner.version - version)
        metrics.fits["failed"] += max(0, learner.failures - failures)
        at += size
        wanted = len(part) * SLICE_S / max(clock.monotonic_s() - began_s, 1e-6)
        size = max(1, min(int(wanted), 4 * size, ROWS_MAX))
    for index, result in enumerate(results):
        result["index"] = index
    metrics.points += len(results)
    metrics.scored += sum(result["score"] is not None for result in results)
    metrics.anomalies += sum(bool(result["is_anomaly"]) for result in results)
    return results
