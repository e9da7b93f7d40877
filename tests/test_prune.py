"""Prune: what is deleted, what never is, and what a failure leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeMonitorApi
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from prune_fleet import FLEET, NO_LIMITS, SLACK, Deployment, body_of, documents_of, listed, places

from plexus_detect.errors import ConfigError, TransientError, UnsafePlanError
from plexus_detect.monitors.guard import Limits, require_safe

KEPT: list[dict[str, Any]] = [{"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 3}}]
GONE: list[dict[str, Any]] = [
    {"source_id": "dev-2", "metric": "t.zscore", "threshold": {"max": 3}, "event": {"message": "look"}},
    {"source_id": "dev-2", "offline": {"timeout_seconds": 600}},
    {"source_id": "dev-3", "metric": "humidity", "event": {}},
]
THEIRS: list[dict[str, Any]] = [
    {"source_id": "dev-2", "offline": {"timeout_seconds": 600}},
    {"source_id": "dev-3", "metric": "t", "threshold": {"max": 90}},
]


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path) -> Deployment:
    """Five monitors of ours, of which one is still wanted, and two of somebody else."""
    fleet = Deployment(tmp_path, FakeMonitorApi(FLEET))
    assert fleet.apply(KEPT + GONE).ok
    for body in THEIRS:
        fleet.post(body)
    fleet.api.calls.clear()
    fleet.said.clear()
    return fleet


# ---- what goes -------------------------------------------------------------------------------------------


def test_only_ours_and_only_the_unwanted_go(fleet: Deployment) -> None:
    """A line for each, a backup before the first, two readings before and two after."""
    assert fleet.prune(KEPT)
    assert sorted(fleet.said) == [
        "deleted event dev-2 t.zscore",
        "deleted event dev-3 humidity",
        "deleted offline dev-2",
        "deleted threshold dev-2 t.zscore",
    ]
    assert sorted(listed(fleet.api)) == [
        ("dev-1", "t.zscore", "threshold"),
        ("dev-2", "", "offline"),
        ("dev-3", "t", "threshold"),
    ]
    reads = [i for i, call in enumerate(fleet.api.calls) if call == ("GET", "/api/monitors")]
    first = next(i for i, call in enumerate(fleet.api.calls) if call[0] == "DELETE")
    last = max(i for i, call in enumerate(fleet.api.calls) if call[0] == "DELETE")
    assert (sum(i < first for i in reads), sum(i > last for i in reads)) == (2, 2)
    assert [e.key[0] for e in fleet.file.load().owned] == ["dev-1"]
    assert len(fleet.backups.newest()[1].monitors) == 4


def test_nothing_to_delete_writes_nothing(fleet: Deployment) -> None:
    """No line, no backup, no request but the reads."""
    before = fleet.backups.files()
    assert fleet.prune(KEPT + GONE)
    assert (fleet.said, fleet.api.writes(), fleet.backups.files()) == ([], [], before)


def test_an_event_of_somebody_else_on_the_pair_stays(fleet: Deployment) -> None:
    """And with it the threshold, which the platform deletes only together with it; a person is told."""
    fleet.post({"source_id": "dev-3", "metric": "humidity", "threshold": {"max": 1}})
    assert not fleet.prune(KEPT)
    assert ("dev-3", "humidity", "event") in listed(fleet.api)
    assert ("dev-3", "humidity", "threshold") in listed(fleet.api)
    assert any("only together with the threshold monitor" in line for line in fleet.said)


def test_an_event_that_one_reading_hides_is_seen_by_the_other(fleet: Deployment) -> None:
    """The list may be partial: the two readings before a delete count together."""
    fleet.post({"source_id": "dev-3", "metric": "humidity", "threshold": {"max": 1}})
    fleet.api.hidden, fleet.api.hide_reads = {("dev-3", "humidity")}, 1
    fleet.prune(KEPT)
    assert ("dev-3", "humidity", "event") in listed(fleet.api)


def test_targets_of_a_threshold_are_not_given_to_an_event_of_somebody_else(fleet: Deployment) -> None:
    """A PATCH would be about both; one that both documents want is patched."""
    fleet.post({"source_id": "dev-1", "metric": "t.zscore", "event": {}})
    assert fleet.apply([KEPT[0] | {"notification_targets": [SLACK]}]).ok
    assert fleet.api.pairs["dev-1", "t.zscore", "event"]["notification_target_ids"] is None
    assert fleet.api.pairs["dev-1", "t.zscore", "threshold"]["notification_target_ids"] == [SLACK]
    assert [method for method, _ in fleet.api.writes()] == ["POST", "POST"]
    assert fleet.apply([GONE[0] | {"notification_targets": [SLACK]}]).ok
    assert {method for method, _ in fleet.api.writes()[2:]} == {"PATCH"}


def test_an_edited_one_keeps_its_pair(fleet: Deployment) -> None:
    """Neither it nor what could be deleted only together with it goes, until that is forced."""
    fleet.api.pairs["dev-2", "t.zscore", "event"]["severity"] = "critical"
    assert not fleet.prune(KEPT)
    assert ("dev-2", "t.zscore", "threshold") in listed(fleet.api)
    assert ("dev-2", "t.zscore", "event") in listed(fleet.api)
    assert fleet.prune(KEPT, force=True)
    assert ("dev-2", "t.zscore", "event") not in listed(fleet.api)


# ---- what never is done ----------------------------------------------------------------------------------


def refused(fleet: Deployment, documents: list[dict[str, Any]], limits: Limits = NO_LIMITS) -> str:
    """The sentence with which prune refuses; nothing is written."""
    before = fleet.backups.files()
    with pytest.raises(UnsafePlanError) as error:
        fleet.prune(documents, limits)
    assert (error.value.exit_code, fleet.api.writes(), fleet.backups.files()) == (5, [], before)
    return str(error.value)


def test_documents_that_want_nothing_delete_nothing(fleet: Deployment) -> None:
    """A glob that matches no device is more often a mistake than a wish."""
    nothing = [{"source_id": "x-*", "metric": "t.zscore", "threshold": {"max": 3}}]
    assert "want no monitor on any source, so all 5 of ours would go" in refused(fleet, nothing)


def test_an_unknown_source_deletes_nothing(fleet: Deployment) -> None:
    """A typing error in a source's name makes its monitors look unwanted."""
    said = refused(fleet, [*KEPT, GONE[0] | {"source_id": "dev-22"}])
    assert "'dev-22' is unknown to the platform" in said
    assert "nothing is deleted (4 would)" in said


