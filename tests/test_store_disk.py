"""store: a full or read-only disk ends the worker in one sentence, and costs nothing once it is mended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fake_platform import FakeClock
from restore_room import TICKS, Room, same, short
from test_store import contents, derived, one_sentence, tick

from plexus_detect.closing import AlertChanges, Debt
from plexus_detect.errors import StoreError
from plexus_detect.store import Store

MANY = range(50_000)
WRITES: dict[str, Callable[[Store], object]] = {
    "commit": lambda store: store.commit(tick(*MANY)),
    "save_snapshot": lambda store: store.save_snapshot(1, "x", {"n": np.zeros(100_000)}),
    "mark_sent": lambda store: store.mark_sent(1, 99),
    "settle": lambda store: store.settle(1, derived(*MANY)),
    "settle with alerts": lambda store: store.settle(
        1, alerts=AlertChanges({(n, 0): Debt(n) for n in range(9_000)})
    ),
    "change_alerts": lambda store: store.change_alerts(AlertChanges({(n, 0): Debt(n) for n in range(9_000)})),
    "split": lambda store: store.split(1, derived(*MANY), derived(*MANY)),
    "note": lambda store: store.note("what", "x" * 900_000),
}


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All that a file holds."""
    with sqlite3.connect(path) as db:
        found = {
            name: db.execute(f"SELECT * FROM {name}").fetchall()
            for name in (*contents(path), "notes", "alerts")
        }
    db.close()
    return found


@pytest.mark.parametrize("write", [name for name in WRITES if name != "mark_sent"])
def test_every_write_to_a_full_disk_is_one_sentence(tmp_path: Path, write: str) -> None:
    """Nothing of it is in the file, and with room again the same store takes it."""
    path = tmp_path / "s.db"
    store = Store(path)
    store.commit(tick(10, 11, series=True))
    before = rows(path)
    store._execute("PRAGMA max_page_count=20")
    with pytest.raises(StoreError, match=r"cannot be written .*free some space") as error:
        WRITES[write](store)
    one_sentence(error, path)
    assert rows(path) == before
    store._execute("PRAGMA max_page_count=1000000")
    WRITES[write](store)
    assert rows(path) != before
    store.close()


@pytest.mark.parametrize("write", WRITES)
def test_every_write_to_a_read_only_file_is_one_sentence(tmp_path: Path, write: str) -> None:
    """As when the system mounts the disk read-only after an error, in the middle of a run."""
    path = tmp_path / "s.db"
    store = Store(path)
    store.commit(tick(10, 11, series=True))
    before = rows(path)
    store._execute("PRAGMA query_only=1")
    with pytest.raises(StoreError, match=r"cannot be used \(.*readonly.*is writable") as error:
        WRITES[write](store)
    one_sentence(error, path)
    assert rows(path) == before
    store.close()


class FillingStore(Store):
    """A store whose disk is full when ``left`` more transactions have been written."""

    left: float = float("inf")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with super()._transaction() as db:
            yield db
            self.left -= 1
            if self.left < 0:
                raise sqlite3.OperationalError("database or disk is full")


class FillingRoom(Room):
    """A worker whose disk fills up; then it ends, somebody makes room, and it is started again."""

    said: list[str]

    def new_store(self) -> Store:
        """The file on the disk that fills up."""
        return FillingStore(self.path)

    async def live(self, lives: list[int]) -> None:
        """The sixty polls, with as many writes for every life of the worker as ``lives`` says."""
        self.said = []
        await self.open()
        for number in range(TICKS):
            self.measure(number)
            await self.tick_or_die(lives)
            if number % 5 == 0:
                self.stopped.t_ms += 600
                await self.tick_or_die(lives)

    async def tick_or_die(self, lives: list[int]) -> None:
        """One poll; where the disk is full another life does it."""
        t_ms = self.stopped.t_ms
        for _ in range(3):
            assert isinstance(self.store, FillingStore)
            if self.store.left == float("inf") and lives:
                self.store.left = lives.pop(0)
            try:
                await self.tick()
                return
            except StoreError as error:
                self.said.append(str(error))
                await self.open()
                self.stopped.t_ms = t_ms
        raise AssertionError("no life did it")


@pytest.mark.parametrize("lives", [[31], [34], [7, 11, 5, 16, 23]], ids=str)
def test_a_worker_whose_disk_was_full_ends_as_one_never_disturbed(
    never_stopped: Room, stopped: FakeClock, tmp_path: Path, lives: list[int]
) -> None:
    """Whichever write found no room, of a tick, a snapshot or a delivery: the same scores, each once, and the
    same bits."""
    room = FillingRoom(stopped, tmp_path / "s.db", short())
    deaths = len(lives)
    asyncio.run(room.live(lives))
    assert len(room.said) == deaths
    assert all("free some space and start again" in text for text in room.said)
    assert room.posted() == never_stopped.posted()
    assert same(room.state(), never_stopped.state()) == []


@contextmanager
def small_disk() -> Iterator[Path]:
    """A disk of a megabyte; skips where none can be made."""
    folder = Path(tempfile.mkdtemp())
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("needs root and mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def fill(disk: Path, leave: int = 0) -> Path:
    """A file that leaves only so many bytes free."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while shutil.disk_usage(disk).free > leave:
            file.write(bytes(4096))
    return ballast


def commit_on(store: Store) -> None:
    """A thousand ticks of a hundred points."""
    for n in range(1000):
        store.commit(tick(*range(100 * n, 100 * n + 100), series=n == 0))


def test_a_real_disk_that_is_full() -> None:
    """Commits fail in one sentence, a start fails so or works, and with room again everything goes on."""
    with small_disk() as disk:
        path = disk / "s.db"
        store = Store(path)
        ballast = fill(disk, leave=200_000)
        with pytest.raises(StoreError, match=r"cannot be written .*free some space") as error:
            commit_on(store)
        one_sentence(error, path)
        store.close()
        fill(disk)
        with contextlib.suppress(StoreError):
            Store(path).close()
        ballast.unlink()
        store = Store(path)
        n = len(list(store.journal(0)))
        assert 3 < n < 1000
        assert store.covered_ms()[0] == 100 * n - 1
        store.save_snapshot(1, "x", {})
        store.save_snapshot(2, "x", {})
        store.commit(tick(10**6))
        store.close()


def test_a_real_disk_that_is_full_from_the_start() -> None:
    """No file is made that a later start could not use."""
    with small_disk() as disk:
        path = disk / "s.db"
        ballast = fill(disk)
        with pytest.raises(StoreError, match=r"free some space|writable") as error:
            Store(path)
        one_sentence(error, path)
        ballast.unlink()
        store = Store(path)
        store.commit(tick(1))
        store.close()


def test_a_real_disk_that_is_read_only() -> None:
    """A worker is refused in one sentence, and starts when the disk is writable again."""
    with small_disk() as disk:
        path = disk / "s.db"
        Store(path).close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        try:
            with pytest.raises(StoreError, match="is writable") as error:
                Store(path)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        one_sentence(error, path)
        Store(path).close()
