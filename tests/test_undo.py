"""Undo: the monitors of a run as they were before it, but what a person edited since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeMonitorApi
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from prune_fleet import FLEET, SLACK, Deployment, body_of, documents_of, listed, places

from plexus_detect.errors import ConfigError, TransientError

FORMER: list[dict[str, Any]] = [
    {"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 3, "message": "hot"}},
    {"source_id": "dev-1", "metric": "humidity", "event": {"message": "look"}},
    {"source_id": "dev-2", "offline": {"timeout_seconds": 600}, "notification_targets": [SLACK]},
]
LATER: list[dict[str, Any]] = [
    {"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 4}, "notification_targets": [SLACK]},
    {"source_id": "dev-1", "metric": "humidity", "event": {"severity": "critical"}},
    {"source_id": "dev-2", "offline": {"timeout_seconds": 60}},
    {"source_id": "dev-3", "metric": "humidity", "threshold": {"max": 90}},
    {"source_id": "dev-3", "offline": {}},
]


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path) -> Deployment:
    """Three monitors of ours, changed, and two more, by a second run."""
    return changed(tmp_path)


def changed(folder: Path) -> Deployment:
    fleet = Deployment(folder, FakeMonitorApi(FLEET))
    assert fleet.apply(FORMER).ok
    assert fleet.apply(LATER).ok
    fleet.api.calls.clear()
    fleet.said.clear()
    return fleet


def before(tmp_path_factory: pytest.TempPathFactory) -> Any:
    fleet = Deployment(tmp_path_factory.mktemp("before"), FakeMonitorApi(FLEET))
    fleet.apply(FORMER)
    return listed(fleet.api, marks=False)


def test_a_run_is_undone(fleet: Deployment, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Settings and targets are back, what was made is gone, and the backup is put aside."""
    path, backup = fleet.backups.newest()
    assert fleet.undo()
    assert listed(fleet.api, marks=False) == before(tmp_path_factory)
    assert fleet.said[-1] == f"all is as it was before apply of {backup.made}"
    assert not path.exists()
    assert path.with_name(path.name + ".undone").exists()
    assert fleet.backups.newest()[1].monitors[0].action == "create"
    assert not list(fleet.backups.folder.glob("*.undoing"))


def test_what_is_set_back_stays(fleet: Deployment) -> None:
    """The next apply names it as edited, since the documents say otherwise, and changes it only when forced.
    What was deleted is still wanted and made again."""
    fleet.undo()
    plan = fleet.plan(LATER, prune=False)
    assert sorted(change.action for change in plan.work) == ["create", "create"]
    assert [problem.kind for problem in plan.problems] == ["drift"] * 3
    forced = fleet.plan(LATER, prune=False, force=True)
    assert len(forced.work) == 5
    assert fleet.plan(FORMER).empty
    assert fleet.apply(FORMER).ok
    assert len(fleet.plan(LATER, prune=False).work) == 5


def test_what_was_edited_since_is_left(fleet: Deployment) -> None:
    """It is named, the rest is set back, the backup stays, and --force sets it back as well."""
    fleet.api.pairs["dev-1", "t.zscore", "threshold"]["max"] = 9
    fleet.api.pairs["dev-3", "humidity", "threshold"]["severity"] = "critical"
    path, _ = fleet.backups.newest()
    assert not fleet.undo()
    assert fleet.api.pairs["dev-1", "t.zscore", "threshold"]["max"] == 9
    assert ("dev-3", "humidity", "threshold") in fleet.api.pairs
    assert ("dev-3", "", "offline") not in listed(fleet.api)
    assert any("threshold dev-1 t.zscore: it was edited on the platform since" in line for line in fleet.said)
    assert path.exists()
    assert fleet.undo(force=True)
    assert fleet.api.pairs["dev-1", "t.zscore", "threshold"]["max"] == 3.0
    assert ("dev-3", "humidity", "threshold") not in fleet.api.pairs


def test_what_is_gone_since_is_left(fleet: Deployment) -> None:
    """Somebody deleted it for a reason."""
    del fleet.api.pairs["dev-1", "t.zscore", "threshold"]
    fleet.api.offline = [entry for entry in fleet.api.offline if entry[0] != "dev-2"]
    assert not fleet.undo()
    assert ("dev-1", "t.zscore", "threshold") not in fleet.api.pairs
    assert ("dev-2", "", "offline") not in listed(fleet.api)
    assert fleet.undo(force=True)
    assert ("dev-2", "", "offline") in listed(fleet.api)


def test_a_created_one_on_which_another_hangs_is_left(fleet: Deployment) -> None:
    """The platform would delete the event of somebody else along with it."""
    fleet.post({"source_id": "dev-3", "metric": "humidity", "event": {}})
    assert not fleet.undo()
    assert ("dev-3", "humidity", "threshold") in fleet.api.pairs
    assert ("dev-3", "humidity", "event") in fleet.api.pairs


