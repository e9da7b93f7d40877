"""Bad state files: a StoreError of one sentence, exit 4, or a worker that goes on; never a traceback.

What is refused is left exactly as it was found.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import pickle
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door import refused, through
from fake_platform import START_MS, FakeClock, FakePlatform
from mutations import mutated
from state_door import change, good_file, worked

from plexus_detect.errors import StoreError
from plexus_detect.series import I64, Derived, Points
from plexus_detect.store.records import encode_derived, encode_points

FLIPS, SOAK_FLIPS = 40, 5_000


@pytest.fixture(name="platform")
def _platform(tmp_path: Path, stopped: FakeClock) -> FakePlatform:
    """A platform whose worker left the good file ``s.db``."""
    return good_file(tmp_path / "s.db", stopped)


def outcome(path: Path, platform: FakePlatform, clock: FakeClock) -> str:
    """The sentence of the StoreError that the file ends in, or nothing when a worker goes on with it."""
    try:
        asyncio.run(worked(path, platform, clock))
    except StoreError as error:
        text = str(error)
        assert len(text.splitlines()) == 1, text
        assert path.name in text, text
        return text
    return ""


CONTENT: dict[str, tuple[bytes, str]] = {
    "a word": (b"hello", "damaged (file is not a database)"),
    "text": (b"version: 1\n" * 500, "damaged (file is not a database)"),
    "zeros": (b"\0" * 8192, "damaged (file is not a database)"),
    "ones": (b"\xff" * 8192, "damaged (file is not a database)"),
    "a header alone": (b"SQLite format 3\0", "damaged"),
    "a header and zeros": (b"SQLite format 3\0" + b"\0" * 5000, "damaged"),
    "a header and ones": (b"SQLite format 3\0" + b"\xff" * 5000, "damaged"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "damaged"),
    "an archive": (b"PK\3\4" + bytes(range(256)) * 40, "damaged"),
    "a pickle": (pickle.dumps({"a": [1]}) * 50, "damaged"),
    "UTF-16": ("state".encode("utf-16") * 100, "damaged"),
}


@pytest.mark.parametrize(("content", "words"), CONTENT.values(), ids=CONTENT)
def test_what_is_no_state_file(tmp_path: Path, content: bytes, words: str) -> None:
    """Through the command: exit 4, what it is and what to do; the file stays as it is."""
    path = tmp_path / "s.db"
    path.write_bytes(content)
    said = through(tmp_path, ["run", "--once"], env={"PLEXUS_DETECT_STATE__PATH": "s.db"})
    refused(said, 4, "s.db", words)
    assert path.read_bytes() == content


def folder(path: Path) -> None:
    """A folder."""
    path.mkdir()


def pipe(path: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def circle(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def device(path: Path) -> None:
    """A link to a device that takes everything and gives nothing."""
    path.symlink_to("/dev/null")


def other_program(path: Path) -> None:
    """A database of somebody else."""
    change(path, "CREATE TABLE contacts (name TEXT)")


def other_mark(path: Path) -> None:
    """A database that says whose it is."""
    change(path, "CREATE TABLE series (id INTEGER)")
    change(path, "PRAGMA application_id=1")


@pytest.mark.parametrize(
    "make", [folder, pipe, circle, device, other_program, other_mark], ids=lambda f: f.__name__
)
def test_what_is_in_the_way(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Exit 4 without waiting; nothing is left beside it but a lock at most."""
    make(tmp_path / "s.db")
    said = through(tmp_path, ["run", "--once"], env={"PLEXUS_DETECT_STATE__PATH": "s.db"})
    refused(said, 4, "s.db")
    assert {path.name for path in tmp_path.iterdir()} <= {"s.db", "s.db.lock"}
    assert not Path("/dev/null.lock").exists()


def test_a_place_that_is_none(tmp_path: Path) -> None:
    """A folder that is missing, a file for a folder, a name too long."""
    (tmp_path / "file").write_text("x")
    for path in ("nowhere/s.db", "file/s.db", "x" * 300):
        refused(
            through(tmp_path, ["run", "--once"], env={"PLEXUS_DETECT_STATE__PATH": path}), 4, "state file"
        )


TABLES = ("series", "coverage", "journal", "snapshot", "outbox", "tally", "alerts")


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_missing(
    tmp_path: Path, platform: FakePlatform, stopped: FakeClock, table: str
) -> None:
    """It was our file once, and is not whole."""
    change(tmp_path / "s.db", f"DROP TABLE {table}")
    assert f"no such table: {table}" in outcome(tmp_path / "s.db", platform, stopped)


