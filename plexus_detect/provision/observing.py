"""What lint has to know of the platform's history: names that were ever sent, and a week in hours."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Protocol, TypeVar

import msgspec

from plexus_detect.errors import ContractError
from plexus_detect.monitors import Key
from plexus_detect.monitors.lintbounds import Observed
from plexus_detect.retry import retried
from plexus_detect.wire import decode_metric_names

DAYS = 7
HOUR_MS = 3_600_000
# The read API gives 10,000 rows at most, in all metrics together.
METRICS_AT_ONCE = 10_000 // (24 * DAYS + 1)
# Of more sources the history is not looked at: it would take minutes.
SOURCES_MAX = 200

T = TypeVar("T")
A = TypeVar("A")


class History(Protocol):
    """The calls to the read API; ``client.Client`` has them."""

    async def source_metrics(self, slug: str) -> bytes:
        """GET {api}/v1/sources/{slug}/metrics."""

    async def raw_rows(self, slug: str, params: dict[str, str]) -> bytes:
        """GET {api}/v1/sources/{slug}/metrics/query."""


class Hours(msgspec.Struct):
    """The columns of one metric in hours: when each begins, its least and greatest value, how many."""

    timestamp_ms: list[int] = []
    min: list[float | None] = []
    max: list[float | None] = []
    count: list[int] = []


class _Answer(msgspec.Struct):
    series: dict[str, Hours]
    truncated: bool = False


_ANSWER = msgspec.json.Decoder(_Answer)


async def ever_sent(api: History, sources: Sequence[str], concurrency: int) -> Mapping[str, tuple[str, ...]]:
    """All names that each of ``sources`` ever sent. Raises the errors of ``client.Client``."""

    async def names(slug: str) -> tuple[str, ...]:
        return decode_metric_names(await retried(partial(api.source_metrics, slug)))

    return dict(zip(sources, await _each(names, sources, concurrency), strict=True))


async def observe(
    api: History, keys: Sequence[Key], lately: Mapping[str, Collection[str]], concurrency: int
) -> dict[Key, Observed]:
    """The last days of monitors, of the first ``SOURCES_MAX`` sources. An offline monitor has those of all
    that its source sent lately. Raises the errors of ``client.Client``."""
    by_source: defaultdict[str, list[Key]] = defaultdict(list)
    for key in keys:
        by_source[key[0]].append(key)
    sources = list(by_source)[:SOURCES_MAX]

    async def one(slug: str) -> dict[Key, Observed]:
        found = {}
        sent = [name for name in lately.get(slug, ()) if _can_be_listed(name)][:METRICS_AT_ONCE]
        named = {key[1] for key in by_source[slug] if key[1] and _can_be_listed(key[1])}
        offline = any(key[2] == "offline" for key in by_source[slug])
        hours = await _hours(api, slug, [*dict.fromkeys([*sorted(named), *(sent if offline else ())])])
        for key in by_source[slug]:
            parts = [hours.get(key[1])] if key[1] else [hours.get(name) for name in sent]
            seen = [observed(part) for part in parts if part is not None]
            if key[1] in named or seen:
                found[key] = _together(seen)
        return found

    return {key: seen for found in await _each(one, sources, concurrency) for key, seen in found.items()}


async def _hours(api: History, slug: str, metrics: Sequence[str]) -> dict[str, Hours]:
    found: dict[str, Hours] = {}
    for at in range(0, len(metrics), METRICS_AT_ONCE):
        names = ",".join(metrics[at : at + METRICS_AT_ONCE])
        params = {"metrics": names, "last": f"{DAYS}d", "interval": "1h"}
        found |= decode_hours(await retried(partial(api.raw_rows, slug, params)))
    return found


def decode_hours(body: bytes) -> dict[str, Hours]:
    """Metrics in hours; nothing of an answer that was cut. Raises ContractError for another shape."""
    try:
        answer = _ANSWER.decode(body)
    except msgspec.DecodeError as error:
        raise ContractError(f"metrics query answer: {error}") from error
    return {} if answer.truncated else answer.series


def observed(hours: Hours) -> Observed:
    """What the hours of one metric say. The interval is an estimate from hours with points; the first and the
    last are not whole, and so are left out."""
    lows = [value for value in hours.min if value is not None]
    highs = [value for value in hours.max if value is not None]
    count = sum(hours.count)
    interval: float | None = None
    if count > len(hours.count):
        whole = hours.count[1:-1]
        interval = HOUR_MS / median(whole) if whole else None
    elif len(hours.timestamp_ms) > 1:
        interval = median(b - a for a, b in pairwise(sorted(hours.timestamp_ms)))
    return Observed(
        low=min(lows, default=0.0),
        high=max(highs, default=0.0),
        count=count if lows and highs else 0,
        interval_ms=None if interval is None else round(interval),
        days=DAYS,
    )


def _together(seen: Sequence[Observed]) -> Observed:
    """Several metrics as one: any of them is a sign of life."""
    if not seen:
        return Observed(0.0, 0.0, 0, days=DAYS)
    intervals = [one.interval_ms for one in seen if one.interval_ms is not None]
    return Observed(
        min(one.low for one in seen),
        max(one.high for one in seen),
        sum(one.count for one in seen),
        min(intervals, default=None),
        days=DAYS,
    )


def _can_be_listed(metric: str) -> bool:
    return "," not in metric and metric == metric.strip()


async def _each(call: Callable[[A], Awaitable[T]], values: Sequence[A], at_once: int) -> list[T]:
    """``call`` of each value, in their order, at most so many at once. The first error ends them all."""
    turns = asyncio.Semaphore(at_once)

    async def one(value: A) -> T:
        async with turns:
            return await call(value)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(value)) for value in values]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