def test_an_empty_list_of_sources_deletes_nothing(fleet: Deployment) -> None:
    """Then no glob reaches a device, and every monitor looks unwanted."""
    fleet.api.slugs.clear()
    assert "lists no source at all" in refused(fleet, KEPT)


def test_a_source_that_is_not_listed_keeps_its_monitors(fleet: Deployment) -> None:
    """The list of sources may be partial as well."""
    fleet.api.slugs.remove("dev-2")
    assert not fleet.prune(KEPT)
    assert ("dev-2", "t.zscore", "threshold") in listed(fleet.api)
    assert any("does not list the source now" in line for line in fleet.said)
    assert ("dev-3", "humidity", "event") not in listed(fleet.api)


def test_more_than_the_limits_is_refused(fleet: Deployment) -> None:
    """The sentence says the numbers and the option to raise; at the limit it goes on."""
    assert "4 monitors would be deleted, more than the 3 allowed" in refused(fleet, KEPT, Limits(3, 1.0))
    assert "--max-deletes 4" in refused(fleet, KEPT, Limits(3, 1.0))
    said = refused(fleet, KEPT, Limits(4, 0.79))
    assert "4 of our 5 monitors would be deleted, more than the share of 0.79" in said
    assert "--max-share 0.8" in said
    assert fleet.prune(KEPT, Limits(4, 0.8))


def test_a_share_is_not_asked_of_three(fleet: Deployment) -> None:
    """A small fleet may lose three at once."""
    assert fleet.prune([*KEPT, GONE[2]], Limits(3, 0.0))


