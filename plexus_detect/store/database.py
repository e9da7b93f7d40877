"""One connection to an SQLite file, whose errors are one sentence that says what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from plexus_detect.errors import StoreError

# What SQLite says when a table or column is not there: the file was ours once, and is not whole.
_MISSING = ("no such table", "no such column", "has no column", "malformed", "decode to UTF-8")


@contextmanager
def one_sentence(path: str) -> Iterator[None]:
    """Turn SQLite's errors into StoreErrors about the state file ``path``."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if any(word in text for word in _MISSING):
            raise damaged(path, text) from None
        if "full" in text or "I/O" in text:
            raise StoreError(
                f"state file {path} cannot be written ({text}); free some space and start again: "
                "nothing is lost, what was not recorded is read again"
            ) from None
        raise StoreError(
            f"state file {path} cannot be used ({text}); check that it is a file in a folder that "
            "exists and is writable"
        ) from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        # UnicodeDecodeError: of a text in a damaged file, also of SQLite's own words about it.
        raise damaged(path, str(error)) from None


def damaged(path: str, what: str) -> StoreError:
    """The error for a file whose content is not what we wrote."""
    return StoreError(
        f"state file {path} is damaged ({what}); restore a copy, or move it away with 'state reset' to start "
        "anew: the platform's history warms the detectors up again"
    )


T = TypeVar("T")


def decoded(path: str, decode: Callable[[bytes], T], body: bytes) -> T:
    """What ``decode`` makes of a value from the state file ``path``; StoreError when it is none of ours."""
    try:
        return decode(body)
    except (ValueError, TypeError) as error:
        raise damaged(path, str(error)) from None


def make_private(path: str) -> None:
    """Create an empty file that only its owner may read, whatever the umask; leave an existing one alone.

    SQLite gives its -wal and -shm files the mode of the file that they belong to. Where no file can be made
    SQLite will say so in its own words.
    """
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.fchmod(handle, 0o600)
        finally:
            os.close(handle)


def sync(path: str) -> None:
    """Bring a file and its name in the folder to the disk. Raises OSError."""
    for name in (path, str(Path(path).resolve().parent)):
        handle = os.open(name, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def size_of(path: str) -> int:
    """The bytes of a file, 0 if there is none."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


class Database:
    """A connection to the state file ``path``. Raises StoreError, also after ``close``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    def connect(self) -> None:
        """Open the file, and make it if there is none."""
        if self.path != ":memory:":
            make_private(self.path)
        self._db = sqlite3.connect(self.path, isolation_level=None)

    def connect_to_read(self) -> None:
        """Open the file beside whoever writes it, and change nothing; it may be on a read-only disk.

        There SQLite cannot make the files that readers and writers meet in, but nobody writes either: unless
        there is something in the WAL, the file alone is all.
        """
        uri = f"{Path(self.path).resolve().as_uri()}?mode=ro"
        self._db = sqlite3.connect(uri, uri=True, isolation_level=None)
        try:
            self.execute("SELECT COUNT(*) FROM sqlite_master")
        except sqlite3.OperationalError:
            if size_of(f"{self.path}-wal"):
                raise
            self.close()
            self._db = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)

    def close(self) -> None:
        """Close it; a second time is harmless."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        if self._db is None:
            raise StoreError(f"state file {self.path} is closed")
        return self._db.execute(sql, values)

    def value(self, sql: str) -> Any:  # noqa: ANN401  whatever type the one column has
        """The one value that a query gives."""
        return self.execute(sql).fetchone()[0]

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """Turn errors of what is done inside into one sentence."""
        return one_sentence(self.path)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is done, or nothing."""
        with self.guard():
            db = self.execute("BEGIN IMMEDIATE").connection
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
