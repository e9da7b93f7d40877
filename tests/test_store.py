"""store: what belongs together commits together, and a file that cannot be used says so in one sentence."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from plexus_detect.errors import StoreError
from plexus_detect.series import Derived, Points, SeriesKey
from plexus_detect.store import SCHEMA_VERSION, Commit, Store

KEYS = [SeriesKey("dev-1", "temperature"), SeriesKey("dev-2", "temperature")]
SERIES = [(i, key, 1_000) for i, key in enumerate(KEYS)]


def points(*t_ms: int) -> Points:
    """One point of the first series at each time."""
    times = np.array(t_ms, np.int64)
    return Points(np.zeros(len(times), np.int64), times, times * 0.5, times % 2 == 1)


def derived(*t_ms: int) -> Derived:
    """One derived point of the first series at each time."""
    times = np.array(t_ms, np.int64)
    return Derived(np.zeros(len(times), np.int64), np.zeros(len(times), np.int8), times, times * 0.25)


def tick(*t_ms: int, series: bool = False, tally: dict[str, int] | None = None) -> Commit:
    """A tick that took points at these times and gives out one batch of as many."""
    covered = np.array([max(t_ms, default=0), -1], np.int64)
    batches = [derived(*t_ms)] if t_ms else []
    new = SERIES if series else []
    return Commit(max(t_ms, default=0) + 7, points(*t_ms), covered, batches, new, tally or {})


def contents(path: Path) -> dict[str, int]:
    """Rows by table, as another reader of the file sees them."""
    with sqlite3.connect(path) as db:
        names = ("series", "coverage", "journal", "snapshot", "outbox", "tally")
        counted = {name: db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in names}
    db.close()
    return counted


# --- what is kept ----------------------------------------------------------------------------------------


def test_a_tick_comes_back_as_it_was_committed(tmp_path: Path) -> None:
    """Series, coverage, journal (points, lateness, the tick's time), outbox and tally survive a restart."""
    store = Store(tmp_path / "s.db")
    store.commit(tick(10, 11, series=True, tally={"points": 2, "late": 0}))
    store.commit(tick(20, tally={"points": 1}))
    store.close()
    store = Store(tmp_path / "s.db")
    assert store.series() == SERIES
    assert store.covered_ms().tolist() == [20, -1]
    journal = list(store.journal(0))
    assert [now for now, _ in journal] == [18, 27]
    first = journal[0][1]
    assert (first.t_ms.tolist(), first.value.tolist(), first.late.tolist()) == (
        [10, 11],
        [5.0, 5.5],
        [False, True],
    )
    parcel = store.next_parcel()
    assert parcel is not None
    assert (parcel.derived.t_ms.tolist(), parcel.derived.value.tolist()) == ([10, 11], [2.5, 2.75])
    assert parcel.sent_ms is None
    assert store.tally() == {"points": 3}
    assert store.outbox_points() == 3
    store.close()


def test_a_tick_without_points_is_journalled(tmp_path: Path) -> None:
    """Time alone moves the fleets, so a replay needs to know that it passed."""
    store = Store(tmp_path / "s.db")
    store.commit(tick())
    assert [(now, len(p)) for now, p in store.journal(0)] == [(7, 0)]
    store.close()


def test_a_failure_in_the_middle_of_a_commit_leaves_nothing(tmp_path: Path) -> None:
    """A tick whose last statement fails leaves no series, journal, coverage, outbox or tally behind."""
    store = Store(tmp_path / "s.db")
    before = contents(tmp_path / "s.db")
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute(
            "CREATE TRIGGER poison BEFORE INSERT ON tally BEGIN SELECT RAISE(ABORT, 'out of luck'); END"
        )
    db.close()
    with pytest.raises(StoreError, match="out of luck"):
        store.commit(tick(10, series=True, tally={"points": 1}))
    assert contents(tmp_path / "s.db") == before
    assert not any(before.values())
    store.close()


def test_a_kill_inside_the_transaction_leaves_nothing(tmp_path: Path) -> None:
    """A process that dies between the first and the last statement of a tick has not committed it."""
    path = tmp_path / "s.db"
    code = f"""
import os, sqlite3, sys
sys.path[:0] = {[str(Path(__file__).parent.parent), str(Path(__file__).parent)]!r}
from test_store import Store, tick
store = Store({str(path)!r})
store.commit(tick(10, series=True))
store._add_tally = lambda tally: os._exit(9)
store.commit(tick(20))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    store = Store(path)
    assert [p.t_ms.tolist() for _, p in store.journal(0)] == [[10]]
    assert store.covered_ms().tolist() == [10, -1]
    assert store.outbox_points() == 1
    store.close()


# --- snapshots ------------------------------------------------------------------------------------------


def test_a_snapshot_ends_the_journal_that_nobody_needs(tmp_path: Path) -> None:
    """Two snapshots are kept, and the journal from the older one on: either can be continued."""
    store = Store(tmp_path / "s.db")
    for n in range(1, 5):
        store.commit(tick(10 * n))
        store.save_snapshot(10 * n, f"settings {n}", {"n": np.array([n])})
    newest, older = store.snapshots()
    assert (newest.fingerprint, newest.columns["n"].tolist(), older.columns["n"].tolist()) == (
        "settings 4",
        [4],
        [3],
    )
    assert list(store.journal(newest.journal_id)) == []
    assert [p.t_ms.tolist() for _, p in store.journal(older.journal_id)] == [[40]]
    assert [p.t_ms.tolist() for _, p in store.journal(0)] == [[40]]
    store.close()


def test_a_snapshot_keeps_every_bit(tmp_path: Path) -> None:
    """Types, NaN and the sign of zero come back as they were."""
    columns = {
        "f": np.array([0.1, -0.0, np.nan, np.inf]),
        "i": np.array([2**62], np.int64),
        "b": np.array([True]),
        "none": np.zeros(0, np.uint64),
    }
    store = Store(tmp_path / "s.db")
    store.save_snapshot(1, "x", columns)
    (snapshot,) = store.snapshots()
    for name, column in columns.items():
        assert snapshot.columns[name].dtype == column.dtype
        assert snapshot.columns[name].tobytes() == column.tobytes()
    store.close()


@pytest.mark.parametrize("damage", ["body = zeroblob(length(body))", "sha256 = 'x'", "body = x''"])
def test_a_damaged_snapshot_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    """What fails its checksum is skipped, and the journal since the older one is still there."""
    store = Store(tmp_path / "s.db")
    for n in (1, 2):
        store.commit(tick(10 * n, series=n == 1))
        store.save_snapshot(n, "x", {"n": np.array([n])})
    store.close()
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute(f"UPDATE snapshot SET {damage} WHERE id = 2")
    db.close()
    store = Store(tmp_path / "s.db")
    (left,) = store.snapshots()
    assert left.columns["n"].tolist() == [1]
    assert [p.t_ms.tolist() for _, p in store.journal(left.journal_id)] == [[20]]
    store.close()


# --- outbox ---------------------------------------------------------------------------------------------


def test_parcels_leave_in_order_and_parts_stay_in_place(tmp_path: Path) -> None:
    """The oldest comes first; what is left of it keeps its place and counts as not sent."""
    store = Store(tmp_path / "s.db")
    store.commit(tick(10, 11))
    store.commit(tick(20))
    first = store.next_parcel()
    assert first is not None
    store.mark_sent(first.id, 99)
    again = store.next_parcel()
    assert again is not None
    assert again.sent_ms == 99
    store.settle(first.id, derived(11), {"posted": 1})
    left = store.next_parcel()
    assert left is not None
    assert (left.id, left.sent_ms, left.derived.t_ms.tolist()) == (first.id, None, [11])
    store.settle(first.id, tally={"posted": 1})
    second = store.next_parcel()
    assert second is not None
    assert second.derived.t_ms.tolist() == [20]
    assert store.tally() == {"posted": 2}
    store.close()


def test_a_split_parcel_loses_no_point(tmp_path: Path) -> None:
    """Two batches hold what one held, neither of them sent."""
    store = Store(tmp_path / "s.db")
    store.commit(tick(10, 11, 12))
    parcel = store.next_parcel()
    assert parcel is not None
    store.mark_sent(parcel.id, 99)
    store.split(parcel.id, derived(10), derived(11, 12))
    first = store.next_parcel()
    assert first is not None
    second = store.next_parcel(first.id)
    assert second is not None
    assert [p.derived.t_ms.tolist() for p in (first, second)] == [[10], [11, 12]]
    assert (first.sent_ms, second.sent_ms) == (None, None)
    store.close()


def test_a_full_outbox_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    """The bound holds, the newest stay, and the tally says how many went."""
    store = Store(tmp_path / "s.db")
    for n in range(1, 6):
        store.commit(tick(10 * n, 10 * n + 1))
    assert store.drop_oldest(10) is None
    dropped = store.drop_oldest(5)
    assert dropped is not None
    assert (dropped.points, dropped.since_ms, dropped.till_ms) == (6, 10, 31)
    assert store.outbox_points() == 4
    left = store.next_parcel()
    assert left is not None
    assert left.derived.t_ms.tolist() == [40, 41]
    assert store.tally()["dropped"] == 6
    store.close()


# --- files that cannot be used --------------------------------------------------------------------------


def one_sentence(error: pytest.ExceptionInfo[StoreError], path: Path) -> str:
    """The message, after checking its form: it names the file and is one line that says what to do."""
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    assert ";" in text
    assert error.value.exit_code == 4
    return text


def test_a_file_of_a_newer_program_is_refused_untouched(tmp_path: Path) -> None:
    """Its schema is named, and nothing is written to it."""
    path = tmp_path / "s.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"has schema {SCHEMA_VERSION + 1}, this program knows") as error:
        Store(path)
    one_sentence(error, path)
    assert path.read_bytes() == before


def test_a_file_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    """Even one that has tables of the same names is not ours, and not even its journal mode changes."""
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE series (id INTEGER)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program") as error:
        Store(path)
    one_sentence(error, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "head", "middle"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    """Not a database, a broken header, a broken page: one sentence says so and what helps."""
    path = tmp_path / "s.db"
    store = Store(path)
    for n in range(200):
        store.commit(tick(*range(n, n + 50)))
    store.close()
    body = bytearray(path.read_bytes())
    if damage == "text":
        body = bytearray(b"interval: 5s\n" * 100)
    elif damage == "head":
        body[:100] = b"\xff" * 100
    else:
        body[4096:12288] = os.urandom(8192)
    path.write_bytes(body)
    with pytest.raises(StoreError, match=r"is damaged .*move it away") as error:
        Store(path)
    one_sentence(error, path)


def test_two_workers_on_one_file(tmp_path: Path) -> None:
    """The second is refused while the first lives, and not after it."""
    path = tmp_path / "s.db"
    first = Store(path)
    with pytest.raises(StoreError, match="in use by another worker") as error:
        Store(path)
    one_sentence(error, path)
    first.commit(tick(10, series=True))
    first.close()
    Store(path).close()


def test_a_missing_folder(tmp_path: Path) -> None:
    """Nothing is created on the way."""
    path = tmp_path / "no" / "s.db"
    with pytest.raises(StoreError, match="folder") as error:
        Store(path)
    one_sentence(error, path)
    assert not path.parent.exists()


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    """A state.path that is a folder is told apart from a damaged file."""
    path = tmp_path / "s.db"
    path.mkdir()
    with pytest.raises(StoreError, match="check that it is a file") as error:
        Store(path)
    one_sentence(error, path)


@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_folder(exists: bool) -> None:
    """Neither a new file nor an old one can be used there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.db"
        if exists:
            Store(path).close()
            for file in Path(folder).iterdir():
                file.chmod(0o444)
        Path(folder).chmod(0o555)
        mine = os.geteuid()
        try:
            if mine == 0:
                os.seteuid(65534)  # root may write anywhere, so the test is somebody else for a moment
            with pytest.raises(StoreError, match="writable") as error:
                Store(path)
        finally:
            os.seteuid(mine)
            Path(folder).chmod(0o755)
        one_sentence(error, path)


def test_a_full_disk(tmp_path: Path) -> None:
    """A commit that finds no room fails in one sentence, and the tick before it is whole."""
    path = tmp_path / "s.db"
    code = f"""
import resource, sys
sys.path[:0] = {[str(Path(__file__).parent.parent), str(Path(__file__).parent)]!r}
from test_store import Store, StoreError, tick
store = Store({str(path)!r})
store.commit(tick(*range(10), series=True))
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    for n in range(1, 100):
        store.commit(tick(*range(1000 * n, 1000 * n + 900)))
except StoreError as error:
    print(n, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n, _, sentence = done.stdout.strip().partition(" ")
    assert "cannot be written" in sentence
    assert "nothing is lost" in sentence
    store = Store(path)
    assert len(list(store.journal(0))) == int(n)
    assert store.covered_ms()[0] == (1000 * (int(n) - 1) + 899 if int(n) > 1 else 9)
    store.close()


def test_a_full_database(tmp_path: Path) -> None:
    """SQLite's own word for a full disk gives the same sentence."""
    store = Store(tmp_path / "s.db")
    store._execute("PRAGMA max_page_count=20")
    with pytest.raises(StoreError, match=r"cannot be written .*free some space") as error:
        store.commit(tick(*range(10_000)))
    one_sentence(error, tmp_path / "s.db")
    assert store.outbox_points() == 0
    store.close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Closing twice is harmless, using it afterwards is a StoreError."""
    store = Store(tmp_path / "s.db")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.commit(tick(1))
