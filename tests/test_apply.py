"""apply through the command line: whatever fails on the way, a rerun ends with everything there, and once."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from monitor_commands import Room, rooms, sentence

from plexus_detect import clock
from plexus_detect.cli import cli
from plexus_detect.errors import UnsafePlanError
from plexus_detect.monitors.manifest import manifests_from, text_of
from plexus_detect.provision.backups import Backups

CASES = 20


def before(source: str) -> list[dict[str, Any]]:
    """What an earlier run applied."""
    return [
        {"source_id": source, "metric": "t.zscore", "threshold": {"max": 3}},
        {"source_id": source, "offline": {}},
    ]


def after(source: str) -> list[dict[str, Any]]:
    """What the documents say now: something to create, to change and to replace."""
    return [
        {"source_id": source, "metric": "t.zscore", "threshold": {"max": 4}},
        {"source_id": source, "metric": "t.anomaly", "event": {}},
        {"source_id": source, "offline": {"timeout_seconds": 60}},
    ]


def there_after(source: str) -> list[tuple[str, str, str, Any]]:
    """How the platform then lists it."""
    return [
        (source, "", "offline", 60),
        (source, "t.anomaly", "event", "info"),
        (source, "t.zscore", "threshold", 4),
    ]


@pytest.fixture(scope="module", name="shared")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A platform whose devices all have the monitors of before, by one manifest."""
    fleet = {f"dev-{i}": ("t",) for i in range(CASES)}
    with rooms(tmp_path_factory.mktemp("all"), fleet) as room:
        room.wish([document for source in fleet for document in before(source)])
        assert room.run("apply").exit_code == 0
        yield room


def case_of(shared: Room, folder: Path, source: str) -> Room:
    """A room of its own, with just this device in its manifest and documents."""
    room = Room(shared.box, shared.front, folder, shared.ca_file)
    (everything,) = manifests_from(shared.manifest.read_text(), "m")
    mine = tuple(entry for entry in everything.owned if entry.key[0] == source)
    room.manifest.write_text(text_of([replace(everything, owned=mine)]))
    room.wish(after(source))
    return room


@pytest.mark.parametrize(
    ("saved", "lost"), [(False, False), (True, True)], ids=["documents, refused", "saved plan, answer lost"]
)
def test_a_failure_at_every_request_then_a_rerun(
    shared: Room, tmp_path: Path, saved: bool, lost: bool
) -> None:
    """Whichever request fails or loses its answer, a rerun ends with an empty plan, nothing twice, all ours.

    (The other two pairs of what is applied and how it fails are tried with the fake, in less time.)
    """
    front = shared.front
    for at in range(99):
        source = f"dev-{at + 10 * saved}"
        folder = tmp_path / source
        folder.mkdir()
        room = case_of(shared, folder, source)
        plan = ["p.json"] if saved else []
        if saved:
            plan = [str(folder / "p.json")]
            assert room.run("plan", "-o", *plan).exit_code == 0
        front.calls.clear()
        front.at, front.after = at, lost
        first = room.run("apply", *plan)
        front.at = None
        if len(front.calls) <= at:
            break
        assert first.exit_code in (0, 1), first.output
        again = room.run("apply", *plan)
        assert again.exit_code == 0, (at, first.output, again.output)
        assert room.listed(source) == there_after(source), (at, first.output, again.output)
        owned = manifests_from(room.manifest.read_text(), "m")[0].owned
        settled = [(row[:3], None) for row in there_after(source)]
        assert sorted((entry.key, entry.sent) for entry in owned) == settled
    assert first.exit_code == 0
    # Two or three reads, another before new monitors are made, four writes, and the reading back.
    assert at == (7 if saved else 8)


