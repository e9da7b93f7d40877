"""Loops that run side by side and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def together(stop: asyncio.Event, stop_s: float, *loops: Coroutine[Any, Any, None]) -> None:
    """Run loops until all have ended; once ``stop`` is set they have ``stop_s`` to do so by themselves.

    The first error ends them all and is raised, unwrapped.
    """

    async def end() -> None:
        await stop.wait()
        await asyncio.wait(tasks, timeout=stop_s)
        for task in tasks:
            task.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            ender = group.create_task(end())
            await asyncio.wait(tasks)
            ender.cancel()
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """What ``work`` gives, or None, with the work cancelled, when ``stop`` came first."""
    task, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait({task})
    return None
