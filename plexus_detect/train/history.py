"""The rows of a group's past: from the platform or a file, joined as the worker joins them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plexus_detect.backtest.moments import Span
from plexus_detect.backtest.platform import History, discover
from plexus_detect.backtest.run import read_csv
from plexus_detect.config import Config
from plexus_detect.groups import GroupRule, Join
from plexus_detect.options import client_of
from plexus_detect.policy import poll_params
from plexus_detect.reader import Reader
from plexus_detect.series import F64, I64, Points, SeriesKey, SeriesTable


class Past(NamedTuple):
    """Rows of one source in order of time: ``t_ms``, (n,), and the metrics, (n, k), NaN for what is
    missing."""

    source: str
    t_ms: I64
    x: F64


def from_file(path: Path, group: GroupRule, span: Span) -> list[Past]:
    """The rows in a CSV file. Raises ConfigError."""
    keys, points = read_csv(path)
    return joined(keys, points.take((points.t_ms >= span.from_ms) & (points.t_ms < span.to_ms)), group)


async def from_platform(config: Config, group: GroupRule, span: Span) -> list[Past]:
    """The rows that the platform holds. Raises ApiError and ContractError."""
    table, poll = SeriesTable(), poll_params(config)
    async with client_of(config) as client:
        reader = Reader(client, table, poll, config.plexus.concurrency)
        await reader.check()
        await discover(reader, table, config)
        history = History(reader, table, poll, lambda source, metric: group.takes(SeriesKey(source, metric)))
        parts = [part.points async for part in history.parts(span)]
    return joined(table.keys, Points.concat(parts), group)


def joined(keys: Sequence[SeriesKey], points: Points, group: GroupRule) -> list[Past]:
    """Points joined into rows, one past for each source that has any, in order of its name."""
    sources = sorted({key.source for key in keys if group.takes(key)})
    k = len(group.metrics)
    cells = np.full(len(keys), -1, np.int64)
    for series, key in enumerate(keys):
        if group.takes(key):
            cells[series] = sources.index(key.source) * k + group.metrics.index(key.metric)
    join = Join(k, group.align_ms)
    join.grow(len(sources))
    mine = points.take(cells[points.series] >= 0)
    mine = mine.take(np.argsort(mine.t_ms, kind="stable"))
    rows = join.step(cells[mine.series], mine)
    pasts = (rows.take(rows.feed == feed) for feed in range(len(sources)))
    return [
        Past(name, past.t_ms, past.x) for name, past in zip(sources, pasts, strict=True) if len(past.t_ms)
    ]