def test_the_plan_that_was_confirmed_is_carried_out(
    shared: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal it is shown, asked about, and refused where a person edits the platform meanwhile."""
    source = f"dev-{CASES - 1}"
    room = case_of(shared, tmp_path, source)
    edited = {"source_id": source, "metric": "t.zscore", "threshold": {"max": 9}}
    with pytest.raises(UnsafePlanError, match=r"threshold dev-19 t\.zscore was edited \(max 3 -> 9"):
        answered(room, monkeypatch, "y", lambda: room.ask("POST", json=edited))
    assert "~ change threshold dev-19 t.zscore\n    max: 3 -> 4" in capsys.readouterr().out
    before_it = room.listed(source)
    assert (source, "t.zscore", "threshold", 9) in before_it
    with pytest.raises(click.Abort):
        answered(room, monkeypatch, "n", lambda: None, "--force")
    assert room.listed(source) == before_it
    with pytest.raises(SystemExit, match=r"^0$"):
        answered(room, monkeypatch, "y", lambda: None, "--force")
    assert room.listed(source) == there_after(source)
    with pytest.raises(SystemExit, match=r"^0$"):
        answered(room, monkeypatch, "?", pytest.fail)
    room.wish(before(source))
    with pytest.raises(SystemExit, match=r"^0$"):
        answered(room, monkeypatch, "?", pytest.fail, "--yes", "--jitter", "1h")


class Person(io.StringIO):
    """Somebody at a terminal who does something before each answer."""

    def __init__(self, answer: str, first: Callable[[], object]) -> None:
        super().__init__()
        self._answer, self._first = answer, first

    def isatty(self) -> bool:
        """Yes."""
        return True

    def readline(self, size: int | None = -1) -> str:
        """The answer."""
        self._first()
        return f"{self._answer}\n"


def answered(
    room: Room, monkeypatch: pytest.MonkeyPatch, answer: str, first: Callable[[], object], *options: str
) -> None:
    """``monitors apply`` on a terminal."""
    monkeypatch.setattr(sys, "stdin", Person(answer, first))
    for name, value in room.env.items():
        monkeypatch.setenv(name, value)
    cli.main(["monitors", "apply", *options], standalone_mode=False)


# ---- one room each -----------------------------------------------------------------------------------------


@pytest.fixture(name="room")
def _room(tmp_path: Path) -> Iterator[Room]:
    with rooms(tmp_path, {"dev-1": ("t",), "dev-2": ("t",)}) as room:
        yield room


def test_what_is_changed_is_kept_before(room: Room) -> None:
    """Every run that does something writes a backup, also one that makes new monitors alone, since undo takes
    the newest for the last run; one that does nothing writes none."""
    room.wish(before("dev-1"))
    assert room.run("apply").exit_code == 0
    backups = Backups(room.manifest, "plexus-detect", room.box.url)
    assert [entry.before for entry in backups.newest()[1].monitors] == [None, None]
    room.wish(after("dev-1"))
    assert room.run("apply").exit_code == 0
    (_, backup) = backups.newest()
    change, create, swap = backup.monitors
    assert [entry.action for entry in backup.monitors] == ["change", "create", "replace"]
    assert (change.before and change.before.settings["max"], create.before) == (3, None)
    assert swap.before is not None
    assert swap.before.settings["timeout_seconds"] == 300
    assert room.run("apply").exit_code == 0
    assert len(backups.files()) == 2


def test_where_no_backup_can_be_written_nothing_is_changed(room: Room) -> None:
    """Exit 2, and the platform is as it was."""
    room.wish(before("dev-1"))
    room.run("apply")
    (room.folder / "m.backups").rename(room.folder / "away")
    (room.folder / "m.backups").write_text("in the way")
    room.wish(after("dev-1"))
    as_it_was = room.listed()
    assert "no backup can be written there" in sentence(room.run("apply"), 2)
    assert room.listed() == as_it_was


def test_each_monitor_is_reported_and_the_others_go_on(room: Room) -> None:
    """One that fails is named with what the platform said; exit 1."""
    room.wish(before("dev-1"))
    room.front.at = 3
    done = room.run("apply")
    assert done.exit_code == 1
    assert [line[:40] for line in done.output.splitlines()] == [
        "failed: create threshold dev-1 t.zscore:",
        "created offline dev-1",
    ]


def test_an_empty_folder_is_no_wish(room: Room) -> None:
    """Exit 2, also where there is nothing but a saved plan in it."""
    room.wish([])
    assert "no monitor in it" in sentence(room.run("apply"), 2)
    room.wish(before("dev-1"))
    plan = room.folder / "monitors" / "plan.json"
    assert room.run("plan", "-o", str(plan)).exit_code == 0
    assert room.run("plan").exit_code == 0
    (room.folder / "monitors" / "a.json").unlink()
    assert "no monitor in it" in sentence(room.run("apply"), 2)


def test_a_partial_list_doubles_nothing(room: Room) -> None:
    """Neither a new offline monitor nor the one that takes another's place is posted twice."""
    room.wish(before("dev-1"))
    room.run("apply")
    room.front.hidden, room.front.hide_reads = ("dev-1",), 1
    assert "kept offline dev-1: it exists by now" in room.run("apply").output
    assert [row[2] for row in room.listed()].count("offline") == 1
    room.wish(after("dev-1"))
    plan = str(room.folder / "p.json")
    room.run("plan", "-o", plan)
    room.front.hide_reads = 1
    assert room.run("apply", plan).exit_code == 0
    assert room.listed() == there_after("dev-1")


def test_a_thousand_monitors(tmp_path: Path) -> None:
    """Applied and planned again in under ten seconds of processor time, the platform's share included; that
    plan reads the monitors once. (Of processor time, since other tests run beside this one.)"""
    metrics = [f"m{i}" for i in range(10)]
    with rooms(tmp_path, {f"dev-{i}": metrics for i in range(100)}) as room:
        room.wish([{"source_id": "*", "metric": f"{m}.zscore", "threshold": {"max": 3}} for m in metrics])
        began_s = time.process_time()
        applied = room.run("apply")
        assert (applied.exit_code, len(applied.output.splitlines())) == (0, 1000)
        # Before it, after it, and one request for each.
        assert room.front.calls.count(("GET", "/api/monitors")) == 2
        assert room.front.calls.count(("POST", "/api/monitors")) == 1000
        room.front.calls.clear()
        planned = room.run("plan", "--detailed-exitcode")
        assert time.process_time() - began_s < 10
        assert planned.output.splitlines()[-1] == "plan: 0 to create, 0 to change, 1000 to keep"
        assert room.front.calls.count(("GET", "/api/monitors")) == 1
        assert planned.exit_code == 0


class Naps:
    """Sleeps that take no time."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def sleep_s(self, s: float) -> None:
        """Note it."""
        self.taken.append(s)


def test_jitter(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random wait up to what is said, before anything is asked of the platform; none where none is said."""
    naps = Naps()
    monkeypatch.setattr(clock, "sleep_s", naps.sleep_s)
    room.wish(before("dev-1"))
    for _ in range(2):
        assert room.run("apply", "--jitter", "60s").exit_code == 0
    first, second = naps.taken
    assert 0 <= min(naps.taken) <= max(naps.taken) <= 60
    assert first != second
    room.run("apply")
    assert len(naps.taken) == 2
    assert len(manifests_from(room.manifest.read_text(), "m")[0].owned) == 2
    assert "is not a duration" in room.run("apply", "--jitter", "soon").output
