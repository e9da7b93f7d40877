"""Saved plans: what was shown is what is carried out, or nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeMonitorApi
from hypothesis import given
from hypothesis import strategies as st
from monitor_commands import Room, rooms, sentence
from profiles import examples

from plexus_detect import monitors
from plexus_detect.errors import ConfigError, UnsafePlanError
from plexus_detect.monitors import Existing, Ownership, Plan
from plexus_detect.monitors.freshness import missing, still_to_do
from plexus_detect.monitors.savedplan import SavedPlan, saved, saved_from
from plexus_detect.provision.applying import apply_plan
from plexus_detect.provision.backups import Backups
from plexus_detect.provision.ledger import FileLedger
from plexus_detect.provision.manifestfile import ManifestFile
from plexus_detect.provision.reading import existing_monitors, make_plan, rechecked

OWNER, APP = "plexus-detect", "https://app"
SLACK = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"
FLEET = {"dev-1": ("t",), "dev-2": ("t",)}
WISH: list[dict[str, Any]] = [
    {"source_id": "dev-*", "metric": "t.zscore", "threshold": {"max": 3}},
    {"source_id": "dev-1", "metric": "t.anomaly", "event": {"message": "look"}},
    {"source_id": "dev-1", "offline": {"timeout_seconds": 600}, "notification_targets": [SLACK]},
]
EARLIER: list[dict[str, Any]] = [
    {"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 2}},
    {"source_id": "dev-2", "metric": "t.zscore", "threshold": {"max": 3}},
    {"source_id": "dev-2", "metric": "old", "threshold": {"max": 3}},
    {"source_id": "dev-1", "offline": {}},
    {"source_id": "dev-2", "offline": {}},
]


def ledger(folder: Path) -> FileLedger:
    path = folder / "m.json"
    return FileLedger(ManifestFile(path, OWNER, APP), Backups(path, OWNER, APP), "apply")


def wished(
    api: FakeMonitorApi, folder: Path, wish: Sequence[dict[str, Any]] = WISH, *, prune: bool = False
) -> Plan:
    ours = ledger(folder).ownership(mark=True, overwrite=False)
    return asyncio.run(
        make_plan(api, monitors.parse(json.dumps(list(wish)), "m.json"), ownership=ours, prune=prune)
    )


def carried_out(api: FakeMonitorApi, plan: Plan, folder: Path) -> list[str]:
    """What the run of a plan says, after the check."""
    said: list[str] = []

    async def run() -> None:
        book = ledger(folder)
        left = await rechecked(api, plan, book.ownership(mark=True, overwrite=False))
        result = await apply_plan(api, left, said.append, ledger=book)
        assert result.ok

    asyncio.run(run())
    return said


def with_past(folder: Path) -> FakeMonitorApi:
    """A platform that has what an earlier run of ours applied."""
    api = FakeMonitorApi(FLEET)
    carried_out(api, wished(api, folder, EARLIER), folder)
    return api


def filed(plan: Plan) -> str:
    return saved(plan, APP, made="2026-11-28T00:00:00Z", program="1").to_json()


def opened(text: str, owner: str = OWNER, endpoint: str = APP) -> SavedPlan:
    return saved_from(text, "p.json", owner=owner, endpoint=endpoint)


# ---- the file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [False, True])
def test_a_plan_comes_back_as_it_was_saved(tmp_path: Path, prune: bool) -> None:
    """Every change, also targets and deletes; only what is ours is left to the manifest."""
    api = with_past(tmp_path)
    plan = wished(api, tmp_path, [*WISH, {"source_id": "nope", "offline": {}}], prune=prune)
    assert {change.action for change in (*plan.changes, *plan.stale)} == {
        "create",
        "change",
        "replace",
        "delete",
    }
    again = opened(filed(plan)).plan()
    assert again == replace(plan, ownership=again.ownership)
    assert again.ownership == replace(plan.ownership, owned=())
    assert monitors.render(again) == monitors.render(plan)
    assert filed(again) == filed(plan)


@examples(300)
@given(
    at=st.integers(0, 10**6), junk=st.sampled_from(["0", "9", '"', "x", "}", "]", "null", "", "\\", "\ud800"])
)
def test_a_damaged_plan_is_one_sentence(at: int, junk: str) -> None:
    """Whichever character is lost or replaced; what still says the same may be used."""
    api = FakeMonitorApi(FLEET)
    plan = asyncio.run(make_plan(api, monitors.parse(json.dumps(WISH), "m.json")))
    text = filed(plan)
    at %= len(text)
    spoiled = text[:at] + junk + text[at + 1 :]
    if says_the_same(spoiled, text):
        assert opened(spoiled).to_json() == text
    else:
        with pytest.raises(ConfigError, match=r"^p\.json: .*$"):
            opened(spoiled)


def says_the_same(spoiled: str, text: str) -> bool:
    """Whether it is JSON of the same values."""
    try:
        return repr(json.loads(spoiled)) == repr(json.loads(text))
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plexus_detect_plan": 2}, "a plan of version 2, which this program does not know"),
        ({"owner": "b"}, "was damaged or edited"),
        ({"changes": []}, "was damaged or edited"),
        ({"extra": 1}, "was damaged or edited"),
        ({"plexus_detect_plan": "1"}, "no plan of monitors"),
    ],
)
def test_an_edited_plan_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """Nobody has seen that plan."""
    told = json.loads(filed(wished(FakeMonitorApi(FLEET), tmp_path)))
    with pytest.raises(ConfigError, match=words):
        opened(json.dumps(told | change))
    assert opened(json.dumps(dict(reversed(told.items()))))  # another order says the same


def test_a_plan_for_another_is_refused(tmp_path: Path) -> None:
    """Another owner's, or for another platform."""
    text = filed(wished(FakeMonitorApi(FLEET), tmp_path))
    with pytest.raises(
        ConfigError, match="this plan is for owner 'plexus-detect', not for 'b'; make a new one"
    ):
        opened(text, owner="b")
    with pytest.raises(ConfigError, match="is for platform 'https://app', not for 'https://b'"):
        opened(text, endpoint="https://b")


