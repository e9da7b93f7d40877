"""The one place that reads the clock or sleeps, so that everything else can be tested without either."""

from __future__ import annotations

import asyncio
import time


def now_ms() -> int:
    """The wall clock: whole milliseconds since the Unix epoch (UTC). It may jump."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """A clock for durations, in seconds from an arbitrary origin. It never goes back."""
    return time.monotonic()


async def sleep_s(s: float) -> None:
    """Let other tasks run for ``s`` seconds; zero or less only yields once."""
    await asyncio.sleep(s)


async def wait_s(event: asyncio.Event, s: float) -> None:
    """Sleep for ``s`` seconds, or until ``event`` is set."""
    try:
        async with asyncio.timeout(s):
            await event.wait()
    except TimeoutError:
        return


def block_s(s: float) -> None:
    """Let ``s`` seconds pass in a thread that has no event loop."""
    time.sleep(s)
