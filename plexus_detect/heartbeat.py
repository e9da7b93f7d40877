"""The worker's sign of life, on a source of its own: when it ends, an offline monitor tells somebody.

It is posted while polls succeed, so that a worker that lives but reads nothing counts as dead too. It never
goes to a device's source: there it would hide a silent device (contract section 5.3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from plexus_detect import wire
from plexus_detect.client import Client
from plexus_detect.config import HeartbeatConfig
from plexus_detect.errors import ContractError, PlexusDetectError, TransientError
from plexus_detect.logs import event
from plexus_detect.retry import retried

log = logging.getLogger(__name__)

METRIC = "heartbeat"
NAME = "plexus-detect worker"


class Heartbeat:
    """Posts signs of life; ``now_ms`` is the platform's wall clock. ``last_ms`` is the time of the newest one
    that was accepted, 0 before the first."""

    def __init__(self, client: Client, config: HeartbeatConfig, now_ms: Callable[[], int]) -> None:
        self._client = client
        self._source = config.source
        self._now_ms = now_ms
        self._exists = False
        self._failing = False
        self.last_ms = 0

    async def beat(self, series: int) -> None:
        """One sign of life; its value is the number of series that are watched. A failure is told once."""
        try:
            await self._post(series)
        except PlexusDetectError as error:
            if not self._failing:
                event(log, logging.WARNING, "heartbeat_failed", source=self._source, err=str(error))
            self._failing = True
            return
        if self._failing:
            event(log, logging.INFO, "heartbeat_recovered", source=self._source)
        self._failing = False

    async def _post(self, series: int) -> None:
        if not self._exists:
            # The first moments of a source that does not exist yet are not stored (contract section 3).
            await retried(lambda: self._client.create_source(self._source, NAME), attempts_max=2)
            self._exists = True
        now_ms = self._now_ms()
        if now_ms <= 0:
            raise ContractError(
                f"the platform's clock says {now_ms} ms since 1970, which is no time of a point"
            )
        point = np.array([now_ms]), np.array([float(series)])
        answer = await self._client.ingest(wire.encode_points([self._source], [METRIC], *point))
        if wire.decode_ingest_reply(answer, 1) < 1:
            raise TransientError(
                "the gateway dropped the sign of life: its limit of devices or of rate is reached"
            )
        self.last_ms = now_ms
