"""What several test modules share as fixtures."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator

# Before a library is loaded that asks: several workers share the processors, and the threads of one wait for
# those of the others, turning. A fit that takes two seconds of processor time alone takes fourteen like that.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import profiles
import pytest
from fake_platform import FakeClock
from restore_room import Room, run, short

profiles.load()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Leave the logging of the process as it was found: a command run in it sets it up its own way."""
    root, package = logging.getLogger(), logging.getLogger("plexus_detect")
    before = (root.handlers[:], root.level, package.level)
    yield
    root.handlers[:], level, package_level = before
    root.setLevel(level)
    package.setLevel(package_level)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The one clock of worker and platform, which moves only when a test or a wait moves it."""
    return FakeClock(monkeypatch)


@pytest.fixture(scope="session")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """The run without a kill; it finds the fault, and so is worth comparing with."""
    with pytest.MonkeyPatch.context() as patch:
        room = Room(FakeClock(patch), tmp_path_factory.mktemp("whole") / "s.db", short())
        asyncio.run(run(room, set()))
    values = [row[3] for row in room.posted() if row[0] == "dev-1" and row[1] == "temperature.zscore"]
    assert max(values) > 3
    assert {row[1] for row in room.posted()} == {
        f"temperature.{name}" for name in ("zscore", "fleet_zscore", "zscore_raw", "fleet_zscore_raw")
    }
    assert room.store is not None
    room.store.close()
    return room
