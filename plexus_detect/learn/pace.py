"""How fast a detector learns: so that its window spans the days that a machine's habits take."""

from __future__ import annotations

import numpy as np

from plexus_detect.series import I64, Bool

# Later than any row: there was none yet.
NEVER = 1 << 62


class Pace:
    """Which rows are learned, and when there are enough days of them.

    Of rows of one feed nearer to each other than ``every_ms`` only the first is learned; a first model is
    fitted ``ready_after_ms`` after the earliest row. Both are of event time; 0 changes nothing.
    """

    def __init__(self, every_ms: int, ready_after_ms: int) -> None:
        self.every_ms, self.ready_after_ms = every_ms, ready_after_ms
        self.last_ms: list[int] = []
        self.first_ms, self.ripe = NEVER, False

    def chosen(self, feed: int, t_ms: I64, usable: Bool) -> Bool:
        """Which of the usable rows of a feed, in order of time, are learned, (m,)."""
        if not self.every_ms:
            return usable
        self.last_ms += [-1] * (feed + 1 - len(self.last_ms))
        chosen, last = np.zeros(len(t_ms), np.bool_), self.last_ms[feed]
        for i in np.flatnonzero(usable).tolist():
            if last < 0 or not 0 <= t_ms[i] - last < self.every_ms:
                chosen[i], last = True, int(t_ms[i])
        self.last_ms[feed] = last
        return chosen

    def ripe_from(self, t_ms: I64) -> int:
        """The position of the first of these rows, of any feed, at which there are enough days, their number
        if none; once there are enough it stays so. A row from before all others moves the beginning back: the
        first may have come from a clock that was ahead."""
        if self.ripe or not len(t_ms):
            return 0
        first = np.minimum(np.minimum.accumulate(t_ms), self.first_ms)
        self.first_ms = int(first[-1])
        late = np.flatnonzero(t_ms - first >= self.ready_after_ms)
        self.ripe = len(late) > 0
        return int(late[0]) if self.ripe else len(t_ms)

    def dump(self) -> list[int]:
        """The state as numbers."""
        return [self.first_ms, int(self.ripe), *self.last_ms]

    def load(self, state: list[int]) -> None:
        """Take over what ``dump`` gave."""
        self.first_ms, ripe, *self.last_ms = state
        self.ripe = bool(ripe)
