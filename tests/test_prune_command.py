"""prune, undo and import as commands, against the sandbox: what they ask, say, end with and send."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from click.testing import CliRunner, Result
from subprocess_worker import environment

from plexus_detect.cli import cli
from plexus_detect.errors import BusyError, PlexusDetectError
from plexus_detect.sandbox import SLACK_TARGET, Sandbox
from plexus_detect.store.lock import FileLock

CERTIFICATE = Path(__file__).parent / "fixtures" / "self_signed.pem"
FLEET = ("room-1", "room-2", "room-3")
ALL = [
    {"source_id": "room-*", "metric": "t.zscore", "threshold": {"max": 3, "message": "hot"}},
    {"source_id": "room-*", "offline": {"timeout_seconds": 600}, "notification_targets": [SLACK_TARGET]},
]
ONE = [document | {"source_id": "room-1"} for document in ALL]
THEIRS: list[dict[str, Any]] = [
    {
        "source_id": "room-1",
        "metric": "humidity",
        "threshold": {"max": 80.5, "severity": "critical"},
        "event": {"message": "wet"},
        "notification_targets": [SLACK_TARGET],
    },
    {"source_id": "room-2", "metric": "t.zscore", "event": {"severity": "critical"}},
    {"source_id": "room-3", "offline": {"timeout_seconds": 60}},
    {"source_id": "room-2", "metric": "x", "threshold": {"max": 1, "message": "hot [fleet-b:12345678]"}},
]


@pytest.fixture(scope="module", name="box")
def _box() -> Iterator[Sandbox]:
    """One platform for the module; each test deletes what it leaves there."""
    with Sandbox() as box:
        now = time.time_ns() // 1_000_000
        box.load((slug, "t", now, 1.0) for slug in FLEET)
        yield box


class Room:
    """A folder with documents and what the commands keep, and the commands run in it."""

    def __init__(self, box: Sandbox, folder: Path) -> None:
        self.box, self.folder = box, folder
        self.documents = folder / "monitors"
        self.documents.mkdir()
        self._http = httpx.Client(headers={"x-api-key": box.key}, verify=False, trust_env=False)
        self._env = environment(
            box.url,
            box.key,
            monitors__path=str(self.documents),
            monitors__manifest=str(folder / "m.json"),
            heartbeat__enabled="false",
            # One certificate: reading all that the machine trusts takes half the time of a command.
            plexus__ca_file=str(CERTIFICATE),
        )

    def wish(self, documents: list[dict[str, Any]]) -> None:
        """Write the documents."""
        (self.documents / "a.json").write_text(json.dumps(documents))

    def run(self, *arguments: str, given: str | None = None, **env: str) -> Result:
        """One command of the group."""
        return CliRunner().invoke(cli, ["monitors", *arguments], env={**self._env, **env}, input=given)

    def done(self, *arguments: str, code: int = 0, given: str | None = None) -> list[str]:
        """The lines of a command that ends with a code."""
        result = self.run(*arguments, given=given)
        assert result.exit_code == code, (result.output, result.exception)
        return result.output.splitlines()

    def refused(self, *arguments: str, code: int, **env: str) -> str:
        """The sentence of a command that ends with an error of ours."""
        error = self.run(*arguments, **env).exception
        assert isinstance(error, PlexusDetectError), error
        assert error.exit_code == code
        return str(error)

    def ask(self, method: str, **more: Any) -> Any:
        """A request of somebody else."""
        return self._http.request(method, f"{self.box.url}/api/monitors", **more).json()

    def close(self) -> None:
        """Delete what is there."""
        for row in self.ask("GET")["monitors"]:
            params = {"source_id": row["source_slug"], "metric": row["metric"]}
            self.ask("DELETE", params={"offline_id": row["offline"]["id"]} if row["offline"] else params)
        self._http.close()

    def listed(self) -> list[str]:
        """What the platform has, up to ids, in one order."""
        shown = []
        for row in self.ask("GET")["monitors"]:
            for part in ("threshold", "event", "offline"):
                if row[part] is not None:
                    fields = {k: v for k, v in row[part].items() if k != "id" and v is not None}
                    shown.append(f"{part} {row['source_slug']} {row['metric']} {json.dumps(fields)}")
        return sorted(shown)


@pytest.fixture(name="room")
def _room(box: Sandbox, tmp_path: Path) -> Iterator[Room]:
    """Six monitors of ours, of which two are still wanted, and five of others."""
    room = Room(box, tmp_path)
    room.wish(ALL)
    room.done("apply")
    for body in THEIRS:
        room.ask("POST", json=body)
    room.ask("GET")  # What came before on this connection is counted by then.
    box.requests.clear()
    yield room
    room.close()


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands find one."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)


def test_prune_and_undo(room: Room) -> None:
    """Ours go but the one on whose pair an event of somebody else hangs; undo brings them back, targets and
    all. No request to delete is ever without a metric or an id."""
    before = room.listed()
    room.wish(ONE)
    shown = room.done("prune", "--dry-run", code=1)
    assert shown[-1] == "plan: 0 to create, 0 to change, 2 to keep, 3 to delete, 1 for a person"
    assert room.listed() == before
    said = room.done("prune", "--yes", code=1)
    assert "only together with the event monitor of the same metric" in said[0]
    assert sorted(said[1:]) == [
        "deleted offline room-2",
        "deleted offline room-3",
        "deleted threshold room-3 t.zscore",
    ]
    left = room.listed()
    assert len(left) == len(before) - 3
    assert any(line.startswith("event room-2 t.zscore") for line in left)
    deletes = [parse_qs(r.query) for r in room.box.requests.log if r.method == "DELETE"]
    assert len(deletes) == 3
    assert all(query.get("metric") or query.get("offline_id") for query in deletes)
    said = room.done("undo", "--yes")
    assert said[-1].startswith("all is as it was before prune of ")
    assert "created offline room-2" in said
    assert room.listed() == before
    room.wish(ALL)
    assert room.done("apply") == []


def test_without_a_terminal_both_need_yes(room: Room) -> None:
    """They delete; and limits are exit 5, from the option or the configuration."""
    room.wish(ONE)
    assert "without a terminal it needs --yes, or --dry-run" in room.refused("prune", code=2)
    assert "without a terminal it needs --yes" in room.refused("undo", code=2)
    assert "--max-deletes 3 (monitors.prune_max)" in room.refused(
        "prune", "--yes", "--max-deletes", "2", code=5
    )
    assert [r for r in room.box.requests.log if r.method != "GET"] == []


def test_another_run_at_work_is_waited_for_or_named(room: Room) -> None:
    """All three hold the lock of the monitors while they write: exit 75."""
    room.wish(ONE)
    lock = FileLock(str(room.folder / "m.json"), lambda path: BusyError(path))
    try:
        for command in (["prune", "--yes"], ["undo", "--yes"], ["import", str(room.documents / "b.json")]):
            assert "another run is at work" in room.refused(*command, code=75)
    finally:
        lock.close()
    assert not (room.documents / "b.json").exists()
    assert [r for r in room.box.requests.log if r.method != "GET"] == []


def test_on_a_terminal_they_ask(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown is done, and nothing without a yes."""
    on_a_terminal(monkeypatch)
    before = room.listed()
    room.wish(ONE)
    assert "- delete offline room-2 (no document wants it)" in room.done("prune", code=1, given="n\n")
    assert room.listed() == before
    room.done("prune", code=1, given="y\n")
    assert len(room.listed()) == len(before) - 3
    assert "+ create offline room-2: " in "\n".join(room.done("undo", code=1, given="n\n"))
    room.done("undo", given="y\n")
    assert room.listed() == before
    assert room.done("prune", given="", code=1)[-1].startswith("Delete these monitors?")


