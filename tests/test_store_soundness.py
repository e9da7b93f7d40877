"""store: a file whose rows or bytes are not what we wrote is one sentence, or does no harm."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from fake_platform import FakeClock
from restore_room import Room, short

from plexus_detect.errors import StoreError
from plexus_detect.statefile import words
from plexus_detect.store import Store
from plexus_detect.store.look import look
from plexus_detect.worker import open_worker

STRANGE = {
    "series": (
        "id = 99",
        "source = x'00'",
        "metric = x''",
        "emit_from_ms = 'soon'",
        f"emit_from_ms = {2**62}",
    ),
    "coverage": ("body = x'01'", "body = 7", f"body = x'{'7f' * 48}'"),
    "journal": ("body = x'01'", "body = 'x'", "now_ms = x'01'", f"body = x'{'7f' * 21}'"),
    "snapshot": ("created_ms = 'x'", "body = 7", "fingerprint = x'01'"),
    "outbox": ("n = 0", "sent_ms = 'x'", "body = x''", "body = x'01'", f"body = x'{'01' * 21}'"),
    "alerts": ("series = 77", "series = 'x'", "kind = 99", "since_ms = 'x'", "calm_ms = x'01'"),
    "tally": ("n = 'x'",),
    "notes": ("value = x'ff'",),
}
CASES = [(table, change) for table, changes in STRANGE.items() for change in changes]


@pytest.fixture(scope="module", name="filled")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """A worker's file with something in every table, closed."""
    with pytest.MonkeyPatch.context() as patch:
        room = Room(FakeClock(patch), tmp_path_factory.mktemp("filled") / "s.db", short())

        async def fill() -> None:
            await room.open()
            assert room.worker is not None
            for number in range(25):
                room.measure(number)
                await room.worker.tick()

        asyncio.run(fill())
    assert room.store is not None
    room.store.note("a", "b")
    room.store.close()
    with sqlite3.connect(room.path) as db:
        db.execute("INSERT INTO alerts VALUES (1, 0, 5, NULL)")
    db.close()
    return room


def use(room: Room, path: Path, clock: FakeClock) -> None:
    """All that is done with a state file: looked at, and a worker started from it that ticks and delivers."""
    clock.t_ms = room.stopped.t_ms
    found = look(str(path))
    assert words.lines_of(found, None, clock.t_ms)
    assert json.dumps(words.json_of(found, None, clock.t_ms))

    async def work() -> None:
        store = Store(path)
        try:
            worker = await open_worker(short(), room.platform, store)  # type: ignore[arg-type]
            await worker.tick()
            await worker.delivery.deliver_all()
            worker.save()
        finally:
            store.close()

    asyncio.run(work())


@pytest.mark.parametrize(("table", "change"), CASES, ids=lambda word: str(word)[:30])
def test_a_row_that_is_none_of_ours(
    filled: Room, stopped: FakeClock, tmp_path: Path, table: str, change: str
) -> None:
    """The file is refused in one sentence, by the worker as by whoever looks, and is left as it was."""
    path = tmp_path / "s.db"
    shutil.copy(filled.path, path)
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE {table} SET {change} WHERE rowid = (SELECT MAX(rowid) FROM {table})")
    db.close()
    with pytest.raises(StoreError, match="is damaged") as error:
        use(filled, path, stopped)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(16))
def test_bytes_that_have_changed(filled: Room, stopped: FakeClock, tmp_path: Path, seed: int) -> None:
    """Somewhere in the file, or its end is missing: it works, or it is refused in one sentence."""
    chance = random.Random(seed)
    path = tmp_path / "s.db"
    body = bytearray(filled.path.read_bytes())
    for _ in range(chance.choice([1, 4, 40])):
        body[chance.randrange(len(body))] = chance.randrange(256)
    path.write_bytes(body[: chance.randrange(len(body))] if seed % 4 == 0 else body)
    try:
        use(filled, path, stopped)
    except StoreError as error:
        told = str(error)
    else:
        told = f"{path}: used;"
    assert str(path) in told
    assert ";" in told
    assert "\n" not in told
