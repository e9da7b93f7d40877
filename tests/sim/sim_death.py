"""Sudden death: a worker of which from one moment on nothing happens any more.

SIGKILL ends a process between two machine instructions. What a worker changes outside of itself it changes
through SQLite statements and HTTP requests, so it is enough to strike between any two of these: before or
after each statement, COMMIT included, and at every iteration of the loop, which is every point where the
program waits. Of a worker that is dead every further statement and request fails; its transaction is rolled
back, as SQLite does for a process that is gone, and what was already on its way to the platform arrives.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# The way to a connection that lives on.
CONNECT = sqlite3.connect


class Killed(BaseException):
    """The worker is dead; like KeyboardInterrupt, nothing that handles errors may catch it."""


class Life:
    """One worker from its start to its end.

    ``before`` and ``after`` are called around every statement and may strike. ``end`` ends the task in which
    the worker runs.
    """

    def __init__(self) -> None:
        self.dead = False
        self.statements = 0
        self.connections: list[MortalConnection] = []
        self.before: Callable[[str], bool] = lambda sql: False
        self.after: Callable[[str], bool] = lambda sql: False
        self.end: Callable[[], object] = lambda: None

    def die(self) -> None:
        """From now on nothing happens any more."""
        if self.dead:
            return
        self.dead = True
        for connection in self.connections:
            connection.drop()
        self.end()

    def statement(self, sql: str, run: Callable[[], Any]) -> Any:
        """Run a statement, unless the worker is dead or dies of it."""
        if self.dead:
            raise Killed
        self.statements += 1
        if self.before(sql):
            self.die()
            raise Killed
        result = run()
        if self.after(sql):
            # SQLite keeps a closed connection for as long as one of its statements is.
            result.close()
            self.die()
            raise Killed
        return result


class MortalConnection(sqlite3.Connection):
    """A connection that dies with its worker."""

    life: Life

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """As that of SQLite, without waits for the disk: they help in power cuts, which are not simulated."""
        sql = sql.replace("synchronous=FULL", "synchronous=OFF")
        return self.life.statement(sql, lambda: super(MortalConnection, self).execute(sql, *args))

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """As that of SQLite."""
        return self.life.statement(sql, lambda: super(MortalConnection, self).executemany(sql, *args))

    @property
    def in_transaction(self) -> bool:
        """As that of SQLite; of a dead worker there is none."""
        return not self.life.dead and super().in_transaction

    def close(self) -> None:
        """As that of SQLite."""
        if not self.life.dead:
            self.life.connections.remove(self)
            super().close()

    def drop(self) -> None:
        """Roll back and close, as SQLite does with a process that is gone."""
        super().rollback()
        super().close()


@contextmanager
def mortal(life: Life) -> Iterator[None]:
    """While this lasts, state files are opened by the worker whose life this is."""

    def connect(*args: Any, **given: Any) -> MortalConnection:
        if life.dead:
            raise Killed
        made: MortalConnection = CONNECT(*args, **{**given, "factory": MortalConnection})
        made.life = life
        life.connections.append(made)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        yield