def test_an_edit_that_was_overwritten_by_force_is_drift_again(tmp_path: Path) -> None:
    """Undo brings a person's edit back, and with it the protection that it had."""
    fleet = Deployment(tmp_path, FakeMonitorApi(FLEET))
    fleet.apply(FORMER)
    for key in (("dev-1", "t.zscore", "threshold"), ("dev-1", "humidity", "event")):
        fleet.api.pairs[key]["severity"] = "critical"
    fleet.apply(FORMER, force=True)
    assert fleet.undo()
    plan = fleet.plan(FORMER)
    assert (plan.work, [problem.kind for problem in plan.problems]) == ((), ["drift"] * 2)


def test_a_second_undo_takes_the_run_before(fleet: Deployment) -> None:
    """Not the undo itself; and with no run left it says so."""
    assert fleet.undo()
    assert fleet.undo()
    assert listed(fleet.api) == {}
    assert fleet.file.load().owned == ()
    with pytest.raises(ConfigError, match="no backup there"):
        fleet.undo()


def test_targets_of_an_offline_monitor_are_set_back(tmp_path: Path) -> None:
    """By its id; one that is gone since is left."""
    document = {"source_id": "dev-1", "offline": {}, "notification_targets": None}
    for gone in (False, True):
        (tmp_path / str(gone)).mkdir()
        fleet = Deployment(tmp_path / str(gone), FakeMonitorApi(FLEET))
        fleet.apply([document])
        fleet.apply([document | {"notification_targets": [SLACK]}])
        if gone:
            fleet.api.offline.clear()
        assert fleet.undo() is not gone
        assert [fields["notification_target_ids"] for _, fields in fleet.api.offline] == [None] * (not gone)


def test_what_is_back_already_is_not_sent_again(fleet: Deployment) -> None:
    """Somebody set it back by hand: no request, and the backup is put aside all the same."""
    path, _ = fleet.backups.newest()
    assert fleet.undo()
    path.with_name(path.name + ".undone").rename(path)
    fleet.api.calls.clear()
    assert fleet.undo()
    assert (fleet.api.writes(), path.exists()) == ([], False)


def test_a_partial_list_makes_nothing_twice(fleet: Deployment) -> None:
    """Nor is a monitor that one reading leaves out taken for gone."""
    fleet.api.hidden, fleet.api.hide_reads = {("dev-1", "t.zscore"), ("dev-2", ""), ("dev-3", "")}, 1
    assert fleet.undo()
    assert sorted(listed(fleet.api)) == sorted(
        [("dev-1", "t.zscore", "threshold"), ("dev-1", "humidity", "event"), ("dev-2", "", "offline")]
    )
    assert len(fleet.api.offline) == 1


def test_notes_of_a_former_attempt_that_cannot_be_read_are_said(fleet: Deployment) -> None:
    """Without them an offline monitor could be made twice."""
    path, _ = fleet.backups.newest()
    path.with_name(path.name + ".undoing").write_text("{")
    with pytest.raises(ConfigError, match="see by hand which offline monitors are back"):
        fleet.undo()
    assert fleet.api.writes() == []


@pytest.mark.parametrize("lost", [False, True])
def test_failure_at_every_request_then_rerun(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, lost: bool
) -> None:
    """Whichever request fails or loses its answer, undo again ends as one that went well, nothing twice."""
    wish, at = before(tmp_path_factory), 0
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        fleet = changed(folder)
        path, _ = fleet.backups.newest()
        fleet.api.fail_at, fleet.api.fail_after = at, lost
        try:
            fleet.undo()
        except TransientError:
            assert fleet.api.calls[at][0] == "GET"
        if len(fleet.api.calls) <= at:
            break
        fleet.api.fail_at = None
        if path.exists():
            assert fleet.undo()
        assert listed(fleet.api, marks=False) == wish
        assert {e.key for e in fleet.file.load().owned} == set(wish)
        assert len(fleet.plan(LATER, prune=False).problems) == 3
        at += 1
    assert at > 9


@examples(900)
@given(
    theirs=st.lists(places, max_size=3),
    former=st.lists(places, min_size=1, max_size=4),
    later=st.lists(places, min_size=1, max_size=4),
    force=st.booleans(),
)
def test_undo_of_an_apply_restores_the_list(
    tmp_path_factory: pytest.TempPathFactory, theirs: Any, former: Any, later: Any, force: bool
) -> None:
    """From any state of the platform, after any apply: the list is as before, up to ids and marks; but the
    platform cannot delete a new threshold without the event that was there, nor the other way round."""
    fleet = Deployment(tmp_path_factory.mktemp("law"), FakeMonitorApi(FLEET))
    for place in theirs:
        fleet.post(body_of(place))
    fleet.apply(documents_of(former))
    was = listed(fleet.api, marks=False)
    runs = len(fleet.backups.files())
    fleet.apply(documents_of(later), force=force)
    if len(fleet.backups.files()) == runs:  # There was nothing to do.
        assert listed(fleet.api, marks=False) == was
        return
    done, now = fleet.undo(), listed(fleet.api, marks=False)
    hanging = {key for key in now if key not in was}
    assert {key: now[key] for key in now if key not in hanging} == was
    assert done is not bool(hanging), fleet.said
    for source, metric, part in hanging:  # A new one on the pair of one that was there before.
        assert any((source, metric) == key[:2] for key in was)
        assert any(f"{part} {source} {metric}: the platform deletes it only" in line for line in fleet.said)
