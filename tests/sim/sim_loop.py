"""Virtual time: an asyncio loop on which a day of waiting passes in the time of its callbacks.

``VirtualLoop`` never waits. When no callback is ready, its selector moves the time to that of the next
timer; what asks an executor for something gets it done in place, so that everything happens in one thread and
in one order. ``virtual_time`` puts the program's one clock, and the sandbox's, on such a loop while it lasts.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from plexus_detect import clock
from plexus_detect.sandbox import calls, plexus

START_MS = 1_800_000_000_000

# No run has needed a tenth of these iterations.
TURNS_MAX = 300_000


class Stuck(Exception):  # noqa: N818  what the loop is, not what failed
    """Everybody waits for something that nobody will do."""


class _Clockwork(selectors.SelectSelector):
    """A selector without events from outside: to wait is to move the time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.turns = 0
        self.on_turn: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[Any]:
        """Called once an iteration of the loop, with the time until the next timer."""
        if timeout is None:
            raise Stuck("no task is ready and no timer is set")
        if self.turns >= TURNS_MAX:
            raise Stuck(f"the run does not end: {TURNS_MAX} iterations, {self.now_s:.3f} virtual seconds")
        self.now_s += max(0.0, timeout)
        self.turns += 1
        self.on_turn()
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. ``on_turn`` is called at the begin of each of its iterations; ``turns`` is their number.

    ``jump_ms`` is how far the wall clock of the machine is from that of the platform.
    """

    def __init__(self) -> None:
        self._clockwork = _Clockwork()
        super().__init__(self._clockwork)
        self.jump_ms = 0

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._clockwork.now_s

    @property
    def turns(self) -> int:
        """Iterations so far."""
        return self._clockwork.turns

    def on_turn(self, call: Callable[[], None]) -> None:
        """Have ``call`` called at the begin of every iteration."""
        self._clockwork.on_turn = call

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call ``func`` in place."""
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def platform_ms(self) -> int:
        """The wall clock of the platform."""
        return START_MS + round(self.time() * 1000)

    def machine_ms(self) -> int:
        """The wall clock of the worker's machine."""
        return self.platform_ms() + self.jump_ms


async def _in_place(func: Callable[..., Any], *args: Any) -> Any:
    return func(*args)


@contextmanager
def virtual_time(seed: int) -> Iterator[VirtualLoop]:
    """A new loop with all clocks on it, and the chance of the process (jitter of retries) from ``seed``."""
    loop = VirtualLoop()
    chance = random.getstate()
    random.seed(seed)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "now_ms", loop.machine_ms)
            patch.setattr(clock, "monotonic_s", loop.time)
            patch.setattr(calls, "run_in_threadpool", _in_place)
            # The gateway's limit a source is by a clock of its own.
            patch.setattr(plexus, "time", SimpleNamespace(monotonic=loop.time))
            yield loop
    finally:
        random.setstate(chance)
        loop.close()