def test_the_share_that_the_sentence_names_is_enough() -> None:
    """Whatever the numbers: what it advises is accepted."""
    for total in range(5, 120):
        for doomed in range(4, total):
            share = -(-doomed * 100 // total) / 100
            assert doomed / total <= share


def test_without_a_backup_nothing_is_deleted(fleet: Deployment) -> None:
    """A folder that cannot be written is said first."""
    folder = fleet.backups.folder
    folder.rename(folder.with_suffix(".away"))
    folder.write_text("in the way")
    with pytest.raises(ConfigError, match="no backup can be written there"):
        fleet.prune(KEPT)
    assert fleet.api.writes() == []


def test_a_monitor_that_is_still_listed_is_said(fleet: Deployment) -> None:
    """The platform says success in any case; what either reading shows afterwards is not gone, and ours."""
    kept = dict(fleet.api.pairs)

    class Deaf(FakeMonitorApi):
        """Deletes nothing."""

        async def delete_pair(self, source: str, metric: str) -> None:
            """Say yes."""
            await super().delete_pair(source, metric)
            self.pairs = dict(kept)

    fleet.api.__class__ = Deaf
    assert not fleet.prune(KEPT)
    assert any(line.endswith("still lists it") for line in fleet.said)
    assert ("dev-3", "humidity", "event") in [entry.key for entry in fleet.file.load().owned]


# ---- failures and laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True])
def test_failure_at_every_request_then_rerun(tmp_path: Path, lost: bool) -> None:
    """Whichever request fails or loses its answer, a rerun ends well, and undo of both runs has it all."""
    at = 0
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        fleet = Deployment(folder, FakeMonitorApi(FLEET))
        fleet.apply(KEPT + GONE)
        for body in THEIRS:
            fleet.post(body)
        before = listed(fleet.api)
        fleet.api.calls.clear()
        fleet.api.fail_at, fleet.api.fail_after = at, lost
        runs = len(fleet.backups.files())
        try:
            fleet.prune(KEPT)
        except TransientError:
            assert fleet.api.calls[at][0] == "GET"
        if len(fleet.api.calls) <= at:
            break
        fleet.api.fail_at = None
        assert fleet.prune(KEPT)
        assert len(listed(fleet.api)) == 3
        assert not fleet.plan(KEPT).stale
        for _ in range(len(fleet.backups.files()) - runs):
            assert fleet.undo()
        assert listed(fleet.api) == before
        at += 1
    assert at > 8


@examples(900)
@given(
    theirs=st.lists(places, max_size=4),
    ours=st.lists(places, min_size=1, max_size=5),
    later=st.lists(places, max_size=3),
    keep=st.integers(1, 5),
    tmp=st.uuids(),
)
def test_prune_takes_only_ours_and_undo_brings_it_back(
    tmp_path_factory: pytest.TempPathFactory, theirs: Any, ours: Any, later: Any, keep: int, tmp: Any
) -> None:
    """From any state of the platform: what goes is ours and unwanted, and undo restores it up to ids."""
    fleet = Deployment(tmp_path_factory.mktemp(f"{tmp}"), FakeMonitorApi(FLEET))
    for place in theirs:
        fleet.post(body_of(place))
    documents = documents_of(ours)
    fleet.apply(documents)
    for place in later:
        fleet.post(body_of(place))
    owned = {entry.key for entry in fleet.file.load().owned}
    wanted = documents[:keep]
    before, ids = listed(fleet.api), {fields["id"] for _, fields in fleet.api.offline}
    plan = fleet.plan(wanted)
    require_safe(plan, NO_LIMITS)
    doomed = plan.stale
    fleet.prune(wanted)
    after = listed(fleet.api)
    lost = {key for key in before if len(before[key]) > len(after.get(key, []))}
    assert lost == {change.key for change in doomed}
    assert lost <= owned
    gone = ids - {fields["id"] for _, fields in fleet.api.offline}
    assert gone == {change.found.id for change in doomed if change.found and change.key[2] == "offline"}
    assert all(
        call[1].get("metric") or call[1].get("offline_id")
        for call in fleet.api.writes()
        if call[0] == "DELETE"
    )
    if doomed:
        assert fleet.undo()
        assert listed(fleet.api) == before
        assert {change.key for change in fleet.plan(wanted).stale} == lost
