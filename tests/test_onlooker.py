"""onlooker: a state file seen beside its worker, to the same bits, without a trace."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, FakePlatform, settings

from plexus_detect.config import Config
from plexus_detect.errors import StoreError
from plexus_detect.onlooker import Onlooker, Presence, Recall, presence_of
from plexus_detect.running import Running
from plexus_detect.series import Points
from plexus_detect.status.command import recall_of
from plexus_detect.store import Commit, Store
from plexus_detect.worker import Worker, open_worker

DEVICES = 4


def short(path: Path, **more: str) -> Config:
    """Settings under which everything happens within a minute; a snapshot every 7 s."""
    given = {"fleet__min_points": "10", "fleet__settle": "1500ms", "poll__interval": "1s"}
    return settings(**(given | {"state__snapshot_interval": "7s", "state__path": str(path)} | more))


def measure(platform: FakePlatform, clock: FakeClock, number: int) -> None:
    """Let a second pass, in which every device sends; one is far off for a while, one often late."""
    clock.t_ms = START_MS + 1000 * number + 300
    for k in range(DEVICES):
        n = number - 2 if k == 3 and number % 5 == 0 else number
        t_ms = START_MS + 1000 * n + k
        fault = 6.0 if k == 1 and 10 <= n < 25 else 0.0
        value = 20 + k + random.Random(f"{k} {t_ms}").gauss(0, 0.1) + fault
        platform.rows.append((f"dev-{k}", "t", t_ms, value))


def bits(running: Running) -> dict[str, bytes]:
    """Every column of the running state."""
    return {name: np.ascontiguousarray(c).tobytes() for name, c in running.dump().items()}


def worked(
    clock: FakeClock, config: Config, ticks: int, then: Callable[[Worker, FakePlatform, int], None]
) -> None:
    """Run a worker for so many ticks; ``then`` is called after each."""
    platform = FakePlatform()
    for n in range(-60, -2):
        measure(platform, clock, n)
    clock.t_ms = START_MS

    async def run() -> None:
        with closing(Store(config.state.path)) as store:
            worker = await open_worker(config, platform, store)  # type: ignore[arg-type]
            for number in range(ticks):
                measure(platform, clock, number)
                await worker.tick()
                then(worker, platform, number)

    asyncio.run(run())


def test_what_is_seen_is_what_the_worker_knows(stopped: FakeClock, tmp_path: Path) -> None:
    """After every tick, whether a look goes on from the last one, begins anew at a snapshot or is the first:
    the same bits, the newest values, and nothing of the file is changed by looking."""
    config = short(tmp_path / "s.db")
    followed = recall_of(config)

    def look(worker: Worker, platform: FakePlatform, number: int) -> None:
        with closing(sqlite3.connect(config.state.path)) as db:
            before = list(db.execute("SELECT id, journal_id, sha256 FROM snapshot"))
            followed.look()
            assert bits(followed.running) == bits(worker.running)
            if number % 9 == 0:
                first = recall_of(config)
                first.look()
                assert bits(first.running) == bits(worker.running)
            assert list(db.execute("SELECT id, journal_id, sha256 FROM snapshot")) == before
        assert followed.misfit is None
        assert followed.tick_ms == stopped.t_ms
        newest = {row[0]: row[3] for row in sorted(platform.rows, key=lambda row: row[2])}
        names = [key.source for key in worker.running.table.keys]
        assert followed.value.tolist() == [newest[name] for name in names]

    worked(stopped, config, 30, look)


def test_changed_settings_are_said(stopped: FakeClock, tmp_path: Path) -> None:
    """Other detectors do not fit what was saved: what is left are the samples and their times."""
    config = short(tmp_path / "s.db")
    worked(stopped, config, 3, lambda *_: None)
    recall = recall_of(short(tmp_path / "s.db", detect__threshold="5"))
    recall.look()
    assert recall.misfit is not None
    assert "settings changed" in recall.misfit
    assert (recall.running.cursors.last_ms[:DEVICES] >= START_MS).all()
    assert np.isfinite(recall.value).all()


def test_a_file_is_one_moment(tmp_path: Path) -> None:
    """What a worker commits after the file was opened is not seen, and the worker is not held up."""
    with closing(Store(tmp_path / "s.db")) as store:
        store.commit(Commit(1, Points.empty(), np.zeros(0, np.int64)))
        with closing(Onlooker(tmp_path / "s.db")) as seen:
            assert seen.ticks() == [1]
            store.commit(Commit(2, Points.empty(), np.zeros(0, np.int64)))
            store.save_snapshot(3, "f", {})
            assert seen.ticks() == [1]
            assert seen.newest_snapshot() is None
        with closing(Onlooker(tmp_path / "s.db")) as seen:
            assert seen.newest_snapshot() == (1, 3)


def test_nothing_can_be_written(tmp_path: Path) -> None:
    """Every method that writes is refused with a sentence."""
    Store(tmp_path / "s.db").close()
    with closing(Onlooker(tmp_path / "s.db")) as seen:
        for write in (
            lambda: seen.commit(Commit(1, Points.empty(), np.zeros(0, np.int64))),
            lambda: seen.save_snapshot(1, "f", {}),
            lambda: seen.mark_sent(1, 1),
            lambda: seen.settle(1),
        ):
            with pytest.raises(StoreError, match="for reading only"):
                write()
    with pytest.raises(StoreError, match="is closed"):
        seen.series()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_folder_in_which_nothing_may_be_written(tmp_path: Path) -> None:
    """Whoever may read the file sees it, also where SQLite cannot put its own files beside it."""
    Store(tmp_path / "s.db").close()
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    (tmp_path / "s.db").chmod(0o644)
    os.seteuid(65534)
    try:
        with closing(Onlooker(tmp_path / "s.db")) as seen:
            assert seen.series() == []
    finally:
        os.seteuid(0)
    assert not list(tmp_path.glob("*-wal"))


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")


def _newer(path: Path) -> None:
    Store(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no state file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000), "is damaged"),
        (lambda path: path.write_text("hello " * 500), "is damaged"),
        (lambda path: path.mkdir(), "is no file"),
        (_foreign, "of another program"),
        (_newer, "has schema 99"),
    ],
    ids=["none", "empty", "damaged", "text", "folder", "foreign", "newer"],
)
def test_files_that_cannot_be_read(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    """One sentence each."""
    make(tmp_path / "s.db")
    with pytest.raises(StoreError, match=words):
        Onlooker(tmp_path / "s.db")


def test_who_has_the_file(tmp_path: Path) -> None:
    """A lock that is held says that a worker runs, the note beside it which one; without a note it has no
    name."""
    path = tmp_path / "s.db"
    assert str(presence_of(path)) == "not running"
    with closing(Store(path)):
        assert str(presence_of(path)) == f"running (pid {os.getpid()})"
        note = json.loads(Path(f"{path}.holder").read_text())
        Path(f"{path}.holder").write_text(json.dumps(note | {"host": "elsewhere"}))
        assert str(presence_of(path)) == f"running (pid {os.getpid()} on elsewhere)"
        Path(f"{path}.holder").write_text("{")
        assert presence_of(path) == Presence(held=True)
        assert str(presence_of(path)) == "running"
    assert presence_of(path) == Presence(held=False)


def _odd_snapshot(db: sqlite3.Connection) -> None:
    """A snapshot with the right checksum and fingerprint that is none of ours."""
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    blob = buffer.getvalue()
    (fingerprint,) = db.execute("SELECT fingerprint FROM snapshot ORDER BY id DESC").fetchone()
    (at,) = db.execute("SELECT MAX(id) FROM journal").fetchone()
    row = (1, at, fingerprint, hashlib.sha256(blob).hexdigest(), blob)
    db.execute(
        "INSERT INTO snapshot(created_ms, journal_id, fingerprint, sha256, body) VALUES (?,?,?,?,?)", row
    )


def _odd_journal(db: sqlite3.Connection) -> None:
    """A tick with points of a series that is not there."""
    body = np.zeros(1, np.dtype([("series", "<i4"), ("t_ms", "<i8"), ("value", "<f8"), ("late", "?")]))
    body["series"] = 999
    db.execute("INSERT INTO journal(now_ms, body) VALUES (1, ?)", (body.tobytes(),))


def test_odd_content_is_no_traceback(stopped: FakeClock, tmp_path: Path) -> None:
    """A snapshot that is none gives way to the one before, as at a start; an impossible tick is damage."""
    config = short(tmp_path / "s.db")
    known: list[dict[str, bytes]] = []
    worked(stopped, config, 10, lambda worker, *_: known.append(bits(worker.running)))
    with closing(sqlite3.connect(config.state.path)) as db:
        _odd_snapshot(db)
        db.commit()
        recall = recall_of(config)
        recall.look()
        assert recall.misfit is None
        assert bits(recall.running) == known[-1]
        _odd_journal(db)
        db.commit()
    with pytest.raises(StoreError, match="is damaged"):
        recall_of(config).look()


def test_a_recall_of_nothing_saved(tmp_path: Path) -> None:
    """A worker that has just made its file has saved nothing yet."""
    config = short(tmp_path / "s.db")
    Store(config.state.path).close()
    recall: Recall = recall_of(config)
    recall.look()
    assert recall.misfit == "no worker has saved anything yet"
    assert recall.tick_ms is None
