"""Points in time as people and files write them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from plexus_detect.config import duration_ms

DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME_FORMS = "an ISO date or time (2026-05-01, 2026-05-01T12:00:00Z) or seconds or milliseconds since 1970"

# Below this a number counts as seconds, as the platform's gateway takes it (contract section 3).
_SECONDS_BELOW = 1e12
_TIME_MAX_MS = 1 << 42


class Span(NamedTuple):
    """A period in milliseconds since the epoch: from its start up to, but without, its end."""

    from_ms: int
    to_ms: int

    @property
    def days(self) -> float:
        """Its length in days."""
        return (self.to_ms - self.from_ms) / DAY_MS


def time_ms(text: str) -> int:
    """Milliseconds of one of ``TIME_FORMS``; a time without a zone is UTC. Raises ValueError."""
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        ms: float = (at - EPOCH) // timedelta(milliseconds=1)
    else:
        # The form 20260501 of ISO 8601 is taken for seconds, as any number: a file has to have one meaning.
        ms = number * 1000 if abs(number) < _SECONDS_BELOW else number
    if not (math.isfinite(ms) and 0 <= ms < _TIME_MAX_MS):
        raise ValueError(f"{text} is out of range, which is from 1970 to 2109")
    return round(ms)


def moment_ms(text: str, now_ms: int) -> int:
    """Milliseconds of a time, or of a duration back from now such as ``7d``, at most to 1970. Raises
    ValueError."""
    if text.strip().lower() == "now":
        return now_ms
    if text.strip()[-1:] in ("s", "m", "h", "d"):
        return max(0, now_ms - duration_ms(text))
    return time_ms(text)


def stamp(t_ms: int) -> str:
    """A time as the text and the report show it: UTC, to the second."""
    return (EPOCH + timedelta(milliseconds=t_ms)).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_stamp(t_ms: int) -> str:
    """A time as programs read it: UTC, to the millisecond."""
    text = (EPOCH + timedelta(milliseconds=t_ms)).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def duration_text(ms: float) -> str:
    """A duration in its largest fitting unit: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    for unit, size, below in (
        ("s", 1000, 120_000),
        ("min", 60_000, 120 * 60_000),
        ("h", 3_600_000, 48 * 3_600_000),
    ):
        if ms < below:
            return f"{ms / size:.3g} {unit}"
    return f"{ms / DAY_MS:.3g} d"
