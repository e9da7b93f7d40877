"""The past of devices, as the data lake holds it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np

from plexus_detect.backtest.moments import EPOCH, Span
from plexus_detect.config.streampipes import StreamPipesConfig
from plexus_detect.errors import ConfigError
from plexus_detect.groups import GroupRule
from plexus_detect.logs import event
from plexus_detect.series import F64, I64, SeriesKey
from plexus_detect.streampipes.connection import Core
from plexus_detect.streampipes.reading import Form, read
from plexus_detect.train.history import Past

log = logging.getLogger(__name__)

# Rows asked for in one request.
PAGE = 20_000

# The column of the time, as the client calls it.
TIME = "timestamp"


def form_of(settings: StreamPipesConfig, name: str, timestamp: str, metrics: Sequence[str]) -> Form:
    """How the events of a stream, or the rows of a measure, are read."""
    pairs = tuple((metric, settings.metrics.get(metric, metric)) for metric in metrics)
    return Form(name, settings.device, timestamp, pairs)


def pages(core: Core, measure: str, span: Span, page: int = PAGE) -> Iterator[list[dict[str, object]]]:
    """The rows of a measure in order of time, a page after another. Raises what ``Core`` raises."""
    offset = 0
    while True:
        found = core.asked(f"the measure '{measure}'", partial(_page, core, measure, span, page, offset))
        # A core may give fewer rows at a time than it was asked for.
        if not found:
            return
        yield found
        offset += len(found)


def _page(core: Core, measure: str, span: Span, page: int, offset: int) -> list[dict[str, object]]:
    begin, end = (EPOCH + timedelta(milliseconds=ms) for ms in (span.from_ms, span.to_ms))
    asked: dict[str, Any] = {"limit": page, "offset": offset, "order": "ASC"}
    asked |= {"start_date": begin, "end_date": end}
    found = core.client.dataLakeMeasureApi.get(measure, **asked)
    # A result without rows has no columns either, which the client cannot make a table of.
    if not any(series.rows for series in found.all_data_series):
        return []
    rows: list[dict[str, object]] = found.to_pandas().to_dict("records")
    return rows


def lake_rows(
    core: Core, measure: str, span: Span, metrics: Sequence[str], rows_max: int
) -> tuple[list[str], I64, F64]:
    """Devices, times and metrics, (n, k), of the newest rows of a measure, in order of time."""
    core.measure(measure)
    form = form_of(core.settings, measure, TIME, metrics)
    devices: list[str] = []
    times, parts = [np.zeros(0, np.int64)], [np.zeros((0, len(metrics)))]
    refused = 0
    for page in pages(core, measure, span):
        found = read([(form, row) for row in page], metrics, span.to_ms)
        devices += found.devices
        times.append(found.t_ms)
        parts.append(found.x)
        refused += found.refused.total()
    t_ms, x = np.concatenate(times), np.concatenate(parts)
    if refused:
        event(log, logging.WARNING, "rows_refused", measure=measure, rows=refused, read=len(t_ms))
    order = np.argsort(t_ms, kind="stable")[-rows_max:]
    return [devices[i] for i in order.tolist()], t_ms[order], x[order]


def from_lake(core: Core, measure: str, group: GroupRule, span: Span, rows_max: int) -> list[Past]:
    """The pasts of a group's devices in order of their names. Raises ConfigError when a metric has no number
    in any row."""
    devices, t_ms, x = lake_rows(core, measure, span, group.metrics, rows_max)
    named = np.array(devices)
    if len(x) and (gone := [m for m, c in zip(group.metrics, x.T, strict=True) if not np.isfinite(c).any()]):
        raise ConfigError(
            f"streampipes.metrics: no row of '{measure}' has a number for {', '.join(gone)}; say which "
            f"property each metric is, such as {gone[0]}: <property>"
        )
    pasts = []
    for device in sorted(set(devices)):
        if group.takes(SeriesKey(device, group.metrics[0])):
            at = np.flatnonzero(named == device)
            # Of rows of one time the first counts, as for the worker.
            at = at[np.diff(t_ms[at], prepend=-1) > 0]
            pasts.append(Past(device, t_ms[at], x[at]))
    return pasts
