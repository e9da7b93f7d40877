"""The replay spread over processes: the series of one fleet stay together, everything else goes anywhere.

Each process holds the state of its series and is fed chunk by chunk through a pipe. A pipe holds little, so
the reader of the points is never more than a chunk ahead, and nobody holds the whole history.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import numpy as np

from plexus_detect.backtest.replay import Admitted, Replay, Replayed, Setup, in_order
from plexus_detect.evaluate import Policy
from plexus_detect.series import I64, Points

# How long a process may take to end after its last word.
END_S_MAX = 5.0


class Here:
    """A shard in this process."""

    def __init__(self, setup: Setup) -> None:
        self._replay = Replay(setup)

    def put(self, new: Sequence[Admitted], points: Points, now_ms: int) -> None:
        """Admit series, then take the points up to ``now_ms``."""
        for admitted in new:
            self._replay.admit(admitted)
        self._replay.step(points, now_ms)

    def finish(self) -> Replayed:
        """What the replay gave."""
        return self._replay.finish()

    def close(self, *, at_once: bool) -> None:
        """Nothing to end."""


class There:
    """A shard in a process of its own; a failure there is raised here as RuntimeError with its traceback."""

    def __init__(self, setup: Setup) -> None:
        # Spawned, not forked: the parent may have threads, and a fork would copy their locks.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, setup), daemon=True)
        self._process.start()
        theirs.close()

    def put(self, new: Sequence[Admitted], points: Points, now_ms: int) -> None:
        """As ``Here.put``; returns when the process has begun to take the chunk."""
        try:
            self._pipe.send((list(new), points, now_ms))
        except OSError:
            self._raise_its_error()

    def finish(self) -> Replayed:
        """As ``Here.finish``."""
        with suppress(OSError):
            self._pipe.send(None)
        return self._answer()

    def close(self, *, at_once: bool) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(0 if at_once else END_S_MAX)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _raise_its_error(self) -> None:
        self._answer()

    def _answer(self) -> Replayed:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError("backtest: a process ended without an answer; was it killed?") from None
        if isinstance(answer, Replayed):
            return answer
        raise RuntimeError(f"backtest: a process failed:\n{answer}")


def _serve(pipe: Connection, setup: Setup) -> None:
    """Take chunks until None, then answer; ends when the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and closes the pipe
    try:
        shard = Here(setup)
        while (message := pipe.recv()) is not None:
            shard.put(*message)
        pipe.send(shard.finish())
    except (EOFError, BrokenPipeError):
        return
    except Exception:
        pipe.send(traceback.format_exc())


def unit_of(policy: Policy, admitted: Admitted) -> tuple[str, ...]:
    """What has to stay together: the sources of a metric under one rule, where they are compared, and the
    metrics of a group."""
    key = admitted.key
    rule = policy.rules[admitted.rule] if admitted.rule is not None else None
    fleet = rule is not None and rule.fleet is not None
    if policy.is_score(key) or any(key.metric in group.metrics for group in policy.groups):
        # A group ties its metrics together, and each of those may tie sources together.
        tied = fleet or any(each.fleet for each in policy.rules) or any(g.shared for g in policy.groups)
        return ("groups",) if tied else ("groups", key.source)
    return (str(admitted.rule), key.metric, *(() if fleet else (key.source,)))


class Shards:
    """``jobs`` shards, and which series is where. A context manager: processes end with it."""

    def __init__(self, setup: Setup, jobs: int) -> None:
        self._setup = setup
        self._shards: list[Here | There] = [There(setup) for _ in range(jobs)] if jobs > 1 else [Here(setup)]
        self._sizes = [0] * len(self._shards)
        self._home: dict[tuple[str, ...], int] = {}
        self._new: list[list[Admitted]] = [[] for _ in self._shards]
        self._shard_of: I64 = np.zeros(0, np.int64)
        self._row_of: I64 = np.zeros(0, np.int64)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self._shards:
            shard.close(at_once=kind is not None)

    def admit(self, series: Sequence[Admitted]) -> None:
        """Score these series, in order of their numbers, from the next chunk on."""
        for admitted in series:
            unit = unit_of(self._setup.policy, admitted)
            home = self._home.get(unit)
            if home is None:
                home = self._home[unit] = self._sizes.index(min(self._sizes))
            if admitted.series >= len(self._shard_of):
                room = max(64, 2 * admitted.series)
                more = np.full(room - len(self._shard_of), -1)
                self._shard_of = np.concatenate([self._shard_of, more])
                self._row_of = np.concatenate([self._row_of, more])
            self._shard_of[admitted.series], self._row_of[admitted.series] = home, self._sizes[home]
            self._sizes[home] += 1
            self._new[home].append(admitted)

    def put(self, points: Points, now_ms: int) -> None:
        """Take the points up to ``now_ms`` of all series; those of series not admitted are left out."""
        known = points.series < len(self._shard_of)
        points = points.take(known) if not known.all() else points
        home = self._shard_of[points.series]
        for number, shard in enumerate(self._shards):
            mine = points.take(home == number)
            mine = Points(self._row_of[mine.series], mine.t_ms, mine.value)
            shard.put(self._new[number], in_order(mine), now_ms)
            self._new[number] = []

    def finish(self) -> list[Replayed]:
        """What the shards gave."""
        return [shard.finish() for shard in self._shards]
