"""restore: killed and continued equals never stopped, bit for bit."""

from __future__ import annotations

import asyncio
import hashlib
import io
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock
from restore_room import DEVICES, TICKS, Room, run, same, short

from plexus_detect.restore import REPLAYED_TICKS_MAX


@pytest.mark.parametrize("kills", [{5, 6, 7}, {21, 26}, set(range(TICKS))], ids=len)
def test_killed_and_continued_equals_never_stopped(
    never_stopped: Room, stopped: FakeClock, tmp_path: Path, kills: set[int]
) -> None:
    """Dropped after any poll and opened again: the same scores, each once, and the same bits."""
    room = Room(stopped, tmp_path / "killed.db", short())
    never = never_stopped.state()
    asyncio.run(run(room, kills))
    assert room.posted() == never_stopped.posted()
    assert same(room.state(), never) == []


def cut(blob: bytes) -> bytes:
    """An archive whose end is missing."""
    return blob[: len(blob) // 2]


def garbage(blob: bytes) -> bytes:
    """As many bytes that are no archive."""
    return bytes(len(blob))


def without_columns(blob: bytes) -> bytes:
    """An archive that can be read and holds not what we write."""
    buffer = io.BytesIO()
    np.savez(buffer, nothing=np.zeros(3))
    return buffer.getvalue()


def spoil(path: Path, how: Callable[[bytes], bytes], *, known: bool, newest_only: bool = True) -> None:
    """Change the bytes of snapshots; with ``known`` the checksum is that of the new bytes."""
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT id, body, sha256 FROM snapshot ORDER BY id DESC").fetchall()
        assert len(rows) == 2
        for number, body, digest in rows[: 1 if newest_only else 2]:
            blob = how(body)
            digest = hashlib.sha256(blob).hexdigest() if known else digest
            db.execute("UPDATE snapshot SET body=?, sha256=? WHERE id=?", (blob, digest, number))
    db.close()


@pytest.mark.parametrize(
    ("how", "known"),
    [(cut, False), (cut, True), (garbage, False), (garbage, True), (without_columns, True)],
    ids=lambda given: getattr(given, "__name__", f"checksum {'fits' if given else 'wrong'}"),
)
def test_a_snapshot_that_is_damaged_costs_nothing(
    never_stopped: Room, stopped: FakeClock, tmp_path: Path, how: Callable[[bytes], bytes], *, known: bool
) -> None:
    """The one before it and a longer replay give the same bits, twice in a row."""
    path = tmp_path / "damaged.db"
    room = Room(stopped, path, short())
    asyncio.run(run(room, {30, 40}, lambda: spoil(path, how, known=known)))
    assert room.posted() == never_stopped.posted()
    assert same(room.state(), never_stopped.state()) == []


def test_a_clean_stop_continues_the_same(never_stopped: Room, stopped: FakeClock, tmp_path: Path) -> None:
    """Saving at the end and starting again is no different from going on."""
    room = Room(stopped, tmp_path / "saved.db", short())
    asyncio.run(run(room, set(range(4, TICKS, 10)), save=True))
    assert room.posted() == never_stopped.posted()
    assert same(room.state(), never_stopped.state()) == []


@pytest.mark.parametrize(
    "changed",
    [{"detect__relearn_after": "2h"}, {"detect__threshold": "4"}, {"fleet__group_min": "4"}],
    ids=lambda c: next(iter(c)),
)
def test_changed_settings_warm_up_anew_and_post_nothing_twice(
    stopped: FakeClock, tmp_path: Path, changed: dict[str, str]
) -> None:
    """The platform's history takes the place of the old state; what was posted is not posted again."""
    room = Room(stopped, tmp_path / "s.db", short())

    async def change() -> None:
        await room.open()
        for number in range(20):
            room.measure(number)
            await room.tick()
        room.config = short(**changed)
        await room.open()
        assert room.worker is not None
        assert (room.worker.running.cursors.covered_ms[:6] == -1).all()
        for number in range(20, 40):
            room.measure(number)
            await room.tick()
            if number == 30:
                await room.open()

    asyncio.run(change())
    keys = [row[:3] for row in room.posted()]
    assert len(keys) == len(set(keys))
    after = [row for row in room.posted() if row[1] == "temperature.zscore" and row[2] > START_MS + 20_000]
    assert len(after) > 15 * len(DEVICES)


def test_settings_that_leave_the_state_alone_keep_it(stopped: FakeClock, tmp_path: Path) -> None:
    """Another poll interval is no reason to forget what was learned."""
    room = Room(stopped, tmp_path / "s.db", short())

    async def change() -> None:
        await room.open()
        for number in range(20):
            room.measure(number)
            await room.tick()
        before = room.state()
        room.config = short(poll__interval="2s")
        await room.open()
        assert same(room.state(), before) == []

    asyncio.run(change())


def test_a_series_wanted_for_the_first_time_is_posted_from_now_on(stopped: FakeClock, tmp_path: Path) -> None:
    """It warms up from history like any new one, and its past is not posted, killed or not."""
    one = '[{"sources": ["dev-0"]}]'
    room = Room(stopped, tmp_path / "s.db", short(series=one))

    async def change() -> None:
        await room.open()
        for number in range(20):
            room.measure(number)
            await room.tick()
        assert {row[0] for row in room.posted()} == {"dev-0"}
        room.config = short()
        changed_ms = stopped.t_ms
        await room.open()
        for number in range(20, 40):
            room.measure(number)
            await room.tick()
            if number == 21:
                await room.open()
        others = [row for row in room.posted() if row[0] != "dev-0" and row[1] == "temperature.zscore"]
        assert min(row[2] for row in others) >= changed_ms
        assert len(others) > 15 * (len(DEVICES) - 1)

    asyncio.run(change())


@pytest.mark.parametrize(("how", "known"), [(garbage, False), (cut, True), (without_columns, True)])
def test_with_both_snapshots_gone_nothing_is_posted_twice(
    stopped: FakeClock, tmp_path: Path, how: Callable[[bytes], bytes], *, known: bool
) -> None:
    """What was covered bounds what can have been posted."""
    path = tmp_path / "s.db"
    room = Room(stopped, path, short())

    async def lose() -> None:
        await room.open()
        for number in range(30):
            room.measure(number)
            await room.tick()
        assert room.store is not None
        room.store.close()
        spoil(path, how, known=known, newest_only=False)
        await room.open()
        for number in range(30, 40):
            room.measure(number)
            await room.tick()

    asyncio.run(lose())
    keys = [row[:3] for row in room.posted()]
    assert len(keys) == len(set(keys))
    assert max(row[2] for row in room.posted()) > START_MS + 36_000


def test_a_crash_loop_leaves_no_endless_journal(stopped: FakeClock, tmp_path: Path) -> None:
    """A worker that never lives to its next snapshot has one written by a start that had much to replay."""
    room = Room(stopped, tmp_path / "s.db", short(state__snapshot_interval="1d"))

    async def body() -> None:
        for life in range(12):
            await room.open()
            for k in range(10):
                room.measure(10 * life + k)
                await room.tick()
            assert room.store is not None
            assert len(list(room.store.journal(0))) <= 2 * REPLAYED_TICKS_MAX + 10, life
            if life == 7:
                assert len(list(room.store.snapshots())) == 2

    asyncio.run(body())
    assert room.store is not None
    room.store.close()


def test_series_recorded_between_two_ticks_move_nothing(stopped: FakeClock, tmp_path: Path) -> None:
    """A snapshot records new series without a tick; led through that again from the snapshot before, what
    waits for a fleet goes on waiting (found by reading)."""
    room = Room(stopped, tmp_path / "s.db", short(fleet__settle="5s", state__snapshot_interval="1d"))

    async def body() -> tuple[dict[str, bytes], dict[str, bytes]]:
        await room.open()
        assert room.worker is not None
        for number in range(20):
            room.measure(number)
            await room.tick()
        room.worker._meet([("dev-9", "temperature")])
        assert len(room.worker.running.state.waiting) > 0
        room.worker.save()
        room.measure(20)
        await room.tick()
        before = room.state()
        # The newest snapshot is lost; the one before it and the journal have everything.
        with sqlite3.connect(room.path) as db:
            db.execute("DELETE FROM snapshot WHERE id = (SELECT MAX(id) FROM snapshot)")
        db.close()
        await room.open()
        return before, room.state()

    before, after = asyncio.run(body())
    # The newcomer has no sample; what its empty row holds depends on when it was given one.
    told = [name for name in same(before, after) if "waiting" in name or "episodes" in name]
    assert told == []
    assert room.store is not None
    room.store.close()