COLUMNS = (
    ("series", "source"),
    ("coverage", "body"),
    ("journal", "now_ms"),
    ("outbox", "body"),
    ("tally", "n"),
)


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda name: name)
def test_a_column_of_another_name(
    tmp_path: Path, platform: FakePlatform, stopped: FakeClock, table: str, column: str
) -> None:
    """The same."""
    change(tmp_path / "s.db", f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
    assert "damaged" in outcome(tmp_path / "s.db", platform, stopped)


def test_a_newer_file(tmp_path: Path, platform: FakePlatform, stopped: FakeClock) -> None:
    """It is not touched, and what to do is said."""
    change(tmp_path / "s.db", "PRAGMA user_version=99")
    before = (tmp_path / "s.db").read_bytes()
    assert "run the newer program" in outcome(tmp_path / "s.db", platform, stopped)
    assert (tmp_path / "s.db").read_bytes() == before


def archive(**columns: Any) -> bytes:
    """An archive of arrays; objects are pickled, as we never do."""
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    return buffer.getvalue()


class Trap:
    """What makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("pwned", "w"))


SNAPSHOTS: dict[str, bytes] = {
    "no archive": b"hello",
    "an empty archive": archive(),
    "an archive of nothing of ours": archive(a=np.zeros(3)),
    "pickled objects": archive(**{"cursors.last_ms": np.array([Trap()], object)}),
    "a trap": pickle.dumps(Trap()),
    "columns of text": archive(**{"cursors.last_ms": np.array(["x", "y"])}),
    "columns of the wrong length": archive(**{"cursors.last_ms": np.zeros(1, np.int64)}),
    "columns of two dimensions": archive(**{"cursors.last_ms": np.zeros((2, 2), np.int64)}),
    "half an archive": archive(a=np.zeros(300))[:200],
}


@pytest.mark.parametrize("body", SNAPSHOTS.values(), ids=SNAPSHOTS)
def test_a_snapshot_that_is_none(
    tmp_path: Path, platform: FakePlatform, stopped: FakeClock, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even under a checksum that holds nothing in it is run, and the worker goes on or says why not."""
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256(body).hexdigest()
    change(tmp_path / "s.db", "UPDATE snapshot SET body=?, sha256=?", body, digest)
    outcome(tmp_path / "s.db", platform, stopped)
    assert not (tmp_path / "pwned").exists()


def test_snapshots_without_their_checksums(
    tmp_path: Path, platform: FakePlatform, stopped: FakeClock
) -> None:
    """They are not used, and the worker goes on."""
    change(tmp_path / "s.db", "UPDATE snapshot SET sha256='0'")
    assert outcome(tmp_path / "s.db", platform, stopped) == ""


NOW = START_MS + 10_000


def journalled(series: int, t_ms: int = NOW) -> bytes:
    """A sample of this series, as it stands in the journal."""
    return encode_points(Points(*columns(series), *columns(t_ms), np.array([1.5])))


def waiting(series: int, kind: int = 0, t_ms: int = NOW) -> bytes:
    """A score of this series, as it stands in the outbox."""
    return encode_derived(Derived(*columns(series), np.array([kind], "i1"), *columns(t_ms), np.array([1.5])))


def columns(*values: int) -> list[I64]:
    """Columns of one entry each."""
    return [np.array([value], np.int64) for value in values]


VALUES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a source of bytes": ("UPDATE series SET source=?", (b"\xff\xfe",)),
    "a source of a number": ("UPDATE series SET source=5.5", ()),
    "a source of bad UTF-8": ("UPDATE series SET source=CAST(? AS TEXT)", (b"\xff\xfe",)),
    "an index that jumps": ("UPDATE series SET id=500 WHERE id=1", ()),
    "an index below zero": ("UPDATE series SET id=-1 WHERE id=1", ()),
    "one series twice": ("UPDATE series SET source='dev-0'", ()),
    "no series": ("DELETE FROM series", ()),
    "a beginning of text": ("UPDATE series SET emit_from_ms='x'", ()),
    "a beginning beyond time": ("UPDATE series SET emit_from_ms=9223372036854775807", ()),
    "coverage of an odd length": ("UPDATE coverage SET body=?", (b"abc",)),
    "coverage of text": ("UPDATE coverage SET body='hello, world!!!!'", ()),
    "coverage of a number": ("UPDATE coverage SET body=5", ()),
    "coverage of nothing": ("UPDATE coverage SET body=?", (b"",)),
    "coverage of more series": ("UPDATE coverage SET body=?", (b"\0" * 800,)),
    "no coverage": ("DELETE FROM coverage", ()),
    "a journal of an odd length": ("UPDATE journal SET body=?", (b"abc",)),
    "a journal of text": ("UPDATE journal SET body='hello'", ()),
    "a journal of a number": ("UPDATE journal SET body=7", ()),
    "a journal of unknown series": ("UPDATE journal SET body=?", (journalled(2**31 - 1),)),
    "a journal of series below zero": ("UPDATE journal SET body=?", (journalled(-1),)),
    "a journal without times": ("UPDATE journal SET now_ms='soon'", ()),
    "a journal that ends early": ("DELETE FROM journal", ()),
    "an outbox of an odd length": ("UPDATE outbox SET body=?", (b"abc",)),
    "an outbox of text": ("UPDATE outbox SET body='hello'", ()),
    "an outbox of unknown series": ("UPDATE outbox SET body=?", (waiting(2**31 - 1),)),
    "an outbox of series below zero": ("UPDATE outbox SET body=?", (waiting(-1),)),
    "an outbox of unknown kinds": ("UPDATE outbox SET body=?", (waiting(0, kind=99),)),
    "an outbox of before time": ("UPDATE outbox SET body=?", (waiting(0, t_ms=-(1 << 62)),)),
    "an outbox of after time": ("UPDATE outbox SET body=?", (waiting(0, t_ms=1 << 62),)),
    "a journal of after time": ("UPDATE journal SET body=?", (journalled(0, 1 << 62),)),
    "a journal of before time": ("UPDATE journal SET body=?", (journalled(0, -(1 << 62)),)),
    "an alert of words": ("INSERT OR REPLACE INTO alerts VALUES ('x', 'y', 'z', 'w')", ()),
    "an alert of an unknown series": ("INSERT OR REPLACE INTO alerts VALUES (500, 0, 1, NULL)", ()),
    "an alert of an unknown kind": ("INSERT OR REPLACE INTO alerts VALUES (0, 99, 1, NULL)", ()),
    "an alert of bytes": ("INSERT OR REPLACE INTO alerts VALUES (?, 0, 1, NULL)", (b"\xff",)),
    "an alert since a word": ("INSERT OR REPLACE INTO alerts VALUES (0, 0, 'x', NULL)", ()),
    "an alert calm at a word": ("INSERT OR REPLACE INTO alerts VALUES (0, 0, 1, 'x')", ()),
    "a note of bytes": ("INSERT INTO notes VALUES (?, ?)", (b"\xff", b"\xfe")),
    "an outbox sent at a word": ("UPDATE outbox SET sent_ms='x'", ()),
    "an outbox counted in words": ("UPDATE outbox SET n='x'", ()),
    "a tally of words": ("UPDATE tally SET n='x'", ()),
    "a tally beyond numbers": ("UPDATE tally SET n=9223372036854775807", ()),
    "a fingerprint of bytes": ("UPDATE snapshot SET fingerprint=?", (b"\xff",)),
    "a fingerprint of a number": ("UPDATE snapshot SET fingerprint=5", ()),
    "a snapshot of a journal to come": ("UPDATE snapshot SET journal_id=10000", ()),
    "a snapshot of text": ("UPDATE snapshot SET body='x'", ()),
    "a snapshot of a number": ("UPDATE snapshot SET body=5", ()),
    "a snapshot's checksum of a number": ("UPDATE snapshot SET sha256=5", ()),
}


