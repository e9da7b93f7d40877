"""What the platform answers: every question once, each for at most ANSWER_S, whatever the others gave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from plexus_detect import clock, wire
from plexus_detect.client import Client, Endpoints
from plexus_detect.config import Config
from plexus_detect.errors import ConfigError, PlexusDetectError, TransientError
from plexus_detect.policy import poll_params
from plexus_detect.probe import Probe, probes
from plexus_detect.reader import Reader
from plexus_detect.series import SeriesTable

ANSWER_S = 10.0

# How far back the telemetry question reaches, whose rows nobody wants.
CHECK_MS = 60_000

T = TypeVar("T")


class Ahead(NamedTuple):
    """How far the platform's clock is ahead of ours, in ms; None: it did not say what time it is."""

    ms: int | None


@dataclass(frozen=True)
class Answers:
    """What came: a body or an error for each question, None for one that was not asked.

    ``found`` are all series that the platform knows; ``client`` is why nothing could be asked with the key.
    """

    probes: Mapping[str, Probe]
    client: ConfigError | None = None
    read: Ahead | PlexusDetectError | None = None
    write: bytes | PlexusDetectError | None = None
    api: bytes | PlexusDetectError | None = None
    ping: bytes | PlexusDetectError | None = None
    sources: bytes | PlexusDetectError | None = None
    monitors: bytes | PlexusDetectError | None = None
    found: set[tuple[str, str]] | PlexusDetectError | None = None


async def ask(config: Config) -> Answers:
    """Ask everything. Raises nothing for an answer, however odd."""
    plexus = config.plexus
    urls = {
        "app": f"{plexus.endpoint}/api/ping",
        "gateway": f"{plexus.gateway_url}/health",
        "read API": f"{plexus.api_url}/health",
    }
    probing = asyncio.create_task(probes(urls, plexus.ca_file, timeout_s=ANSWER_S))
    try:
        client = _client(config)
    except ConfigError as error:
        return Answers(await probing, client=error)
    async with client:
        six = asyncio.gather(
            _within(_read(client)),
            _within(_write(client)),
            _within(client.source_metrics(config.heartbeat.source)),
            _within(client.ping()),
            _within(client.sources()),
            _within(client.monitors()),
        )
        found = await _within(_found(config, client))
        return Answers(await probing, None, *await six, found)


def _client(config: Config) -> Client:
    plexus = config.plexus
    endpoints = Endpoints(plexus.endpoint, plexus.gateway_url, plexus.api_url, plexus.ca_file)
    rate = plexus.requests_per_s
    return Client(endpoints, config.require_api_key(), timeout_s=ANSWER_S, requests_per_s=rate)


async def _within(call: Awaitable[T]) -> T | PlexusDetectError:
    """The result, or one of our errors; what takes longer than ANSWER_S counts as no answer."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await call
    except TimeoutError:
        return TransientError(f"no answer within {ANSWER_S:g} s")
    except PlexusDetectError as error:
        return error


async def _read(client: Client) -> Ahead:
    """Ask for nothing much; the clock is ahead by 0 as long as the two may agree."""
    sent_ms = clock.now_ms()
    body = await client.telemetry(wire.telemetry_params(None, ("_",), sent_ms - CHECK_MS, None, 1))
    page = wire.decode_telemetry(body, SeriesTable())
    if page.to_ms is None:
        return Ahead(None)
    return Ahead(min(max(0, page.to_ms - clock.now_ms()), page.to_ms - sent_ms))


async def _write(client: Client) -> bytes:
    """Post no points."""
    await client.check_write()
    return b""


async def _found(config: Config, client: Client) -> set[tuple[str, str]]:
    reader = Reader(client, SeriesTable(), poll_params(config), config.plexus.concurrency)
    return await reader.discover(config.may_select)
