"""Two runs that change monitors never mix: a lock beside the manifest, from the first read to the last."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect import clock
from plexus_detect.errors import BusyError, ConfigError

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.store.lock import FileLock


class DurationOption(click.ParamType[float]):
    """An option in words such as 30s or 5m, as seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; a number is one already. Fails for what is no duration."""
        if isinstance(value, int | float):
            return float(value)
        from plexus_detect.config.values import duration_ms

        try:
            return duration_ms(value) / 1000
        except ValueError:
            return self.fail(f"{value!r} is not a duration; write one like 30s or 5m", param, ctx)


lock_timeout_option = click.option(
    "--lock-timeout",
    "lock_timeout_s",
    type=DurationOption(),
    default="0s",
    show_default=True,
    help="How long to wait while another run is at work; then exit 75.",
)

jitter_option = click.option(
    "--jitter",
    "jitter_s",
    type=DurationOption(),
    default="0s",
    show_default=True,
    help="Wait for a random time up to this first, where many machines start at once; not on a terminal.",
)


def wait_a_while(jitter_s: float) -> None:
    """Wait for a random time up to ``jitter_s``."""
    if jitter_s > 0:
        asyncio.run(clock.sleep_s(random.uniform(0, jitter_s)))  # noqa: S311  nothing secret


@contextmanager
def locked(config: Config, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of this deployment's monitors. Not inside an event loop: waiting blocks.

    Raises BusyError, which names the holder and for how long it has been at it, when another run still has
    the lock after ``timeout_s``; ConfigError where there can be no lock.
    """
    lock = _taken(config.manifest(), clock.monotonic_s() + timeout_s)
    try:
        yield
    finally:
        lock.close()


def _taken(manifest: Path, deadline_s: float) -> FileLock:
    import sqlite3

    from plexus_detect.store.lock import FileLock

    while True:
        try:
            return FileLock(str(manifest), _busy)
        except BusyError:
            # Each try waits for a moment by itself, and a Ctrl-C gets through between two.
            if clock.monotonic_s() >= deadline_s:
                raise
        except sqlite3.Error as error:
            raise ConfigError(
                f"{manifest}.lock: cannot be used as the lock of monitors ({error}); name a file in "
                "monitors.manifest whose folder exists and can be written"
            ) from error


def _busy(path: str) -> BusyError:
    from plexus_detect.store.lock import noted_holder

    holder = noted_holder(path)
    age_s = None if holder is None else holder.age_s(clock.now_ms())
    named = "" if holder is None else f" ({holder}{'' if age_s is None else f', for {age_s} s'})"
    return BusyError(
        f"another run is at work on the monitors of {path}{named}; try again when it has ended, or wait for "
        "it with --lock-timeout 60s"
    )
