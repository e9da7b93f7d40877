"""One process a file: a lock that ends with its process, and a note beside it of who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from plexus_detect import __version__, clock
from plexus_detect.errors import StoreError
from plexus_detect.store.database import make_private

# Whoever looks whether the lock is held has it for an instant; a start waits that long.
LOOK_S = 0.2

_HOLDER_BYTES_MAX = 4096
_WORD_MAX = 100


@dataclass(frozen=True)
class Holder:
    """The process that holds a file."""

    pid: int
    host: str
    started: str
    version: str

    def __str__(self) -> str:
        return f"pid {self.pid} on host {self.host} since {self.started}"

    def age_s(self, now_ms: int) -> int | None:
        """For how long it has held it, in seconds; None where its clock or its note cannot be right."""
        try:
            age_s = now_ms / 1000 - datetime.fromisoformat(self.started).timestamp()
        except (ValueError, OverflowError):
            return None
        return int(age_s) if age_s >= 0 else None


class FileLock:
    """Held from its making on for as long as this process lives, however it ends, or until ``close``.

    The lock is SQLite's exclusive one on the file ``<path>.lock``; ``<path>.holder`` only names who holds it,
    and says nothing when nobody does. Raises what ``busy`` makes of ``path`` when another holds it, and
    SQLite's own errors where there can be no lock.
    """

    def __init__(self, path: str, busy: Callable[[str], Exception]) -> None:
        self._holder = f"{path}.holder"
        make_private(f"{path}.lock")
        self._lock = sqlite3.connect(f"{path}.lock", timeout=LOOK_S, isolation_level=None)
        try:
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self._lock.close()
            if "locked" not in str(error):
                raise
            raise busy(path) from None
        except BaseException:
            self._lock.close()
            raise
        self._sign()

    def _sign(self) -> None:
        """Write down who we are. Where that fails a wrong name is worse than none."""
        started = datetime.fromtimestamp(clock.now_ms() // 1000, UTC).isoformat()
        me = Holder(os.getpid(), socket.gethostname(), started, __version__)
        unfinished = f"{self._holder}.tmp"
        try:
            Path(unfinished).unlink(missing_ok=True)
            make_private(unfinished)
            Path(unfinished).write_text(json.dumps(asdict(me)) + "\n", "utf-8")
            Path(unfinished).replace(self._holder)
        except OSError:
            with contextlib.suppress(OSError):
                Path(self._holder).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the lock back."""
        with contextlib.suppress(OSError):
            Path(self._holder).unlink(missing_ok=True)
        # The lock file stays: unlinking it could give two processes a lock each, on two files of one name.
        self._lock.close()


class WorkerLock(FileLock):
    """The lock of one worker on its state file. Raises StoreError when another worker has it."""

    def __init__(self, path: str) -> None:
        _require_file(path)
        super().__init__(path, in_use)


def _require_file(path: str) -> None:
    """Raise StoreError where something is that is no file, before a lock or a journal is left beside it."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return  # there is nothing yet, or SQLite will say why it cannot be reached
    if not stat.S_ISREG(mode):
        raise StoreError(
            f"state file {path} cannot be used (something else is there); check that it is a file, or choose "
            "another state.path"
        )


def in_use(path: str) -> StoreError:
    """The error for a state file that another worker holds, named if it is known."""
    holder = noted_holder(path)
    named = f" ({holder})" if holder else ""
    return StoreError(
        f"state file {path} is in use by another worker{named}; stop it, or give this one another state.path"
    )


def is_held(path: str) -> bool:
    """Whether a worker holds the state file; writes nothing, and takes nothing from a worker."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{Path(f'{path}.lock').resolve().as_uri()}?mode=ro", uri=True, timeout=0.0)
        ) as db:
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False
    return False


def holder_of(path: str) -> Holder | None:
    """Who holds the state file; None when nobody does, or nobody knows who."""
    return noted_holder(path) if is_held(path) else None


def noted_holder(path: str) -> Holder | None:
    """The named holder, unless the name is unreadable, garbage, or of a process that has ended."""
    try:
        with Path(f"{path}.holder").open("rb") as file:
            found = json.loads(file.read(_HOLDER_BYTES_MAX))
        words = [found[name] for name in ("host", "started", "version")]
        holder = Holder(found["pid"], *words)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    pid_good = isinstance(holder.pid, int) and 0 < holder.pid < 2**31
    good = all(isinstance(word, str) and word.isprintable() and len(word) <= _WORD_MAX for word in words)
    return holder if pid_good and good and _may_live(holder) else None


def _may_live(holder: Holder) -> bool:
    if holder.host != socket.gethostname():
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
