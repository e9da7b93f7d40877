"""Reads telemetry: completes cut-off answers page by page, and finds out which series exist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from plexus_detect import queries, wire
from plexus_detect.client import Client
from plexus_detect.cursor import PollParams, Query
from plexus_detect.errors import ContractError, PlexusDetectError, RejectedError, TransientError
from plexus_detect.retry import retried
from plexus_detect.series import Points, SeriesTable

# Sources asked for their metric names one by one in a round of discovery, when the summary lacks them.
LOOKUPS_MAX = 50

# Where there is no summary: how far back, and how many of the newest rows, a sample of all series reads.
SAMPLE_MS = 3_600_000
SAMPLE_ROWS = 10_000
NO_SERIES = np.zeros(0, np.int64)

# Follow-up requests for slow series that busy ones pushed out of a cold answer.
STARVED_MAX = 100


@dataclass
class Answer:
    """The whole answer to one query: ``to_ms`` is the server's time of it; ``error`` says why there is none."""

    query: Query
    points: Points = field(default_factory=Points.empty)
    to_ms: int | None = None
    error: PlexusDetectError | None = None
    cut_off: bool = False


class Reader:
    """Asks the platform, at most ``concurrency`` requests at once."""

    def __init__(self, client: Client, table: SeriesTable, poll: PollParams, concurrency: int = 4) -> None:
        self._client = client
        self._table = table
        self._poll = poll
        self._gate = asyncio.Semaphore(concurrency)
        self._looked_up: set[str] = set()

    async def read(self, asked: Iterable[Query], now_ms: int) -> list[Answer]:
        """The answers in the order of the queries; a query that failed carries its error."""
        return list(await asyncio.gather(*(self._answer(query, now_ms) for query in asked)))

    async def _answer(self, query: Query, now_ms: int) -> Answer:
        try:
            answer = await self._complete(query, now_ms)
            if query.cold and answer.cut_off:
                await self._feed_starved(answer, now_ms)
        except PlexusDetectError as error:
            return Answer(query, error=error)
        return answer

    async def _page(self, query: Query) -> wire.Page:
        params = wire.telemetry_params(query.source, query.metrics, query.from_ms, query.to_ms, query.limit)
        async with self._gate:
            body = await retried(lambda: self._client.telemetry(params))
        return wire.decode_telemetry(body, self._table)

    async def _complete(self, query: Query, now_ms: int) -> Answer:
        """Page back until the answer is whole; a window that takes too many pages is halved.

        A cold query wants only its newest rows, so it ends when they are enough.
        """
        pages: list[Points] = []
        ask, to_ms = query, query.to_ms
        enough = len(query.series) * self._poll.history_points / query.limit
        for number in range(self._poll.pages_max):
            page = await self._page(ask)
            pages.append(page.points)
            to_ms = to_ms or page.to_ms or now_ms
            try:
                older = queries.older_page(ask, page.points, page.count)
            except ValueError:
                return await self._narrower(query, pages, to_ms, now_ms)
            if older is None:
                return Answer(query, Points.concat(pages), to_ms)
            if query.cold and number + 1 > enough:
                return Answer(query, Points.concat(pages), to_ms, cut_off=True)
            ask = older
        return await self._complete(queries.shorter(query, now_ms), now_ms)

    async def _narrower(self, query: Query, pages: list[Points], to_ms: int, now_ms: int) -> Answer:
        """One millisecond holds more rows than a page: ask for fewer series at once."""
        parts = queries.narrower(query, self._table.keys)
        if not parts:
            return Answer(query, Points.concat(pages), to_ms, cut_off=True)
        answers = [await self._complete(part, now_ms) for part in parts]
        return Answer(query, Points.concat([a.points for a in answers]), to_ms)

    async def _feed_starved(self, answer: Answer, now_ms: int) -> None:
        """Slow series that busy ones pushed out of a cold answer are asked for on their own."""
        poor = queries.starved(answer.query, answer.points, self._poll, self._table.keys)
        pages = [answer.points]
        for query in poor[:STARVED_MAX]:
            pages.append((await self._page(query)).points)
        answer.points = Points.concat(pages)

    # -- discovery

    async def discover(self, now_ms: int, wanted: Callable[[str], bool]) -> set[tuple[str, str]]:
        """The (source, metric) pairs that the platform knows.

        One request names every series of the last hour. ``wanted`` sources that it lacks (silent for longer)
        are looked up once each in the read API, at most LOOKUPS_MAX a round. Where the platform has no such
        summary, a sample of the newest rows serves. Raises TransientError and AuthError of what it depends on.
        """
        found = await self._summary()
        if not found:
            page = await self._page(Query(None, (), now_ms - SAMPLE_MS, None, SAMPLE_ROWS, NO_SERIES))
            return {tuple(self._table.keys[i]) for i in set(page.points.series.tolist())}
        skip = {source for source, _ in found} | self._looked_up
        quiet = [slug for slug in await self._devices() if slug not in skip and wanted(slug)]
        for slug in quiet[:LOOKUPS_MAX]:
            self._looked_up.add(slug)
            found |= {(slug, metric) for metric in await self._metric_names(slug)}
        return found

    async def _summary(self) -> set[tuple[str, str]]:
        try:
            async with self._gate:
                body = await retried(self._client.fleet_health, attempts_max=2)
            summary = wire.decode_fleet_health(body)
        except (RejectedError, TransientError, ContractError):
            return set()
        return {(source, metric) for source, metrics in summary.items() for metric in metrics}

    async def _devices(self) -> list[str]:
        try:
            async with self._gate:
                body = await retried(self._client.sources, attempts_max=2)
            return [row.slug for row in wire.decode_sources(body) if row.source_type == "device"]
        except (RejectedError, TransientError, ContractError):
            return []

    async def _metric_names(self, slug: str) -> tuple[str, ...]:
        try:
            async with self._gate:
                body = await self._client.source_metrics(slug)
            return wire.decode_metric_names(body)
        except PlexusDetectError:
            # The read API is another service, which may be down or not installed; the poll goes on without.
            return ()