# ---- whether it still fits ---------------------------------------------------------------------------------


def now(api: FakeMonitorApi) -> tuple[Existing, ...]:
    return asyncio.run(existing_monitors(api))


def edit_threshold(api: FakeMonitorApi) -> None:
    api.pairs["dev-1", "t.zscore", "threshold"]["max"] = 9


def edit_kept(api: FakeMonitorApi) -> None:
    api.pairs["dev-2", "t.zscore", "threshold"]["severity"] = "critical"


def edit_targets(api: FakeMonitorApi) -> None:
    api.pairs["dev-2", "t.zscore", "threshold"]["notification_target_ids"] = [SLACK]


def take_the_mark(api: FakeMonitorApi) -> None:
    api.pairs["dev-2", "t.zscore", "threshold"]["message"] = None


def delete_kept(api: FakeMonitorApi) -> None:
    del api.pairs["dev-2", "t.zscore", "threshold"]


def delete_replaced(api: FakeMonitorApi) -> None:
    api.offline = [entry for entry in api.offline if entry[0] != "dev-1"]


def add_offline(api: FakeMonitorApi) -> None:
    asyncio.run(api.create_monitor({"source_id": "dev-1", "offline": {"timeout_seconds": 5}}))


def add_event(api: FakeMonitorApi) -> None:
    event = {"severity": "critical", "enabled": True}
    asyncio.run(api.create_monitor({"source_id": "dev-1", "metric": "t.anomaly", "event": event}))


def add_beside_a_deleted_one(api: FakeMonitorApi) -> None:
    asyncio.run(api.create_monitor({"source_id": "dev-2", "metric": "old", "event": {}}))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (edit_threshold, r"threshold dev-1 t\.zscore was edited \(max 2 -> 9\)"),
        (edit_kept, r'threshold dev-2 t\.zscore was edited \(severity "warning" -> "critical"\)'),
        (edit_targets, r"threshold dev-2 t\.zscore was edited \(targets none -> \["),
        (take_the_mark, r"threshold dev-2 t\.zscore was marked by somebody else"),
        (delete_kept, r"threshold dev-2 t\.zscore is gone"),
        (delete_replaced, "offline dev-1 is gone"),
        (add_offline, "offline dev-1 exists by now"),
        (add_event, r"event dev-1 t\.anomaly exists by now"),
        (add_beside_a_deleted_one, r"threshold dev-2 old may not be touched any more"),
    ],
)
def test_whatever_somebody_did_meanwhile_is_named(tmp_path: Path, act: Any, words: str) -> None:
    """Nothing is sent, and what moved is said."""
    api = with_past(tmp_path)
    plan = wished(api, tmp_path, prune=True)
    act(api)
    sent = len(api.writes())
    with pytest.raises(
        UnsafePlanError, match=f"^the plan no longer fits, nothing was changed: {words}.*; plan again"
    ):
        carried_out(api, plan, tmp_path)
    assert len(api.writes()) == sent


def test_a_manifest_that_moved_on_is_noticed(tmp_path: Path) -> None:
    """What is not ours any more is not touched."""
    api = with_past(tmp_path)
    plan = wished(api, tmp_path)
    with pytest.raises(UnsafePlanError, match="offline dev-1 may not be touched any more"):
        still_to_do(plan, now(api), Ownership())


def test_others_may_move(tmp_path: Path) -> None:
    """A monitor that is none of ours and that no document wants is nobody's business."""
    api = with_past(tmp_path)
    plan = wished(api, tmp_path)
    add = {"source_id": "dev-2", "metric": "own", "threshold": {"max": 1}}
    asyncio.run(api.create_monitor(add))
    assert carried_out(api, plan, tmp_path)


