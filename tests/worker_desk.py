"""Workers of a fake platform: short settings, history, and the events they log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_platform import FakePlatform, Row, settings

from plexus_detect.config import Config
from plexus_detect.report import TickReport
from plexus_detect.store import Store
from plexus_detect.worker import Worker, open_worker


def quick(**more: str) -> Config:
    """Settings of a small and fast worker."""
    given = {"fleet__min_points": "10", "poll__interval": "100ms"}
    return settings(**(given | more))


def history(now_ms: int, devices: int = 1, n: int = 64) -> list[Row]:
    """A sample a second from each device, up to two seconds ago."""
    return [
        (f"dev-{d}", "t", now_ms - 1000 * k, 20.0 + d + (k * 7 + d) % 5 / 10)
        for d in range(devices)
        for k in range(n + 1, 1, -1)
    ]


def opened(
    platform: FakePlatform,
    config: Config,
    store: Store | None = None,
    on_tick: Callable[[TickReport], None] | None = None,
) -> Worker:
    """A started worker."""
    store = store or Store(":memory:")
    return asyncio.run(open_worker(config, platform, store, on_tick))  # type: ignore[arg-type]


def tick(worker: Worker) -> TickReport:
    """One poll and delivery."""

    async def both() -> TickReport:
        report = await worker.tick()
        await worker.delivery.deliver_all()
        return report

    return asyncio.run(both())


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    """The fields of every logged event of one name."""
    return [r.fields for r in caplog.records if r.getMessage() == name]  # type: ignore[attr-defined]
