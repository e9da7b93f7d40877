"""How often a monitor fires on a history: the rules of the platform's engines, over columns of points. Pure.

A point counts as processed at its own time. The platform's clock is that of arrival, so for points that come
one by one, as devices send them, the two are the same but for the delay of the way. Scores are posted in
batches, a poll's worth at once: within a batch the platform sees no time pass, and its times are later than
these by up to a poll. An interval of 30 s or 60 s that is missed by less than a poll can come out otherwise;
a backlog that is delivered after an outage does as well.

An engine takes its points part by part, so that nobody has to hold a whole history, and where parts end
changes nothing. It begins without an open alert: as if the monitor had been made when the history begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from plexus_detect.series import F64, I64, Bool

# Thresholds (contract section 5.1): so long apart are two points inside the bounds that close an alert, and
# so long afterwards breaches are forgotten.
RECOVERY_MS, COOLDOWN_MS = 30_000, 60_000

# Events (contract section 5.2): how often the platform looks, how long a digest silences the next, the rows
# of one look, and those of them that get an alert each where each row has one.
LOOK_MS, SUPPRESSION_MS, ROWS_MAX, ALERTS_MAX = 30_000, 300_000, 1000, 10


@dataclass(frozen=True)
class Firing:
    """One alert: when it opened and closed (None: it is still open), the value furthest from zero of its
    breaches, and how many points came from the one that opened it to the one that closed it.

    The alert of an event is closed as it opens; its peak is the value of the newest of its rows.
    """

    opened_ms: int
    closed_ms: int | None
    peak: float
    points: int


class Engine(Protocol):
    """What judges the points of one monitor on one series."""

    def step(self, t_ms: I64, value: F64) -> None:
        """Take points in order of time, none older than those before."""

    def finish(self, to_ms: int) -> tuple[Firing, ...]:
        """All firings up to ``to_ms``, in order of time."""


def engine(part: str, settings: Mapping[str, Any], from_ms: int) -> Engine:
    """The engine of a monitor made at ``from_ms``: ``part`` is ``threshold`` or ``event``."""
    if part == "threshold":
        return ThresholdEngine(settings.get("min"), settings.get("max"))
    per_row = settings.get("delivery") == "per_row"
    return EventEngine(from_ms, per_row=per_row, enabled=settings.get("enabled", True) is not False)


class ThresholdEngine:
    """The alerts of a threshold over points in order of time, part by part; None is no bound.

    A value is a breach when it is above ``high`` or below ``low``; one that equals its bound is inside, and
    one that is no finite number never reaches the engine, since JSON cannot carry it. One breach opens an
    alert. Of points inside without a breach between them the first one that is 30 s or more after the first
    closes it. Breaches in the 60 s after that are forgotten.
    """

    def __init__(self, low: float | None, high: float | None) -> None:
        self._low, self._high = low, high
        self._done: list[Firing] = []
        self._opened_ms: int | None = None
        self._peak, self._points = 0.0, 0
        self._calm_ms: int | None = None
        self._deaf_until_ms = -(1 << 62)

    def step(self, t_ms: I64, value: F64) -> None:
        """As ``Engine.step``."""
        finite = np.isfinite(value)
        if not finite.all():
            t_ms, value = t_ms[finite], value[finite]
        if len(t_ms) == 0:
            return
        breaches = np.flatnonzero(self._breaks(value))
        closings, by = _closings(t_ms, breaches)
        at = 0
        while at < len(t_ms):
            if self._opened_ms is None:
                start = max(at, int(np.searchsorted(t_ms, self._deaf_until_ms)))
                first = int(np.searchsorted(breaches, start))
                if first == len(breaches):
                    return
                at = int(breaches[first])
                self._opened_ms, self._peak, self._points = int(t_ms[at]), float(value[at]), 0
            else:
                # Open since an earlier part: it may close before the first breach of this one.
                first = 0
                head = int(breaches[0]) if len(breaches) else len(t_ms)
                calm_ms = int(t_ms[0]) if self._calm_ms is None else self._calm_ms
                end = int(np.searchsorted(t_ms, calm_ms + RECOVERY_MS))
                if end < head:
                    at = self._close(self._opened_ms, t_ms, 0, end)
                    continue
                self._calm_ms = calm_ms if head else None
            closing = int(np.searchsorted(by, first))
            last = int(by[closing]) if closing < len(by) else len(breaches) - 1
            self._raise_peak(value[breaches[first : last + 1]])
            if closing == len(by):
                self._points += len(t_ms) - at
                if len(breaches):
                    after = int(breaches[-1]) + 1
                    self._calm_ms = int(t_ms[after]) if after < len(t_ms) else None
                return
            at = self._close(self._opened_ms, t_ms, at, int(closings[closing]))

    def _breaks(self, value: F64) -> Bool:
        above: Bool = np.zeros(len(value), np.bool_) if self._high is None else value > self._high
        return above if self._low is None else above | (value < self._low)

    def _raise_peak(self, value: F64) -> None:
        if len(value):
            most = float(value[np.argmax(np.abs(value))])
            self._peak = max(self._peak, most, key=abs)

    def _close(self, opened_ms: int, t_ms: I64, start: int, end: int) -> int:
        """Close the alert with the point at ``end``; the place of the next point."""
        closed_ms = int(t_ms[end])
        points = self._points + end - start + 1
        self._done.append(Firing(opened_ms, closed_ms, self._peak, points))
        self._opened_ms = self._calm_ms = None
        self._deaf_until_ms = closed_ms + COOLDOWN_MS
        return end + 1

    def finish(self, to_ms: int) -> tuple[Firing, ...]:
        """As ``Engine.finish``."""
        del to_ms  # what happens without a point happens to no threshold
        if self._opened_ms is None:
            return tuple(self._done)
        return (*self._done, Firing(self._opened_ms, None, self._peak, self._points))


def _closings(t_ms: I64, breaches: I64) -> tuple[I64, I64]:
    """The places of the points that would close an open alert, and the numbers of the breaches that each is
    the first to follow: all points between two breaches are inside, so only the alert matters further."""
    starts, ends = breaches + 1, np.append(breaches[1:], len(t_ms))
    by = np.flatnonzero(starts < ends)
    close = np.searchsorted(t_ms, t_ms[starts[by]] + RECOVERY_MS)
    in_time = close < ends[by]
    return close[in_time], by[in_time]


class EventEngine:
    """The alerts of an event monitor made at ``from_ms`` over points in order of time, part by part.

    Every 30 s, counted from there, the platform looks for rows newer than those it saw, whatever their value,
    and takes at most 1000. They make one alert, and five minutes of silence; with ``per_row`` each of the
    first ten makes one, the rest one together, and there is no silence. When the real platform looks is not
    known, so that a count can differ by what falls on the other side of a look.
    """

    def __init__(self, from_ms: int, *, per_row: bool = False, enabled: bool = True) -> None:
        self._from_ms = from_ms
        self._per_row = per_row
        self._enabled = enabled
        self._cursor_ms = self._look_ms = from_ms
        self._quiet_until_ms = from_ms
        self._t_ms, self._value = np.zeros(0, np.int64), np.zeros(0)
        self._done: list[Firing] = []

    def step(self, t_ms: I64, value: F64) -> None:
        """As ``Engine.step``."""
        if not self._enabled or len(t_ms) == 0:
            return
        self._t_ms, self._value = np.append(self._t_ms, t_ms), np.append(self._value, value)
        # A look sees what came before it, and more of that may come with the next part.
        self._look_until(int(t_ms[-1]) - 1)

    def finish(self, to_ms: int) -> tuple[Firing, ...]:
        """As ``Engine.finish``."""
        self._look_until(to_ms)
        return tuple(self._done)

    def _look_until(self, to_ms: int) -> None:
        at = 0
        while True:
            at = int(np.searchsorted(self._t_ms, self._cursor_ms, side="right"))
            if at == len(self._t_ms):
                break
            since_ms = int(self._t_ms[at]) - self._from_ms
            look_ms = max(self._look_ms + LOOK_MS, self._from_ms + -(-since_ms // LOOK_MS) * LOOK_MS)
            if look_ms > to_ms:
                break
            seen = int(np.searchsorted(self._t_ms, look_ms, side="right"))
            self._look(look_ms, at, min(seen, at + ROWS_MAX))
        self._t_ms, self._value = self._t_ms[at:], self._value[at:]

    def _look(self, look_ms: int, start: int, end: int) -> None:
        self._look_ms, self._cursor_ms = look_ms, int(self._t_ms[end - 1])
        if self._per_row:
            single = min(end, start + ALERTS_MAX)
            self._done += [Firing(look_ms, look_ms, float(v), 1) for v in self._value[start:single]]
            start = single
        elif look_ms < self._quiet_until_ms:
            return
        else:
            self._quiet_until_ms = look_ms + SUPPRESSION_MS
        if start < end:
            self._done.append(Firing(look_ms, look_ms, float(self._value[end - 1]), end - start))