def test_many_that_moved_are_counted(tmp_path: Path) -> None:
    """The first few are named."""
    api = FakeMonitorApi({f"dev-{i}": ("t",) for i in range(9)})
    carried_out(api, wished(api, tmp_path, WISH[:1]), tmp_path)
    plan = wished(api, tmp_path, WISH[:1])
    api.pairs.clear()
    with pytest.raises(UnsafePlanError, match=r"dev-4 t\.zscore is gone and 4 more; plan again$"):
        carried_out(api, plan, tmp_path)


def test_a_partial_list_is_read_again(tmp_path: Path) -> None:
    """What the first list lacks the second may have; one list will do otherwise."""
    api = with_past(tmp_path)
    plan = wished(api, tmp_path, EARLIER)
    api.calls.clear()
    ours = ledger(tmp_path).ownership(mark=True, overwrite=False)
    assert asyncio.run(rechecked(api, plan, ours)).empty
    assert len(api.calls) == 1
    api.hidden, api.hide_reads = {("dev-2", "t.zscore")}, 1
    assert missing(plan, now(api))
    api.hide_reads = 1
    assert asyncio.run(rechecked(api, plan, ours)).empty
    assert len(api.calls) == 4


class Killed(BaseException):
    """The process is no more."""


@pytest.mark.parametrize("effect", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("saved_plan", [False, True], ids=["documents", "saved plan"])
def test_killed_at_every_request_then_a_rerun(tmp_path: Path, effect: bool, saved_plan: bool) -> None:
    """A run that dies between the manifest's two writings: the next ends with all there, once, and ours."""
    for at in range(99):
        folder = tmp_path / str(at)
        folder.mkdir()
        api = with_past(folder)
        plan = wished(api, folder)
        api.calls.clear()
        api.fail_at, api.fail_after, api.failure = at, effect, Killed()
        try:
            carried_out(api, plan, folder)
            break
        except Killed:
            api.fail_at = None
        carried_out(api, plan if saved_plan else wished(api, folder), folder)
        assert wished(api, folder).empty
        assert sorted(slug for slug, _ in api.offline) == ["dev-1", "dev-2"]
        assert not any(entry.sent for entry in ledger(folder).ownership(mark=True, overwrite=False).owned)
    assert at == 7


# ---- the commands ------------------------------------------------------------------------------------------


@pytest.fixture(name="room")
def _room(tmp_path: Path) -> Iterator[Room]:
    with rooms(tmp_path, {"dev-1": ("t",)}) as room:
        room.wish([{"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 3}}])
        yield room


def test_a_saved_plan_is_shown_without_a_request(room: Room) -> None:
    """As it was shown when it was made, with its exit codes; nobody else may read the file."""
    path = room.folder / "any.name"
    shown = room.run("plan", "-o", str(path), "--detailed-exitcode", "--days", "0")
    assert (shown.exit_code, path.stat().st_mode & 0o777) == (2, 0o600)
    assert room.box.key not in path.read_text()
    room.front.calls.clear()
    again = room.run("plan", str(path), "--detailed-exitcode")
    assert (again.exit_code, room.front.calls) == (2, [])
    head, *lines = again.output.splitlines()
    assert head.startswith("saved 20")
    assert lines == shown.output.splitlines()


def test_a_saved_plan_is_carried_out_once(room: Room) -> None:
    """Whatever the documents say by then; a second time there is nothing to do."""
    path = str(room.folder / "p.json")
    room.run("plan", "-o", path)
    (room.folder / "monitors" / "a.json").write_text("{")
    assert room.run("apply", path).output == "created threshold dev-1 t.zscore\n"
    assert room.listed() == [("dev-1", "t.zscore", "threshold", 3)]
    again = room.run("apply", path)
    assert (again.exit_code, again.output) == (0, "nothing to do: the plan was carried out already\n")


def test_an_edit_between_plan_and_apply_is_refused(room: Room) -> None:
    """Exit 5; the monitor is named and stays as the person left it."""
    room.run("apply")
    room.wish([{"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 4}}])
    path = str(room.folder / "p.json")
    room.run("plan", "-o", path)
    room.ask("POST", json={"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 9}})
    assert "threshold dev-1 t.zscore was edited (max 3 -> 9)" in sentence(room.run("apply", path), 5)
    assert room.listed() == [("dev-1", "t.zscore", "threshold", 9)]


def test_what_cannot_be_given_with_a_saved_plan(room: Room) -> None:
    """It holds one plan, made with or without --force; and it never takes the place of a document."""
    path = str(room.folder / "p.json")
    room.run("plan", "-o", path)
    for arguments in (("apply", path, "--force"), ("plan", path, "--force"), ("plan", path, "-o", path)):
        done = room.run(*arguments)
        assert done.exit_code == 2
        assert "cannot be given with the saved plan" in done.output
    document = room.folder / "monitors" / "a.json"
    assert "something else than a saved plan is there" in sentence(room.run("plan", "-o", str(document)), 2)
    assert "max" in document.read_text()
    assert "the plan cannot be written" in sentence(room.run("plan", "-o", str(room.folder / "no" / "p")), 2)
    Path(path).write_text(Path(path).read_text()[:-99])
    assert "no plan of monitors; it is damaged" in sentence(room.run("apply", path), 2)
