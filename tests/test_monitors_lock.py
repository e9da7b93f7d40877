"""Two runs that change monitors never mix, and who is at work is named."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_commands import Room, rooms, sentence
from subprocess_worker import started

from plexus_detect.config import Config
from plexus_detect.config.models import MonitorsConfig
from plexus_detect.errors import BusyError, ConfigError
from plexus_detect.provision.locking import locked
from plexus_detect.store.lock import Holder

WISH = [
    {"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 3}},
    {"source_id": "dev-1", "metric": "t.anomaly", "event": {}},
    {"source_id": "dev-1", "offline": {}},
]


@pytest.fixture(name="room")
def _room(tmp_path: Path) -> Iterator[Room]:
    with rooms(tmp_path, {"dev-1": ("t",)}) as room:
        room.wish(WISH)
        yield room


def config(folder: Path) -> Config:
    return Config(monitors=MonitorsConfig(manifest=folder / "m.json"))


def test_two_applies_at_once(room: Room) -> None:
    """The second says who is at work, or waits; everything is there once."""
    room.box.faults.add("latency", route="/api/sources", latency_ms=1000, next=1)
    first = started(["monitors", "apply"], room.env, room.folder)
    try:
        holder = Path(f"{room.manifest}.holder")
        deadline = time.monotonic() + 15
        while not holder.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        said = sentence(room.run("apply"), 75)
        assert f"another run is at work on the monitors of {room.manifest} (pid {first.pid} on host " in said
        assert re.search(r", for \d s\); try again", said)
        waited = room.run("apply", "--lock-timeout", "30s")
        assert (waited.exit_code, waited.output) == (0, "")
        assert first.wait(15) == 0
    finally:
        first.kill()
        first.communicate()
    assert [row[2] for row in room.listed()] == ["offline", "event", "threshold"]
    assert not holder.exists()


def test_only_one_of_many_is_at_work(tmp_path: Path) -> None:
    """Whoever asks at the same time, one gets it, and when that one ends another may."""
    inside, refused = [], []
    start, leave = threading.Barrier(4), threading.Event()

    def run() -> None:
        start.wait()
        try:
            with locked(config(tmp_path)):
                inside.append(os.getpid())
                leave.wait(10)
        except BusyError as error:
            refused.append(str(error))
            if len(refused) == 3:
                leave.set()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(inside), len(refused)) == (1, 3)
    with locked(config(tmp_path), timeout_s=1):
        pass


def test_a_plan_needs_no_lock(room: Room) -> None:
    """It writes nothing."""
    with locked(config(room.folder)):
        assert room.run("plan").exit_code == 0


def test_a_lock_that_cannot_be_is_said(tmp_path: Path) -> None:
    """With what to change."""
    with (
        pytest.raises(ConfigError, match=r"m\.json\.lock: cannot be used as the lock .* monitors\.manifest"),
        locked(config(tmp_path / "nowhere")),
    ):
        pass


@pytest.mark.parametrize(
    ("since", "age_s"),
    [
        ("2026-11-28T00:00:00+00:00", 12),
        ("2026-11-28T00:00:13+00:00", None),
        ("yesterday", None),
    ],
)
def test_the_age_of_a_lock(since: str, age_s: int | None) -> None:
    """In seconds; nothing where a clock or the note cannot be right."""
    assert Holder(1, "h", since, "v").age_s(1_795_824_012_900) == age_s
