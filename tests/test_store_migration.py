"""store: a file of an older program is brought to ours whole or not at all, and a copy of it is kept."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fake_platform import FakeClock
from restore_room import Room, run, same, short
from test_store import SERIES, contents, one_sentence, tick

from plexus_detect.errors import StoreError
from plexus_detect.store import SCHEMA_VERSION, Store, schema

# What version 0.3.0 made, word for word.
SCHEMA_1 = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, metric TEXT NOT NULL, emit_from_ms INTEGER
);
CREATE TABLE coverage (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, now_ms INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created_ms INTEGER NOT NULL, journal_id INTEGER NOT NULL,
    fingerprint TEXT NOT NULL, sha256 TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER NOT NULL, sent_ms INTEGER, body BLOB NOT NULL
);
CREATE TABLE tally (name TEXT PRIMARY KEY, n INTEGER NOT NULL);
"""
COLUMNS_1 = {
    "series": "id, source, metric, emit_from_ms",
    "coverage": "id, body",
    "journal": "id, now_ms, body",
    "snapshot": "id, created_ms, journal_id, fingerprint, sha256, body",
    "outbox": "id, n, sent_ms, body",
    "tally": "name, n",
    "sqlite_sequence": "name, seq",
}


def as_version_1(path: Path) -> None:
    """Put in the place of a closed state file one of schema 1 with the same content."""
    newer = path.with_suffix(".newer")
    path.rename(newer)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(SCHEMA_1)
        db.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version=1")
        db.execute("ATTACH ? AS newer", (str(newer),))
        for table, columns in COLUMNS_1.items():
            db.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM newer.{table}")
    db.close()
    newer.unlink()


def filled(path: Path) -> dict[str, int]:
    """A file of schema 1 with something in every table; returns the rows of each."""
    store = Store(path)
    store.commit(tick(10, 11, series=True, tally={"points": 2}))
    store.save_snapshot(11, "x", {})
    store.commit(tick(*range(20, 4000), tally={"points": 3980}))
    store.mark_sent(1, 99)
    store.close()
    as_version_1(path)
    return contents(path)


def version(path: Path) -> int:
    """The schema of a file."""
    with sqlite3.connect(path) as db:
        found = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return int(found)


def tables(path: Path) -> list[tuple[str, str]]:
    """Every table with what it was made by, white space aside."""
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    db.close()
    return sorted((name, "".join(sql.split())) for name, sql in rows)


def test_a_file_of_schema_1_is_brought_to_ours(tmp_path: Path) -> None:
    """Everything is still in it, it has the tables of a new file, and the copy beside it is the old file."""
    path = tmp_path / "s.db"
    before = filled(path)
    assert all(before.values())
    store = Store(path)
    assert store.series() == SERIES
    assert (store.outbox_points(), store.tally()) == (3982, {"points": 3982})
    parcel = store.next_parcel()
    assert parcel is not None
    assert (parcel.sent_ms, parcel.derived.t_ms.tolist()) == (99, [10, 11])
    assert (store.alerts(), store.notes()) == ({}, {})
    store.close()
    assert contents(path) == before
    Store(tmp_path / "new.db").close()
    assert tables(path) == tables(tmp_path / "new.db")
    assert (version(path), version(tmp_path / "s.db.v1.bak")) == (SCHEMA_VERSION, 1)
    assert contents(tmp_path / "s.db.v1.bak") == before
    assert (tmp_path / "s.db.v1.bak").stat().st_mode & 0o777 == 0o600
    left = {"s.db", "s.db.lock", "s.db.v1.bak", "new.db", "new.db.lock"}
    assert {file.name for file in tmp_path.iterdir()} == left


def test_a_migrated_file_is_not_copied_again(tmp_path: Path) -> None:
    """The next start finds nothing to do."""
    path = tmp_path / "s.db"
    filled(path)
    Store(path).close()
    (tmp_path / "s.db.v1.bak").unlink()
    Store(path).close()
    assert not (tmp_path / "s.db.v1.bak").exists()


def test_a_worker_goes_on_from_a_migrated_file(
    never_stopped: Room, stopped: FakeClock, tmp_path: Path
) -> None:
    """The same derived points, and the same bits in the end, as without a migration."""
    path = tmp_path / "s.db"
    room = Room(stopped, path, short())
    asyncio.run(run(room, {31}, lambda: as_version_1(path)))
    assert version(tmp_path / "s.db.v1.bak") == 1
    assert room.posted() == never_stopped.posted()
    assert same(room.state(), never_stopped.state()) == []


@pytest.mark.parametrize("done", range(len(schema.MIGRATIONS[1]) + 1))
def test_a_migration_that_fails_leaves_the_old_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, done: int
) -> None:
    """After any of its statements; the next start takes it from the beginning."""
    path = tmp_path / "s.db"
    before = filled(path)
    whole = schema.MIGRATIONS[1]
    with monkeypatch.context() as patch:
        patch.setitem(schema.MIGRATIONS, 1, (*whole[:done], "SELECT no_such_function()"))
        with pytest.raises(StoreError, match="no_such_function") as error:
            Store(path)
    one_sentence(error, path)
    assert (version(path), contents(path)) == (1, before)
    Store(path).close()
    assert (version(path), contents(path)) == (SCHEMA_VERSION, before)


def test_a_kill_in_the_middle_of_a_migration_leaves_the_old_version(tmp_path: Path) -> None:
    """The process ends when all statements but the last are done."""
    path = tmp_path / "s.db"
    before = filled(path)
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from plexus_detect.store import Store, database
execute = database.Database.execute
def dying(self, sql, values=()):
    if sql.startswith("PRAGMA user_version="):
        os._exit(9)
    return execute(self, sql, values)
database.Database.execute = dying
Store({str(path)!r})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (version(path), contents(path)) == (1, before)
    Store(path).close()
    assert (version(path), contents(path)) == (SCHEMA_VERSION, before)


def test_without_room_for_the_copy_nothing_is_changed(tmp_path: Path) -> None:
    """One sentence, no half copy, and the old file as it was; with room again it goes on."""
    path = tmp_path / "s.db"
    before = filled(path)
    whole = path.read_bytes()
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from plexus_detect.store import Store
from plexus_detect.errors import StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    Store({str(path)!r})
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "from schema 1 to" in done.stdout
    assert "free some space and start again: nothing was changed" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert path.read_bytes() == whole
    assert {file.name for file in tmp_path.iterdir()} == {"s.db", "s.db.lock"}
    Store(path).close()
    assert (version(path), contents(path)) == (SCHEMA_VERSION, before)


def test_a_damaged_file_is_not_migrated(tmp_path: Path) -> None:
    """It is refused before a copy is made."""
    path = tmp_path / "s.db"
    store = Store(path)
    for n in range(100):
        store.commit(tick(*range(n, n + 50)))
    store.close()
    as_version_1(path)
    body = bytearray(path.read_bytes())
    body[20480:28672] = b"\x55" * 8192
    path.write_bytes(body)
    with pytest.raises(StoreError, match="is damaged"):
        Store(path)
    assert version(path) == 1
    assert not (tmp_path / "s.db.v1.bak").exists()
