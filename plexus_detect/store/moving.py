"""A state file copied whole beside the worker that writes it, and moved out of the way of the next start."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from plexus_detect import clock
from plexus_detect.errors import StoreError
from plexus_detect.logs import event
from plexus_detect.store import schema
from plexus_detect.store.database import Database, damaged, make_private, one_sentence, sync
from plexus_detect.store.lock import WorkerLock, in_use, is_held
from plexus_detect.store.look import SnapshotLook, reading, snapshots_in

log = logging.getLogger(__name__)

# What SQLite may leave beside a file, which has to stay beside it.
_BESIDE = ("-wal", "-shm")


def free_name(path: str) -> str:
    """A name for a copy of ``path`` that says when it was made, and that no file has."""
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    name, number = f"{path}.{now}.bak", 1
    while os.path.lexists(name):
        number += 1
        name = f"{path}.{now}-{number}.bak"
    return name


def copy(path: str, target: str) -> tuple[SnapshotLook, ...]:
    """Copy a state file as it is at one moment; what is read back of the copy are its snapshots.

    The copy has its name only when it is whole, checked and on the disk. Raises StoreError, also when there
    is a file of that name.
    """
    _refuse_existing(target)
    unfinished = f"{target}.tmp"
    with reading(path) as source:
        try:
            Path(unfinished).unlink(missing_ok=True)
            make_private(unfinished)
            with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as db:
                source.execute("SELECT 1").connection.backup(db)
                # One file that needs none beside it.
                db.execute("PRAGMA journal_mode=DELETE")
            snapshots = _checked(unfinished)
            sync(unfinished)
            _name(unfinished, target)
            sync(target)
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreError(
                f"the copy {target} cannot be written ({error}); choose a folder that exists, is writable "
                "and has space"
            ) from None
        finally:
            with contextlib.suppress(OSError):
                Path(unfinished).unlink(missing_ok=True)
    return snapshots


def _refuse_existing(target: str) -> None:
    if os.path.lexists(target):
        raise StoreError(f"{target} exists and is not overwritten; choose another name")


def _name(unfinished: str, target: str) -> None:
    """Give the copy its name, never that of another file."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        _refuse_existing(target)
    except OSError:  # a file system without links
        _refuse_existing(target)
        Path(unfinished).rename(target)


def _checked(path: str) -> tuple[SnapshotLook, ...]:
    db = Database(path)
    with contextlib.closing(db), db.guard():
        db.connect_to_read()
        found = db.value("PRAGMA quick_check(1)")
        if found != "ok":
            raise damaged(path, " ".join(str(found).split()))
        return snapshots_in(db)


def require_movable(path: str) -> None:
    """Raise StoreError when there is no such file, or a worker holds it."""
    if not os.path.lexists(path):
        raise StoreError(f"there is no state file {path}; the next start makes one")
    if is_held(path):
        raise in_use(path)


def move_away(path: str) -> str:
    """Move a state file to a name that says when; returns it. Nothing is deleted, and damage is no obstacle.

    Raises StoreError while a worker holds the file, and for one that is not ours.
    """
    require_movable(path)
    with one_sentence(path):
        lock = WorkerLock(path)
    try:
        _merge(path)
        name = free_name(path)
        for beside in ("", *_BESIDE):
            if os.path.lexists(f"{path}{beside}"):
                Path(f"{path}{beside}").rename(f"{name}{beside}")
        sync(name)
    except OSError as error:
        raise StoreError(
            f"state file {path} cannot be moved ({error}); check that its folder is writable"
        ) from None
    finally:
        lock.close()
    return name


def _merge(path: str) -> None:
    """Bring what stands in the WAL into the file itself, so that it is whole by itself; if it can be read."""
    db = Database(path)
    try:
        db.connect()
        schema.require_ours(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.DatabaseError as error:
        # Damaged, or on a full disk: it is moved as it is, with the WAL beside it.
        event(log, logging.DEBUG, "wal_not_merged", err=str(error))
    finally:
        db.close()
