"""The store of metric points: what the loader writes and the two read services query.

At-least-once, never de-duplicated: a point written twice is two rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from plexus_detect.sandbox.database import Database
from plexus_detect.sandbox.javascript import number_text, row_text

# Beyond this many matching series one scan over time is cheaper than one index probe each.
_PROBED_SERIES_MAX = 64
FOREVER_MS = 2**62
# What ends the text of a time, by its milliseconds.
_TAILS = [f'{millis:03d}","tags":' for millis in range(1000)]
_INSERT = (
    "INSERT INTO points (org, t_ms, seq, series, metric, value, tags, visible_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Point(NamedTuple):
    """One accepted metric point. ``t_ms`` is int ms UTC; ``tags`` is JSON text of a flat object."""

    source: str
    metric: str
    t_ms: int
    value: float
    tags: str = "{}"


class StoredRow(NamedTuple):
    """One row of the store, as tests inspect it."""

    source: str
    metric: str
    t_ms: int
    value: float | None
    tags: str


class Window(NamedTuple):
    """A read of one org: inclusive ends in ms, and the clock that late rows are held against."""

    org: str
    from_ms: int
    to_ms: int
    now_ms: int


class PointStore:
    """Series are interned; the row text of a series is made once."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._series: dict[tuple[str, str, str], int] = {}
        self._heads: dict[int, str] = {}
        for number, org, source, metric in database.rows("SELECT id, org, source, metric FROM series"):
            self._remember(number, org, source, metric)
        self._seq = database.rows("SELECT coalesce(max(seq), 0) FROM points")[0][0]

    def _remember(self, number: int, org: str, source: str, metric: str) -> None:
        self._series[org, source, metric] = number
        encoded = msgspec.json.encode({"org_id": org, "source_id": source, "metric": metric}).decode()
        self._heads[number] = encoded[:-1] + ',"value":'

    def _number(self, org: str, source: str, metric: str) -> int:
        number = self._series.get((org, source, metric))
        if number is None:
            number = len(self._series) + 1
            self._db.run("INSERT INTO series VALUES (?, ?, ?, ?)", (number, org, source, metric))
            self._remember(number, org, source, metric)
        return number

    def add(self, org: str, points: Iterable[Point], visible_ms: int) -> None:
        """Store points as they are, in one transaction. They can be read from ``visible_ms`` on."""
        with self._db.transaction():
            rows = []
            for source, metric, t_ms, value, tags in points:
                self._seq += 1
                number = self._series.get((org, source, metric)) or self._number(org, source, metric)
                rows.append((org, t_ms, self._seq, number, metric, value, tags, visible_ms))
            self._db.run_many(_INSERT, rows)

    def stored(self, org: str, source: str | None, metric: str | None) -> list[StoredRow]:
        """Return the rows of an org in the order they were written, duplicates and hidden ones included."""
        found = self._db.rows(
            "SELECT s.source, s.metric, p.t_ms, p.value, p.tags"
            " FROM points p JOIN series s ON s.id = p.series"
            " WHERE p.org = ? AND (? IS NULL OR s.source = ?) AND (? IS NULL OR s.metric = ?) ORDER BY p.seq",
            (org, source, source, metric, metric),
        )
        return [StoredRow(*row) for row in found]

    def telemetry(
        self,
        window: Window,
        source: str | None,
        metrics: Sequence[str],
        limit: int,
        shuffle: random.Random | None = None,
    ) -> tuple[str, int]:
        """Return the newest ``limit`` rows of a window as JSON text of an array, and their number.

        Ascending by time. Ties on one millisecond come in reverse order of writing, or shuffled.
        """
        rows = self._newest(window, source, metrics, limit)
        # The scan went from new to old; a stable sort turns time round and leaves ties reversed.
        rows.sort(key=itemgetter(1))
        if shuffle is not None:
            rows = _shuffled_ties(rows, shuffle)
        return self._text(rows), len(rows)

    def _newest(
        self, window: Window, source: str | None, metrics: Sequence[str], limit: int
    ) -> list[tuple[Any, ...]]:
        wanted = self._matching(window.org, source, metrics)
        if not wanted:
            return []
        values: list[Any] = [window.from_ms, window.to_ms, window.now_ms]
        span = "t_ms BETWEEN ? AND ? AND visible_ms <= ?"
        if len(wanted) <= _PROBED_SERIES_MAX or source is not None:
            where = f"series IN ({','.join(map(str, wanted))}) AND {span}"
        else:
            where = f"org = ? AND {span}"
            values.insert(0, window.org)
            if metrics:
                where += f" AND metric IN ({','.join('?' * len(metrics))})"
                values.extend(metrics)
        return self._db.rows(
            f"SELECT series, t_ms, value, tags FROM points WHERE {where}"  # noqa: S608  only our own integers
            " ORDER BY t_ms DESC, seq DESC LIMIT ?",
            (*values, limit),
        )

    def _matching(self, org: str, source: str | None, metrics: Sequence[str]) -> list[int]:
        if source is not None and metrics:
            found = (self._series.get((org, source, metric)) for metric in dict.fromkeys(metrics))
            return [number for number in found if number is not None]
        return [
            number
            for (its_org, its_source, its_metric), number in list(self._series.items())
            if its_org == org
            and (source is None or its_source == source)
            and (not metrics or its_metric in metrics)
        ]

    def _text(self, rows: list[tuple[Any, ...]]) -> str:
        heads, tails = self._heads, _TAILS
        clocks = {
            second: f',"timestamp":"{row_text(second * 1000)[:-3]}' for second in {r[1] // 1000 for r in rows}
        }
        parts = []
        for series, t_ms, value, tags in rows:
            # 100,000 rows an answer: the common number is written in place, the odd one by the rule book.
            number = repr(value)
            if number[-2:] == ".0" and value:
                number = number[:-2]
            elif "e" in number or "n" in number or not value:
                number = number_text(value)
            parts.append(f"{heads[series]}{number}{clocks[t_ms // 1000]}{tails[t_ms % 1000]}{tags}}}")
        return f"[{','.join(parts)}]"

    def sources(self, org: str) -> dict[str, int]:
        """Return the newest stored time in ms of every source that ever stored a point."""
        found = self._db.rows(
            "SELECT s.source, max((SELECT max(t_ms) FROM points WHERE series = s.id)) FROM series s"
            " WHERE s.org = ? GROUP BY s.source",
            (org,),
        )
        return {source: newest for source, newest in found if newest is not None}

    def last_seen(self, org: str, source: str) -> int | None:
        """Return the newest stored time of any metric of one source in ms, or None."""
        found = self._db.rows(
            "SELECT max((SELECT max(t_ms) FROM points WHERE series = s.id)) FROM series s"
            " WHERE s.org = ? AND s.source = ?",
            (org, source),
        )
        newest: int | None = found[0][0]
        return newest

    def metric_names(self, org: str, source: str) -> list[str]:
        """Return every metric name one source ever stored, sorted."""
        return sorted(metric for (o, s, metric) in list(self._series) if o == org and s == source)

    def latest(self, window: Window, source: str) -> dict[str, tuple[float | None, int]]:
        """Return metric -> (value, t_ms) of the newest visible row in the window."""
        found = self._db.rows(
            "SELECT s.metric, p.value, p.t_ms FROM series s JOIN points p ON p.series = s.id"
            " WHERE s.org = ? AND s.source = ? AND p.t_ms BETWEEN ? AND ? AND p.visible_ms <= ?"
            " ORDER BY p.t_ms, p.seq",
            (window.org, source, window.from_ms, window.to_ms, window.now_ms),
        )
        return {metric: (value, t_ms) for metric, value, t_ms in found}

    def after(self, window: Window, source: str, metric: str, limit: int) -> list[tuple[int, float | None]]:
        """Return (t_ms, value) strictly after the window's start, oldest first."""
        number = self._series.get((window.org, source, metric))
        return [
            (t_ms, value)
            for t_ms, value in self._db.rows(
                "SELECT t_ms, value FROM points WHERE series = ? AND t_ms > ? AND visible_ms <= ?"
                " ORDER BY t_ms, seq LIMIT ?",
                (number, window.from_ms, window.now_ms, limit),
            )
        ]

    def raw(
        self, window: Window, source: str, metrics: Sequence[str], limit: int
    ) -> list[tuple[str, int, float | None]]:
        """Return (metric, t_ms, value) by name and time; the end is exclusive, as the read API has it."""
        names = {number: metric for (_, _, metric), number in self._wanted(window.org, source, metrics)}
        found = self._db.rows(
            f"SELECT metric, t_ms, value FROM points WHERE series IN ({','.join(map(str, names))})"  # noqa: S608
            " AND t_ms >= ? AND t_ms < ? AND visible_ms <= ? ORDER BY metric, t_ms, seq LIMIT ?",
            (window.from_ms, window.to_ms, window.now_ms, limit),
        )
        return [(metric, t_ms, value) for metric, t_ms, value in found]

    def buckets(
        self, window: Window, source: str | None, metrics: Sequence[str], width_ms: int, limit: int
    ) -> list[tuple[Any, ...]]:
        """Return (source, metric, bucket start ms, min, max, avg, count) over epoch-aligned buckets."""
        names = ",".join(str(number) for _, number in self._wanted(window.org, source, metrics))
        return self._db.rows(
            "SELECT s.source, s.metric, (p.t_ms / ?) * ? AS bucket, min(p.value), max(p.value), avg(p.value),"  # noqa: S608
            " count(*) FROM points p JOIN series s ON s.id = p.series"
            f" WHERE p.series IN ({names}) AND p.t_ms >= ? AND p.t_ms < ? AND p.visible_ms <= ?"
            " GROUP BY s.source, s.metric, bucket ORDER BY s.metric, s.source, bucket LIMIT ?",
            (width_ms, width_ms, window.from_ms, window.to_ms, window.now_ms, limit),
        )

    def summary(self, window: Window) -> list[tuple[Any, ...]]:
        """Return (source, metric, min, max, avg, count, newest ms, latest value) of every series."""
        span = "org = ? AND t_ms BETWEEN ? AND ? AND visible_ms <= ?"
        bounds = (window.org, window.from_ms, window.to_ms, window.now_ms)
        # SQLite takes a bare column from the row of a lone max(): hence the second read.
        latest = {
            series: value
            for series, value, _ in self._db.rows(
                f"SELECT series, value, max(t_ms) FROM points WHERE {span} GROUP BY series",  # noqa: S608
                bounds,
            )
        }
        found = self._db.rows(
            "SELECT s.source, s.metric, min(p.value), max(p.value), avg(p.value), count(*), max(p.t_ms), s.id"  # noqa: S608
            f" FROM points p JOIN series s ON s.id = p.series WHERE p.{span} GROUP BY s.id"
            " ORDER BY s.source, s.metric",
            bounds,
        )
        return [(*row[:-1], latest[row[-1]]) for row in found]

    def extent(self, window: Window, source: str) -> list[tuple[Any, ...]]:
        """Return (metric, min, max, count, oldest ms, newest ms) of one source's series."""
        return self._db.rows(
            "SELECT s.metric, min(p.value), max(p.value), count(*), min(p.t_ms), max(p.t_ms)"
            " FROM points p JOIN series s ON s.id = p.series"
            " WHERE s.org = ? AND s.source = ? AND p.t_ms BETWEEN ? AND ? AND p.visible_ms <= ?"
            " GROUP BY s.metric ORDER BY s.metric",
            (window.org, source, window.from_ms, window.to_ms, window.now_ms),
        )

    def _wanted(
        self, org: str, source: str | None, metrics: Sequence[str]
    ) -> list[tuple[tuple[str, str, str], int]]:
        return [
            (key, number)
            for key, number in list(self._series.items())
            if key[0] == org and (source is None or key[1] == source) and (not metrics or key[2] in metrics)
        ]


def _shuffled_ties(rows: list[tuple[Any, ...]], rng: random.Random) -> list[tuple[Any, ...]]:
    shuffled = []
    for _, ties in groupby(rows, key=itemgetter(1)):
        group = list(ties)
        rng.shuffle(group)
        shuffled.extend(group)
    return shuffled
