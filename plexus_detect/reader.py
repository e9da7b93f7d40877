"""Reads telemetry: completes cut-off answers page by page, and finds out which series exist."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from plexus_detect import clock, queries, wire
from plexus_detect.bucket import RetryBudget
from plexus_detect.client import Client
from plexus_detect.cursor import PollParams, Query
from plexus_detect.errors import ApiError, ContractError, RejectedError, TransientError
from plexus_detect.retry import retried
from plexus_detect.series import I64, Points, SeriesTable

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
    """The whole answer to one query.

    ``to_ms`` is the server's time up to which it is whole; ``error`` says why there is none. ``cut_off``:
    older rows were left out on purpose.
    """

    query: Query
    points: Points = field(default_factory=Points.empty)
    to_ms: int = 0
    error: ApiError | ContractError | None = None
    cut_off: bool = False


class Reader:
    """Asks the platform, at most ``concurrency`` requests at once, one less of single sources: those may be
    slow, and must not stand in the way of the request for all.

    ``requests`` counts telemetry requests. ``skew_ms`` is how far the platform's clock is ahead of ours: 0
    unless an answer proved that the two differ, since the time of a request lies between its two ends. Ours
    is the wall clock as it was when the reader was made, and from then on one that cannot jump.
    """

    def __init__(self, client: Client, table: SeriesTable, poll: PollParams, concurrency: int = 4) -> None:
        self._client = client
        self._table = table
        self._poll = poll
        self._gate = asyncio.Semaphore(concurrency)
        self._narrow = asyncio.Semaphore(max(1, concurrency - 1))
        self._under_way: dict[asyncio.Task[Answer], Query] = {}
        self._looked_up: set[str] = set()
        self.requests = 0
        self.skew_ms = 0
        self.budget = RetryBudget()
        self._began_ms, self._began_s = clock.now_ms(), clock.monotonic_s()

    def now_ms(self) -> int:
        """The platform's wall clock, as well as we know it."""
        return self._ours_ms() + self.skew_ms

    def _ours_ms(self) -> int:
        # While nothing answers, a jump of the wall clock would pass for the time since: what is read next
        # would begin behind what was not read yet, or in the future, which the platform refuses for ever.
        return self._began_ms + round((clock.monotonic_s() - self._began_s) * 1000)

    @property
    def busy(self) -> list[I64]:
        """The series that are asked for already, one array a query."""
        return [query.series for query in self._under_way.values()]

    async def read(self, asked: Iterable[Query]) -> list[Answer]:
        """The answers in the order of the queries; a query that failed carries its error."""
        return list(await asyncio.gather(*(self._answer(query) for query in asked)))

    async def read_within(self, asked: Iterable[Query], patience_s: float | None) -> list[Answer]:
        """The answers that came within ``patience_s`` (None: all), in the order in which they were asked;
        a query that failed carries its error. What is slower goes on and comes with a later call.
        """
        for query in asked:
            self._under_way[asyncio.ensure_future(self._answer(query))] = query
        if self._under_way:
            try:
                await asyncio.wait(self._under_way, timeout=patience_s)
            except asyncio.CancelledError:
                self.close()
                raise
        done = [task for task in self._under_way if task.done()]
        for task in done:
            del self._under_way[task]
        return [task.result() for task in done]

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._under_way:
            task.cancel()
        self._under_way.clear()

    async def check(self) -> None:
        """Ask for nothing much: the key may read, the address is right, the clocks are compared."""
        # Without a begin: one by our clock is refused when that is ahead, and by how much is not known yet.
        await self._page(Query(None, ("_",), 0, None, 1, NO_SERIES), open_begin=True)

    async def _answer(self, query: Query) -> Answer:
        try:
            answer = await self._complete(query)
            if query.cold and answer.cut_off:
                await self._feed_starved(answer)
        except (ApiError, ContractError) as error:
            return Answer(query, error=error)
        return answer

    async def _page(self, query: Query, *, open_begin: bool = False) -> tuple[Points, int, int]:
        """The rows of one request, their number, and the server's time up to which they are whole.

        With ``open_begin`` the platform chooses the begin, an hour ago.
        """
        params = wire.telemetry_params(query.source, query.metrics, query.from_ms, query.to_ms, query.limit)
        if open_begin:
            del params["from"]
        sent_ms = 0

        async def ask() -> bytes:
            nonlocal sent_ms
            self.requests += 1
            sent_ms = self._ours_ms()
            return await self._client.telemetry(params)

        async with self._narrow if query.source is not None else contextlib.nullcontext(), self._gate:
            body = await retried(ask, budget=self.budget)
        page = wire.decode_telemetry(body, self._table)
        if query.to_ms is None and page.to_ms is not None:
            least, most = page.to_ms - self._ours_ms(), page.to_ms - sent_ms
            self.skew_ms = min(max(0, least), most)
        # Without a time of its own the answer is whole up to when we asked, as far as we know.
        return page.points, page.count, query.to_ms or page.to_ms or sent_ms + self.skew_ms

    async def _complete(self, query: Query) -> Answer:
        """Page back until the answer is whole; a window that takes too many pages is halved.

        A cold query wants only its newest rows, so it ends when they are enough.
        """
        pages: list[Points] = []
        ask, to_ms = query, 0
        enough = len(query.series) * (query.wanted or self._poll.history_points) / query.limit
        for number in range(self._poll.pages_max):
            points, count, end_ms = await self._page(ask)
            pages.append(points)
            to_ms = to_ms or end_ms
            try:
                older = queries.older_page(ask, points, count)
            except ValueError:
                return await self._narrower(query, pages, to_ms)
            if older is None:
                return Answer(query, Points.concat(pages), to_ms)
            if query.cold and number + 1 > enough:
                break
            ask = older
        if query.cold:
            return Answer(query, Points.concat(pages), to_ms, cut_off=True)
        return await self._complete(queries.shorter(query, self.now_ms()))

    async def _narrower(self, query: Query, pages: list[Points], to_ms: int) -> Answer:
        """One millisecond holds more rows than a page: ask for fewer series at once."""
        parts = queries.narrower(query, self._table.keys)
        if not parts:
            return Answer(query, Points.concat(pages), to_ms, cut_off=True)
        answers = [await self._complete(part) for part in parts]
        # The whole is as far as its shortest part; what the others brought beyond it will come again.
        end_ms = min(to_ms, *(answer.to_ms for answer in answers))
        cut_off = any(answer.cut_off for answer in answers)
        return Answer(query, Points.concat([a.points for a in answers]), end_ms, cut_off=cut_off)

    async def _feed_starved(self, answer: Answer) -> None:
        """Slow series that busy ones pushed out of a cold answer are asked for on their own."""
        poor = queries.starved(answer.query, answer.points, self._poll, self._table.keys)
        more = [(await self._page(query))[0] for query in poor[:STARVED_MAX]]
        answer.points = Points.concat([answer.points, *more])

    # -- discovery

    async def discover(self, wanted: Callable[[str], bool]) -> set[tuple[str, str]]:
        """The (source, metric) pairs that the platform knows.

        One request names every series of the last hour; where the platform has no such summary, a sample of
        the newest rows serves. ``wanted`` sources that are missing in it (silent for longer) are looked up
        once each in the read API, at most LOOKUPS_MAX a round. Raises ApiError and ContractError when neither
        summary nor sample can be had.
        """
        found = await self._summary()
        if found is None:
            found = await self._sample()
        skip = {source for source, _ in found} | self._looked_up
        quiet = [slug for slug in await self._devices() if slug not in skip and wanted(slug)]
        for slug in quiet[:LOOKUPS_MAX]:
            names = await self._metric_names(slug)
            if names is None:
                break
            self._looked_up.add(slug)
            found |= {(slug, metric) for metric in names}
        return found

    async def _summary(self) -> set[tuple[str, str]] | None:
        """What was sent in the last hour, or None where the platform does not say."""
        try:
            async with self._gate:
                body = await retried(self._client.fleet_health, attempts_max=2, budget=self.budget)
            summary = wire.decode_fleet_health(body)
        except (RejectedError, TransientError, ContractError):
            return None
        return {(source, metric) for source, metrics in summary.items() for metric in metrics}

    async def _sample(self) -> set[tuple[str, str]]:
        sample = Query(None, (), self.now_ms() - SAMPLE_MS, None, SAMPLE_ROWS, NO_SERIES)
        points, _count, _end_ms = await self._page(sample)
        return {tuple(self._table.keys[i]) for i in set(points.series.tolist())}

    async def _devices(self) -> list[str]:
        try:
            async with self._gate:
                body = await retried(self._client.sources, attempts_max=2, budget=self.budget)
            return [row.slug for row in wire.decode_sources(body) if row.source_type == "device"]
        except (RejectedError, TransientError, ContractError):
            return []

    async def _metric_names(self, slug: str) -> tuple[str, ...] | None:
        """Every metric of a source, or None when the read API does not answer.

        That is another service, which may be down or not installed, or behind a paywall; the poll goes on
        without, and another round may try again.
        """
        try:
            async with self._gate:
                body = await self._client.source_metrics(slug)
            return wire.decode_metric_names(body)
        except RejectedError:
            return ()
        except (ApiError, ContractError):
            return None
