"""Signals that ask the program to leave or to reload, and the exit codes that tell of them."""

from __future__ import annotations

import asyncio
import os
import signal

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def catch_signals(stop: asyncio.Event, reload: asyncio.Event | None = None) -> list[int]:
    """Set ``stop`` at a signal; the list then starts with its exit code. A second Ctrl-C leaves at once.

    SIGHUP sets ``reload``, where there is such a signal.
    """
    caught: list[int] = []

    def on_signal(number: int) -> None:
        if stop.is_set() and number == signal.SIGINT:
            # What is waited for may take as long as a request may: not by a person twice.
            os._exit(EXIT_INTERRUPTED)
        caught.append(EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    if reload is not None and hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
    return caught
