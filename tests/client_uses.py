"""Ways to use a client once, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import respx
from recorded import RECORDED, body_of

from plexus_detect.client import Client, Endpoints
from plexus_detect.errors import PlexusDetectError

KEY = "plx_S3cretS3cretS3cretS3cretS3cret00"
APP, GATEWAY, API = "https://app.test", "https://gateway.test", "https://api.test"
ENDPOINTS = Endpoints(APP, GATEWAY, API)
Use = Callable[[Client], Awaitable[Any]]


def use(use_client: Use, endpoints: Endpoints = ENDPOINTS, **options: Any) -> Any:
    """The result of one use of a client, without the cost of loading certificates."""

    async def run() -> Any:
        transport = httpx.AsyncHTTPTransport(verify=False)
        async with Client(endpoints, KEY, transport=transport, **options) as client:
            return await use_client(client)

    return asyncio.run(run())


def telemetry(client: Client) -> Awaitable[Any]:
    """A read that any test may make."""
    return client.telemetry({"limit": "1"})


def ingest(client: Client) -> Awaitable[Any]:
    """A post whose repetition would store points twice."""
    return client.ingest(b'{"points":[]}')


def threshold(client: Client) -> Awaitable[Any]:
    """A post whose repetition changes nothing."""
    return client.create_monitor({"source_id": "s", "metric": "m", "threshold": {"max": 3}, "event": None})


def offline(client: Client) -> Awaitable[Any]:
    """A post whose repetition makes a second monitor."""
    return client.create_monitor({"source_id": "s", "offline": {"timeout_seconds": 60}})


def event(client: Client) -> Awaitable[Any]:
    """A post whose repetition makes a monitor blind for a while."""
    return client.create_monitor({"source_id": "s", "metric": "m", "event": {"severity": "info"}})


def create_source(client: Client) -> Awaitable[Any]:
    """A post whose repetition is answered with "already exists"."""
    return client.create_source("anomaly-bot", "Anomaly bot")


def check_write(client: Client) -> Awaitable[Any]:
    """A post of nothing."""
    return client.check_write()


def source_metrics(client: Client) -> Awaitable[Any]:
    """A read of the read API."""
    return client.source_metrics("dev-1")


def failure(use_client: Use, **options: Any) -> PlexusDetectError:
    """The error of one use, which must be one of ours, one line, and without the key."""
    with pytest.raises(PlexusDetectError) as caught:
        use(use_client, **options)
    text = str(caught.value)
    assert "S3cret" not in text
    assert "\n" not in text
    assert len(text) < 600
    return caught.value


def answered(use_client: Use, response: httpx.Response) -> PlexusDetectError:
    """The error of one use when every address gives ``response``."""
    with respx.mock() as router:
        router.route().mock(return_value=response)
        return failure(use_client)


def recorded(name: str) -> httpx.Response:
    """A recorded answer of the real platform."""
    exchange = RECORDED[name]
    return httpx.Response(exchange["status"], headers=exchange["headers"], content=body_of(name))
