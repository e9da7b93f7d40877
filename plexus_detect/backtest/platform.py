"""Points of the platform's history, window after window, each whole: wide queries, and pages of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import numpy as np

from plexus_detect.backtest.moments import Span
from plexus_detect.config import Config
from plexus_detect.cursor import PollParams
from plexus_detect.queries import span_queries
from plexus_detect.reader import Answer, Reader
from plexus_detect.series import I64, Points, SeriesTable, is_own_metric

# Windows asked for at once; in each the fullest query should fill this share of a page, so that few need a
# second one, and all queries together bring no more rows than these.
WINDOWS, PAGE_SHARE, WINDOW_ROWS_MAX = 4, 0.7, 500_000

# The first windows, whose number of rows nobody knows, how much longer the next ones may be, and bounds: what
# follows a long silence may be dense.
WINDOW_MS_FIRST, GROWTH_MAX = 600_000, 8.0
WINDOW_MS_MIN, WINDOW_MS_MAX = 1_000, 86_400_000

# Rounds of discovery: each looks up some more of the sources that have been silent for long.
ROUNDS_MAX = 200


@dataclass(frozen=True)
class Part:
    """All points with times in a window, and its last millisecond."""

    points: Points
    to_ms: int


async def discover(reader: Reader, table: SeriesTable, config: Config) -> None:
    """Add every series to ``table`` that the platform knows and the configuration may want, in order of name.

    Raises ApiError and ContractError when the platform cannot list them.
    """
    found = set(config.literal_keys())
    for _ in range(ROUNDS_MAX):
        more = await reader.discover(config.may_select)
        if more <= found:
            break
        found |= more
    for source, metric in sorted(found):
        if not is_own_metric(metric):
            table.add(source, metric)


class History:
    """Reads ``span`` of the selected series, whose rows a ``Reader`` with the same ``table`` brings.

    Rows of series that nobody knew may come too: wide queries name metrics, not sources. ``cut_off`` counts
    answers that stayed incomplete because one millisecond holds more rows of a series than a page.
    """

    def __init__(
        self, reader: Reader, table: SeriesTable, poll: PollParams, selects: Callable[[str, str], bool]
    ) -> None:
        self._reader = reader
        self._table = table
        self._poll = poll
        self._selects = selects
        self.cut_off = 0

    async def parts(self, span: Span) -> AsyncIterator[Part]:
        """Every window of ``span`` in order of time. Raises ApiError and ContractError: a past with holes
        proves nothing."""
        at, width, rows = span.from_ms, WINDOW_MS_FIRST, 0.0
        while at < span.to_ms and len(series := self._chosen()):
            starts = [at + k * width for k in range(WINDOWS) if at + k * width < span.to_ms]
            ends = [min(start + width, span.to_ms) - 1 for start in starts]
            windows = zip(starts, ends, strict=True)
            answers = await asyncio.gather(*(self._window(series, window, rows) for window in windows))
            for end, (points, _most) in zip(ends, answers, strict=True):
                yield Part(points, end)
            at = ends[-1] + 1
            total, most = (
                max(len(points) for points, _most in answers),
                max(most for _points, most in answers),
            )
            fill = max(most / (PAGE_SHARE * self._poll.limit), total / WINDOW_ROWS_MAX, 1 / GROWTH_MAX)
            rows, width = total / fill, int(min(WINDOW_MS_MAX, max(WINDOW_MS_MIN, width / fill)))

    def _chosen(self) -> I64:
        """The selected ones of all series that are known by now."""
        return np.array([i for i, key in enumerate(self._table.keys) if self._selects(*key)], np.int64)

    async def _window(self, series: I64, window: tuple[int, int], rows: float) -> tuple[Points, int]:
        """All rows of a window, and how many its fullest query brought."""
        asked = span_queries(series, self._table.keys, window, rows, self._poll)
        parts: list[Points] = []
        while asked:
            answers = await self._reader.read(asked)
            parts += map(_checked, answers)
            self.cut_off += sum(answer.cut_off for answer in answers)
            # A window with too many pages is answered as far as they reach; the rest is asked for again.
            pairs = zip(asked, answers, strict=True)
            asked = [replace(query, from_ms=a.to_ms + 1) for query, a in pairs if a.to_ms < window[1]]
        return Points.concat(parts), max(map(len, parts))


def _checked(answer: Answer) -> Points:
    if answer.error is not None:
        raise answer.error
    return answer.points