def test_a_saved_plan_with_deletes(room: Room) -> None:
    """It is held to the limits when made and when carried out, keeps a backup and can be undone."""
    few = {"PLEXUS_DETECT_MONITORS__PRUNE_MAX": "2"}
    room.wish(ONE)
    room.ask("DELETE", params={"source_id": "room-2", "metric": "t.zscore"})
    before, saved = room.listed(), str(room.folder / "saved")
    plan = ("plan", "--prune", "--days", "0", "-o", saved)
    assert "3 monitors would be deleted, more than the 2" in room.refused(*plan, code=5, **few)
    assert not Path(saved).exists()
    assert "3 to delete" in room.done(*plan)[-1]
    assert "3 monitors would be deleted" in room.refused("apply", saved, code=5, **few)
    assert room.listed() == before
    assert len(room.done("apply", saved)) == 3
    assert len(room.listed()) == len(before) - 3
    room.done("undo", "--yes")
    assert room.listed() == before


def test_import(room: Room) -> None:
    """What is nobody's becomes a document that asks for nothing, and is ours from then on; the rest is
    named."""
    file = room.documents / "b.json"
    said = room.done("import", str(file))
    assert said[0].startswith("! event room-2 t.zscore: ")
    assert '"event": {"severity": "critical", "enabled": true, "delivery": "digest"}' in said[0]
    assert said[1] == "  of other owners: 1, left alone"
    assert said[2:] == ["imported threshold room-1 humidity", "imported event room-1 humidity"]
    (body,) = json.loads(file.read_text())
    assert body == {
        "source_id": "room-1",
        "metric": "humidity",
        "threshold": {"max": 80.5, "severity": "critical"},
        "event": {"severity": "info", "message": "wet", "enabled": True, "delivery": "digest"},
        "notification_targets": [SLACK_TARGET],
    }
    assert room.done("plan", "--detailed-exitcode")[-1] == "plan: 0 to create, 0 to change, 8 to keep"
    assert [r for r in room.box.requests.log if r.method != "GET"] == []
    assert room.done("import", str(room.documents / "c.json"))[-1] == "nothing to import"
    assert not (room.documents / "c.json").exists()
    file.write_text(json.dumps([body | {"threshold": {"max": 90}}]))
    assert room.done("apply") == ["changed threshold room-1 humidity"]


def test_import_with_globs_and_drift(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the globs reach, and after a yes; what was edited on the platform is shown as a body."""
    on_a_terminal(monkeypatch)
    room.ask("POST", json=ALL[0] | {"source_id": "room-1", "threshold": {"max": 9}})
    file = room.folder / "b.json"
    assert room.done("import", str(file), "--source", "room-3") == ["nothing to import"]
    said = room.done("import", str(file), "--metric", "*", "--source", "room-1", code=1, given="n\n")
    assert said[0].startswith(f"! threshold room-1 t.zscore is not as {room.documents / 'a.json'}#/0 says")
    assert said[0].endswith('"threshold": {"max": 9, "severity": "warning"}}')
    assert not file.exists()
    said = room.done("import", str(file), "--metric", "hum*", "--yes")
    assert said[-1].startswith("note: monitors.path is ")
    assert file.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.json", "exists already"), ("x/b.json", "no such folder"), ("b.yaml", "ends in .json")],
)
def test_import_never_overwrites(room: Room, name: str, words: str) -> None:
    """Nor makes a folder, nor writes what would not be read."""
    assert words in room.refused("import", str(room.documents / name), code=2)
