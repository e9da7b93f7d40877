"""Which telemetry requests come next: few, wide, and no row more often than needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

import numpy as np

from plexus_detect.cursor import Cursors, PollParams, Query
from plexus_detect.series import I64, Points, SeriesKey

# A request costs about as much as decoding this many rows; it decides one wide query or several narrow.
REQUEST_ROWS = 2_000

# Series within this much of the newest frontier share its query; others would make it read far back for all.
NEAR_MS = 15_000

# Requests for series that are behind in one tick.
BEHIND_MAX = 50

# Longest text of the metric list in one query string; proxies commonly refuse longer lines than 8 KiB.
METRICS_CHARS_MAX = 4_000


def next_queries(
    cursors: Cursors,
    keys: Sequence[SeriesKey],
    now_ms: int,
    params: PollParams,
    busy: Sequence[I64] = (),
) -> list[Query]:
    """The requests that bring every selected series up to now, but for those that are ``busy``: few and wide.

    Cold series get a query for their newest history; series near the newest frontier share one; series
    that fell behind are asked for on their own, so that they do not make the wide query read far back.
    """
    free = cursors.selected
    if busy:
        free = free.copy()
        free[np.concatenate(busy)] = False
    chosen = np.flatnonzero(free)
    cold = chosen[(cursors.covered_ms[chosen] < 0) & (cursors.ask_ms[chosen] <= now_ms)]
    warm = chosen[cursors.covered_ms[chosen] >= 0]
    planner = _Planner(cursors, keys, params, now_ms)
    queries: list[Query] = []
    if len(cold):
        wanted = params.wanted(len(cold))
        rows = float(len(cold) * wanted)
        cold_from = max(0, now_ms - params.history_ms)
        for query in planner.split(cold, cold_from, None, rows):
            limit = min(query.limit, len(query.series) * wanted)
            queries.append(replace(query, cold=True, limit=limit, wanted=wanted))
    if len(warm):
        covered = np.maximum(cursors.covered_ms[warm], now_ms - params.catchup_ms_max)
        near = covered >= covered.max() - max(NEAR_MS, 2 * params.overlap_ms)
        behind = ~near & (cursors.ask_ms[warm] <= now_ms)
        queries += planner.forward(warm[near], covered[near])
        late = planner.forward(warm[behind], covered[behind])
        # Those not asked for in this tick come first in the next.
        late.sort(key=lambda query: int(cursors.ask_ms[query.series].min()))
        queries += late[:BEHIND_MAX]
    return queries


def span_queries(
    series: I64, keys: Sequence[SeriesKey], window: tuple[int, int], rows: float, params: PollParams
) -> list[Query]:
    """The requests that bring ``series`` from ``window[0]`` to ``window[1]``, about ``rows`` rows in all."""
    return _Planner(Cursors(), keys, params, window[1]).split(series, *window, rows)


@dataclass
class _Planner:
    """Chooses between one query for all sources and one a source, by the rows each would bring."""

    cursors: Cursors
    keys: Sequence[SeriesKey]
    params: PollParams
    now_ms: int

    def forward(self, series: I64, covered_ms: I64) -> list[Query]:
        """Queries from where ``series`` are covered to now, or as far as pages_max pages reach."""
        if len(series) == 0:
            return []
        start = max(0, int(covered_ms.min()) - self.params.overlap_ms)
        rows = self._rows_expected(series, start)
        rows_max = self.params.pages_max * self.params.limit / 2
        stop = None
        # A part of the past may hold no row at all, and an empty answer moves nothing: then ask to the end.
        if rows > rows_max and not self.cursors.ask_ms[series].any():
            stop = start + max(1, int((self.now_ms - start) * rows_max / rows))
        return self.split(series, start, stop, rows)

    def _rows_expected(self, series: I64, from_ms: int) -> float:
        cadence = self.cursors.cadence_ms[series]
        span = max(self.now_ms - from_ms, 0)
        return float(np.sum(np.where(cadence > 0, span / np.maximum(cadence, 1.0), 1.0)))

    def split(self, series: I64, from_ms: int, to_ms: int | None, rows: float) -> list[Query]:
        """Queries for ``series`` that would bring about ``rows`` rows: one, or one a source."""
        window = (from_ms, to_ms)
        metrics = [self.keys[i].metric for i in series.tolist()]
        names = set(metrics)
        queries: list[Query] = []
        if not all(map(_can_be_listed, names)):
            askable = np.array(list(map(_can_be_listed, metrics)), np.bool_)
            queries = [self._query(s, (), i.tolist(), window) for s, i in self._by_source(series[~askable])]
            series = series[askable]
            if len(series) == 0:
                return queries
            names = set(filter(_can_be_listed, names))
        others = sum(1 for key in self.keys if key.metric in names)
        n_sources = len({self.keys[i].source for i in series.tolist()})
        wide_rows = rows * others / len(series)
        if wide_rows + REQUEST_ROWS <= rows + REQUEST_ROWS * n_sources:
            return queries + self._by_metrics(None, series, window)
        for source, members in self._by_source(series):
            queries += self._by_metrics(source, members, window)
        return queries

    def _by_source(self, series: I64) -> list[tuple[str, I64]]:
        groups: dict[str, list[int]] = {}
        for i in series.tolist():
            groups.setdefault(self.keys[i].source, []).append(i)
        return [(source, np.array(members, np.int64)) for source, members in groups.items()]

    def _by_metrics(self, source: str | None, series: I64, window: tuple[int, int | None]) -> list[Query]:
        groups: dict[str, list[int]] = {}
        for i in series.tolist():
            groups.setdefault(self.keys[i].metric, []).append(i)
        queries: list[Query] = []
        names: list[str] = []
        members: list[int] = []
        chars = 0
        for name in sorted(groups):
            length = len(quote(name)) + 3
            if names and chars + length > METRICS_CHARS_MAX:
                queries.append(self._query(source, tuple(names), members, window))
                names, members, chars = [], [], 0
            names.append(name)
            members += groups[name]
            chars += length
        queries.append(self._query(source, tuple(names), members, window))
        return queries

    def _query(
        self, source: str | None, names: tuple[str, ...], members: list[int], window: tuple[int, int | None]
    ) -> Query:
        return Query(source, names, *window, self.params.limit, np.array(sorted(members), np.int64))


def _can_be_listed(metric: str) -> bool:
    """False for a name that cannot be asked for: the platform splits at commas and trims (contract 2)."""
    return metric != "" and "," not in metric and metric == metric.strip().strip("\ufeff")


def older_page(query: Query, points: Points, count: int) -> Query | None:
    """The query for what a cut-off answer left out, or None when the answer was whole.

    The newest ``limit`` rows survive, and rows that share the oldest millisecond may have been cut, so
    the next page ends (inclusively) at the oldest time seen. Raises ValueError when one millisecond holds
    more rows than a page: then only a narrower query can help.
    """
    if count < query.limit or len(points) == 0:
        return None
    oldest = int(points.t_ms.min())
    if oldest <= query.from_ms or oldest == query.to_ms:
        raise ValueError(oldest)
    return replace(query, to_ms=oldest)


def narrower(query: Query, keys: Sequence[SeriesKey]) -> list[Query]:
    """The query in two halves by metric, or one a source; a query for one series cannot be narrowed."""
    if len(query.metrics) > 1:
        half = len(query.metrics) // 2
        parts = [set(query.metrics[:half]), set(query.metrics[half:])]
        return [
            replace(
                query,
                metrics=tuple(m for m in query.metrics if m in part),
                series=np.array([i for i in query.series.tolist() if keys[i].metric in part], np.int64),
            )
            for part in parts
        ]
    if query.source is None:
        by_source: dict[str, list[int]] = {}
        for i in query.series.tolist():
            by_source.setdefault(keys[i].source, []).append(i)
        return [
            replace(query, source=source, series=np.array(members, np.int64))
            for source, members in by_source.items()
        ]
    return []


def starved(query: Query, points: Points, params: PollParams, keys: Sequence[SeriesKey]) -> list[Query]:
    """Of a cut-off cold answer, one query a source whose series did not get their share of the rows.

    The limit is shared by all series of a query, so busy ones push slow ones out (contract trap 4).
    """
    got = np.bincount(points.series, minlength=int(query.series.max()) + 1)[query.series]
    wanted = query.wanted or params.history_points
    poor = query.series[got < wanted]
    by_source: dict[str, list[int]] = {}
    for i in poor.tolist():
        by_source.setdefault(keys[i].source, []).append(i)
    queries = []
    for source, members in by_source.items():
        limit = min(params.limit, 2 * len(members) * wanted)
        metrics = {keys[i].metric for i in members}
        # Without a filter where one of them cannot be listed.
        names = tuple(sorted(metrics)) if all(map(_can_be_listed, metrics)) else ()
        queries.append(
            replace(
                query,
                source=source,
                metrics=names,
                to_ms=None,
                limit=limit,
                series=np.array(members, np.int64),
                cold=True,
            )
        )
    return queries


def shorter(query: Query, now_ms: int) -> Query:
    """The first half of the query's window: what to ask when completing it took too many pages."""
    end = now_ms if query.to_ms is None else query.to_ms
    return replace(query, to_ms=query.from_ms + max(1, (end - query.from_ms) // 2))
