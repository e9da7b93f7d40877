"""Rows in their own time: as fast as they are taken, or as time passes, so many times faster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from plexus_detect import clock
from plexus_detect.simulate.fleet import Rows
from plexus_detect.simulate.outlets import Put


def by_time(rows: Rows) -> Iterator[Rows]:
    """A block cut into the rows of one time each."""
    starts = np.flatnonzero(np.diff(rows.row, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts[1:], len(rows.row)], strict=True):
        yield rows.cut(start, end)


async def pass_on(blocks: Iterable[Rows], pace: float, start_ms: int, puts: list[Put]) -> int:
    """Give all rows to all outlets, ``pace`` times as fast as their times pass (0: at once); how many.

    Pace 1 keeps to the clock on the wall: what is past goes at once. Other paces keep to the moment at which
    the first row went out.
    """
    count, began_s = 0, clock.monotonic_s()
    origin_ms = clock.now_ms() if pace == 1 else start_ms

    def wait_s(rows: Rows) -> float:
        away_ms = int(rows.t_ms.max()) - origin_ms
        return away_ms / 1000 / pace - (clock.monotonic_s() - began_s) if pace else 0.0

    for block in blocks:
        for rows in by_time(block) if wait_s(block) > 0.0 else (block,):
            if (pause_s := wait_s(rows)) > 0.0:
                await clock.sleep_s(pause_s)
            for put in puts:
                await put(rows)
            count += len(rows.row)
    return count
