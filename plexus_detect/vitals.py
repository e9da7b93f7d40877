"""How the worker is: written by its loops, read from outside, judged here. Pure; time is an argument.

What is measured is the last poll that *succeeded*. A worker that polls punctually and is refused each time
looks busy and detects nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from plexus_detect.histogram import Histogram
from plexus_detect.report import DeliveryReport, TickReport, Verdict

# That devices send nothing is no failure of ours.
FINE = frozenset({Verdict.OK, Verdict.NO_DATA})

# The last successful poll may be so many intervals ago, and always so many seconds.
GRACE_INTERVALS = 3
GRACE_S_MIN = 15.0

# From this share on the outbox counts as full.
OUTBOX_SHARE_MAX = 0.9

# Scores may fail to be delivered for so long: the platform's own hiccups are shorter.
UNDELIVERED_S_MAX = 300.0

# The event loop turns every second. It may stand still while a large snapshot is written, and for longer
# while the journal is replayed at the start.
STUCK_S_MAX = 60.0
STUCK_AT_START_S_MAX = 600.0

ERROR_CHARS_MAX = 300

# What is checked; ``Trouble.check`` is one of these.
CHECKS = (
    "event_loop",
    "stopping",
    "config",
    "state",
    "starting",
    "last_successful_tick",
    "platform",
    "key",
    "outbox",
    "delivery",
    "bus",
)


class Trouble(NamedTuple):
    """One reason why the worker is not alive, or not ready: a word for programs, a sentence for people."""

    check: str
    what: str


@dataclass
class Vitals:
    """``*_s`` are times of the monotonic clock, ``*_ms`` of the wall clock; None: not yet.

    ``turned_s``: last turn of the event loop. ``config_error``: why the last reload failed, if it did.
    ``verdict``: what the last poll found. ``last_ok_*``: last poll without a failed query on a platform
    that is well, ``last_read_s``: last one that brought any answer. ``dropped``: from the full outbox in the
    last poll. ``saved_ms``: last snapshot. ``delivery``: the totals of the delivery loop, which writes them.
    ``bus_trouble``: why a stream worker does not get on.
    ``series_refused`` and ``series_expired`` are totals. ``fits``: durations of fits, where there are any.
    ``trainings``: models trained on a schedule, by result. ``learned_ms``: the newest time that the oldest
    model in use has learned.
    """

    interval_ms: int
    outbox_max: int
    series_max: int = 0
    started_s: float = 0.0
    started_ms: int = 0
    turned_s: float = 0.0
    config_error: str = ""
    config_reloaded_ms: int = 0
    state_open: bool = False
    lock_held: bool = False
    state_bytes: int = 0
    saved_ms: int | None = None
    ticks: int = 0
    ticks_failed: int = 0
    verdict: Verdict = Verdict.OK
    last_error: str = ""
    last_read_s: float | None = None
    last_ok_s: float | None = None
    last_ok_ms: int | None = None
    series: int = 0
    series_refused: int = 0
    series_expired: int = 0
    outbox_points: int = 0
    dropped: int = 0
    delivery: DeliveryReport = field(default_factory=DeliveryReport)
    fits: Histogram | None = None
    trainings: dict[str, int] | None = None
    learned_ms: int | None = None
    heartbeat_ms: int | None = None
    stopping: bool = False
    bus_trouble: str = ""

    @property
    def config_ok(self) -> bool:
        """Whether the settings in force are the newest."""
        return not self.config_error

    def started(self, now_s: float, now_ms: int) -> None:
        """The process begins."""
        self.started_s = self.turned_s = now_s
        self.started_ms = self.config_reloaded_ms = now_ms

    def ticked(self, report: TickReport, now_s: float, now_ms: int) -> None:
        """A poll has ended. One that still waits for every answer has neither succeeded nor failed."""
        self.ticks += 1
        self.verdict = report.verdict
        self.series, self.outbox_points, self.dropped = report.series, report.outbox, report.dropped
        if report.reads:
            self.last_read_s = now_s
        if report.errors:
            self.last_error = report.errors[0]
        if report.failed or self.verdict not in FINE:
            self.ticks_failed += 1
        elif report.ok:
            self.last_ok_s, self.last_ok_ms, self.last_error = now_s, now_ms, ""


def liveness(vitals: Vitals, now_s: float) -> list[Trouble]:
    """Why the process should be started anew; empty: it is alive, however ill the platform may be."""
    still_s = now_s - vitals.turned_s
    if still_s <= (STUCK_S_MAX if vitals.ticks else STUCK_AT_START_S_MAX):
        return []
    return [Trouble("event_loop", f"the event loop has not turned for {still_s:.0f} s; restart the worker")]


def overdue(vitals: Vitals, now_s: float) -> bool:
    """Whether the last successful poll is too long ago, or never was."""
    return _long_ago(vitals, vitals.last_ok_s, now_s)


def reads(vitals: Vitals, now_s: float) -> bool:
    """Whether polls bring answers, perhaps not all: one source that cannot be read is no dead worker."""
    return not _long_ago(vitals, vitals.last_read_s, now_s)


def _long_ago(vitals: Vitals, at_s: float | None, now_s: float) -> bool:
    grace_s = max(GRACE_INTERVALS * vitals.interval_ms / 1000, GRACE_S_MIN)
    return at_s is None or now_s - at_s > grace_s


def readiness(vitals: Vitals, now_s: float) -> list[Trouble]:
    """Why the worker does not do its job at the moment; empty: it does."""
    return [*liveness(vitals, now_s), *_own_troubles(vitals), *_troubles_with_others(vitals, now_s)]


def _own_troubles(vitals: Vitals) -> Iterator[Trouble]:
    if vitals.stopping:
        yield Trouble("stopping", "the worker is about to end")
    if not vitals.config_ok:
        yield Trouble(
            "config",
            f"the settings could not be reloaded, the old ones stay in force: {_brief(vitals.config_error)}",
        )
    if not vitals.state_open:
        yield Trouble("state", "the state file is not open")


def _troubles_with_others(vitals: Vitals, now_s: float) -> Iterator[Trouble]:
    error = f": {_brief(vitals.last_error)}" if vitals.last_error else ""
    interval = f"interval {vitals.interval_ms / 1000:g} s"
    if vitals.last_ok_s is None:
        waited_s = now_s - vitals.started_s
        yield Trouble("starting", f"no successful poll since the start {waited_s:.0f} s ago{error}")
    elif overdue(vitals, now_s):
        since_s = now_s - vitals.last_ok_s
        yield Trouble("last_successful_tick", f"no successful poll for {since_s:.0f} s ({interval}){error}")
    if vitals.bus_trouble:
        yield Trouble("bus", f"the stream stands still: {_brief(vitals.bus_trouble)}")
    if vitals.verdict is Verdict.PLATFORM_ILL:
        yield Trouble("platform", f"the platform is ill{error}")
    if vitals.verdict is Verdict.KEY_TROUBLE:
        yield Trouble("key", f"the API key is refused{error}")
    share = vitals.outbox_points / max(1, vitals.outbox_max)
    filled = f"{vitals.outbox_points} of {vitals.outbox_max}"
    if vitals.dropped:
        yield Trouble(
            "outbox", f"the outbox is full ({filled}): {vitals.dropped} scores have just been dropped"
        )
    elif share >= OUTBOX_SHARE_MAX:
        text = f"the outbox is {share:.0%} full ({filled}); when there is no room the oldest are dropped"
        yield Trouble("outbox", text)
    failing_s = vitals.delivery.failing_since_s
    # What failed may have become too old to be posted since: then nothing waits, and nothing is tried.
    if failing_s is not None and vitals.outbox_points and now_s - failing_s > UNDELIVERED_S_MAX:
        minutes, error = (now_s - failing_s) / 60, _brief(vitals.delivery.error)
        yield Trouble("delivery", f"no score was delivered for {minutes:.0f} min: {error}")


def _brief(text: str) -> str:
    return text if len(text) <= ERROR_CHARS_MAX else f"{text[: ERROR_CHARS_MAX - 3]}..."