@pytest.mark.parametrize(("sql", "values"), VALUES.values(), ids=VALUES)
def test_values_that_are_none(
    tmp_path: Path, platform: FakePlatform, stopped: FakeClock, sql: str, values: tuple[Any, ...]
) -> None:
    """Whatever stands in a row of a table that SQLite can read."""
    change(tmp_path / "s.db", sql, *values)
    outcome(tmp_path / "s.db", platform, stopped)


def test_triggers_and_views_in_place_of_tables(
    tmp_path: Path, platform: FakePlatform, stopped: FakeClock
) -> None:
    """A file may hold more than tables."""
    change(tmp_path / "s.db", "CREATE TRIGGER t AFTER INSERT ON journal BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert "s.db" in outcome(tmp_path / "s.db", platform, stopped)


def test_a_file_cut_off_anywhere(tmp_path: Path, platform: FakePlatform, stopped: FakeClock) -> None:
    """At any offset: a sentence, or, of nothing, a new file."""
    good, path = (tmp_path / "s.db").read_bytes(), tmp_path / "cut.db"
    for size in [*range(18, 120, 17), *range(512, len(good) - 1, len(good) // 25)]:
        fresh(path, good[:size])
        assert outcome(path, platform, stopped), size


def fresh(path: Path, content: bytes) -> None:
    """The file with this content, and nothing of an earlier one beside it."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    path.write_bytes(content)


def _flipped(tmp_path: Path, platform: FakePlatform, clock: FakeClock, seeds: range) -> None:
    good, path = (tmp_path / "s.db").read_bytes(), tmp_path / "flipped.db"
    for seed in seeds:
        fresh(path, mutated(good, random.Random(seed)))
        try:
            outcome(path, platform, clock)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error


def test_a_file_with_flipped_bytes(tmp_path: Path, platform: FakePlatform, stopped: FakeClock) -> None:
    """Wherever they are: a sentence, or a worker that goes on."""
    _flipped(tmp_path, platform, stopped, range(FLIPS))


@pytest.mark.soak
def test_many_files_with_flipped_bytes(tmp_path: Path, platform: FakePlatform, stopped: FakeClock) -> None:
    """The same for an hour's worth of seeds."""
    _flipped(tmp_path, platform, stopped, range(SOAK_FLIPS))


def test_a_wal_that_is_none(tmp_path: Path, platform: FakePlatform, stopped: FakeClock) -> None:
    """What lies beside the file is not believed either."""
    (tmp_path / "s.db-wal").write_bytes(b"hello" * 2000)
    outcome(tmp_path / "s.db", platform, stopped)
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
