"""The tables of a state file, and how a file of an older program is brought to them.

Every version is a step from the one before, in one transaction together with its number: a kill in the middle
leaves the older version, and the next start takes the step again. A new file takes all steps at once, so that
it cannot differ from one that has grown.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from plexus_detect.errors import StoreError
from plexus_detect.store.database import Database, make_private, sync

# "PLXD": by this a file says whose it is, before anything in it is read or changed.
APPLICATION_ID = 0x504C5844

_FIRST = (
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL, metric TEXT NOT NULL, emit_from_ms INTEGER
    )""",
    "CREATE TABLE coverage (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL)",
    """CREATE TABLE journal (
        id INTEGER PRIMARY KEY AUTOINCREMENT, now_ms INTEGER NOT NULL, body BLOB NOT NULL
    )""",
    """CREATE TABLE snapshot (
        id INTEGER PRIMARY KEY AUTOINCREMENT, created_ms INTEGER NOT NULL, journal_id INTEGER NOT NULL,
        fingerprint TEXT NOT NULL, sha256 TEXT NOT NULL, body BLOB NOT NULL
    )""",
    """CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER NOT NULL, sent_ms INTEGER, body BLOB NOT NULL
    )""",
    "CREATE TABLE tally (name TEXT PRIMARY KEY, n INTEGER NOT NULL)",
)

# Statements by the version that they bring one further.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        """CREATE TABLE alerts (
            series INTEGER, kind INTEGER, since_ms INTEGER NOT NULL, calm_ms INTEGER,
            PRIMARY KEY (series, kind)
        )""",
        "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "ALTER TABLE outbox ADD COLUMN late INTEGER NOT NULL DEFAULT 0",
    ),
}

SCHEMA_VERSION = 1 + len(MIGRATIONS)

# Since this version there are the tables alerts and notes.
ALERTS_AND_NOTES = 2


def require_ours(db: Database) -> bool:
    """Whether there is anything in the file at all. Raises StoreError when it is another program's."""
    if not db.value("SELECT COUNT(*) FROM sqlite_master"):
        return False
    if db.value("PRAGMA application_id") != APPLICATION_ID:
        raise StoreError(f"{db.path} is an SQLite file of another program; choose another state.path")
    return True


def version_of(db: Database) -> int | None:
    """The schema of the file, None for an empty one. Raises StoreError when it is not ours, or newer."""
    if not require_ours(db):
        return None
    version = int(db.value("PRAGMA user_version"))
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"state file {db.path} has schema {version}, this program knows {SCHEMA_VERSION}; "
            "run the newer program, or move the file away to start anew"
        )
    return version


def create(db: Database) -> None:
    """Make the tables of a new file."""
    with db.transaction():
        for statement in _FIRST:
            db.execute(statement)
        for statements in MIGRATIONS.values():
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def migrate(db: Database, version: int) -> str | None:
    """Bring a file of an older schema to ours, step by step; a copy of it is made first.

    Returns the name of the copy, or None when there was nothing to do. Raises StoreError, and leaves the file
    as it was, when there is no room for the copy.
    """
    if version >= SCHEMA_VERSION:
        return None
    copy = f"{db.path}.v{version}.bak"
    _keep_copy(db, version, copy)
    for step in range(version, SCHEMA_VERSION):
        with db.transaction():
            for statement in MIGRATIONS[step]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={step + 1}")
    return copy


def _keep_copy(db: Database, version: int, copy: str) -> None:
    """A whole copy under its name, or none: it is written under another one first."""
    unfinished = f"{copy}.tmp"
    try:
        Path(unfinished).unlink(missing_ok=True)
        make_private(unfinished)
        with contextlib.closing(sqlite3.connect(unfinished)) as target:
            db.execute("SELECT 1").connection.backup(target)
        sync(unfinished)
        Path(unfinished).replace(copy)
        sync(copy)
    except (sqlite3.OperationalError, OSError) as error:
        with contextlib.suppress(OSError):
            Path(unfinished).unlink(missing_ok=True)
        raise StoreError(
            f"state file {db.path} has to be brought from schema {version} to {SCHEMA_VERSION}, and the copy "
            f"that is made before could not be written ({error}); free some space and start again: nothing "
            "was changed"
        ) from None
