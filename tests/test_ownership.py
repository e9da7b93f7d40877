"""Whose a monitor is, and what follows: change, drift, not ours, replace and delete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.errors import ConfigError
from plexus_detect.monitors import Existing, Expansion, Manifest, Ownership, Plan, Wanted, plan
from plexus_detect.monitors.documents import LEAVE, Targets, filled
from plexus_detect.monitors.manifest import manifests_from, text_of
from plexus_detect.monitors.marks import Mark, digest, marked, unmarked

HOT = ("dev-1", "t.zscore", "threshold")
EVENT = ("dev-1", "t.zscore", "event")
AWAY = ("dev-1", "", "offline")
NOW = "2026-11-28T00:00:00Z"


def wanted(key: tuple[str, str, str] = HOT, targets: Targets = LEAVE, **fields: Any) -> Wanted:
    return Wanted("a.json", key, filled(key[2], fields), targets)


def there(
    key: tuple[str, str, str] = HOT, id_: str = "i", mark: Mark | None = None, **fields: Any
) -> Existing:
    return Existing(key, filled(key[2], fields), None, id_, mark)


def ours(*found: Existing, **more: Any) -> Ownership:
    """An ownership of monitors as an apply left them."""
    expansion = Expansion(tuple(Wanted("a.json", m.key, m.settings, LEAVE) for m in found), (), ())
    manifest = Manifest().settled(plan(expansion, found), found, NOW)
    return Ownership(owned=manifest.owned, **more)


def compared(want: list[Wanted], have: list[Existing], own: Ownership, *, prune: bool = False) -> Plan:
    return plan(Expansion(tuple(want), (), ()), have, own, prune=prune)


def own_mark(**fields: Any) -> Mark:
    return Mark("plexus-detect", digest(filled("threshold", fields)))


# ---- the mark --------------------------------------------------------------------------------------------


@examples(500)
@given(st.one_of(st.none(), st.text(min_size=1)))
def test_a_mark_comes_off_as_it_went_on(message: str | None) -> None:
    """Whatever the message, the mark leaves it as it was and says who applied what."""
    settings = filled("threshold", {"max": 3, "message": message})
    if settings["message"] == message:  # one that ends with a mark already loses it
        text, mark = unmarked(marked(settings, "fleet-a"))
        assert (text, mark) == (message, Mark("fleet-a", digest(settings)))


# ---- thresholds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [ours(there(max=3)), Ownership()])
def test_a_changed_document_changes_our_monitor(own: Ownership) -> None:
    """By the manifest, and where it is lost by the mark."""
    (change,) = compared([wanted(max=4)], [there(mark=own_mark(max=3), max=3)], own).work
    assert (change.action, change.fields) == ("change", (("max", 3.0, 4.0),))
    sent = change.body["threshold"]
    assert unmarked(sent["message"]) == (None, own_mark(max=4))


@pytest.mark.parametrize("own", [ours(there(max=3)), Ownership()])
def test_an_edit_on_the_platform_is_drift(own: Ownership) -> None:
    """It is named, field by field, and never overwritten unless that is asked for."""
    edited = there(mark=own_mark(max=3), max=9)
    found = compared([wanted(max=3)], [edited], own)
    assert found.work == ()
    (problem,) = found.problems
    assert problem.kind == "drift"
    assert "threshold dev-1 t.zscore was edited on the platform" in problem.sentence
    assert "max 3 -> 9" in problem.sentence
    (change,) = compared([wanted(max=3)], [edited], replace(own, overwrite=True)).work
    assert change.fields == (("max", 9.0, 3.0),)


def test_an_edited_document_and_an_edit_on_the_platform_meet() -> None:
    """A document that says what a person set on the platform ends the drift; another value does not."""
    own, edited = ours(there(max=3)), there(max=9)
    assert compared([wanted(max=9)], [edited], own).empty
    assert [p.kind for p in compared([wanted(max=4)], [edited], own).problems] == ["drift"]


def test_what_somebody_else_made_is_not_overwritten() -> None:
    """Not a monitor without a mark, nor one that another owner marked, even where it is as wanted."""
    for mark in (None, Mark("fleet-b", digest(filled("threshold", {"max": 9})))):
        have = [there(mark=mark, max=9)]
        assert [p.kind for p in compared([wanted(max=3)], have, Ownership()).problems] == ["not ours"]
        assert len(compared([wanted(max=3)], have, Ownership(overwrite=True)).work) == 1
    (problem,) = compared(
        [wanted(max=9)], [there(mark=Mark("fleet-b", "0" * 8), max=9)], Ownership()
    ).problems
    assert "belongs to 'fleet-b'" in problem.sentence


def test_what_is_as_wanted_already_becomes_ours() -> None:
    """Without a request; from then on a changed document changes it."""
    have = [there(max=3)]
    found = compared([wanted(max=3)], have, Ownership())
    assert found.empty
    owned = Manifest().settled(found, have, NOW).owned
    assert [change.action for change in compared([wanted(max=4)], have, Ownership(owned=owned)).work] == [
        "change"
    ]


def test_targets_that_a_person_changed_are_drift() -> None:
    """Where a document names targets; where it names none they are nobody's business."""
    before = Wanted("a.json", HOT, filled("threshold", {"max": 3}), ("a",))
    made = replace(there(max=3), targets=("a",))
    owned = Manifest().settled(compared([before], [made], Ownership()), [made], NOW).owned
    edited = replace(made, targets=("b",))
    found = compared([before], [edited], Ownership(owned=owned))
    assert [p.kind for p in found.problems] == ["drift"]
    assert 'targets ["a"] -> ["b"]' in found.problems[0].sentence
    assert compared([wanted(max=3)], [edited], Ownership(owned=owned)).empty


# ---- offline ---------------------------------------------------------------------------------------------


def test_our_offline_monitor_is_replaced() -> None:
    """The platform cannot change one: the new one is posted, then the old one deleted by its id."""
    own = ours(there(AWAY, timeout_seconds=300))
    (change,) = compared([wanted(AWAY, timeout_seconds=600)], [there(AWAY, timeout_seconds=300)], own).work
    assert (change.action, change.method, change.found and change.found.id) == ("replace", "POST", "i")
    assert change.body["offline"]["timeout_seconds"] == 600


def test_an_offline_monitor_of_a_run_that_was_killed_is_ours() -> None:
    """It was sent and never seen with its id."""
    first = compared([wanted(AWAY)], [], Ownership())
    owned = Manifest().expecting(first).owned
    found = compared([wanted(AWAY, timeout_seconds=600)], [there(AWAY, "new")], Ownership(owned=owned))
    assert [change.action for change in found.work] == ["replace"]


def test_a_replacement_that_was_killed_halfway_is_finished() -> None:
    """Old and new are there, both ours: what is left is the delete of the old one."""
    own = ours(there(AWAY, timeout_seconds=300))
    half = compared([wanted(AWAY, timeout_seconds=600)], [there(AWAY, timeout_seconds=300)], own)
    owned = Manifest(owned=own.owned).expecting(half).owned
    have = [there(AWAY, timeout_seconds=300), there(AWAY, "new", timeout_seconds=600)]
    found = compared([wanted(AWAY, timeout_seconds=600)], have, Ownership(owned=owned))
    (change,) = found.changes
    assert (change.action, change.method, change.body) == ("replace", "DELETE", {"offline_id": "i"})
    failed = Manifest(owned=owned).settled(found, have, NOW)
    assert sorted(entry.id for entry in failed.owned) == ["i", "new"]
    again = compared([wanted(AWAY, timeout_seconds=600)], have, Ownership(owned=failed.owned))
    assert again.changes == found.changes
    done = failed.settled(again, have[1:], NOW)
    assert [(entry.id, entry.sent) for entry in done.owned] == [("new", None)]


def test_a_second_one_of_ours_is_for_prune() -> None:
    """Where no replacement was begun, apply deletes nothing."""
    have = [there(AWAY, "a"), there(AWAY, "b")]
    owned = tuple(ours(monitor).owned[0] for monitor in have)
    found = compared([wanted(AWAY)], have, Ownership(owned=owned))
    assert found.changes == ()
    assert [change.body for change in found.stale] == [{"offline_id": "b"}]


# ---- deletes ---------------------------------------------------------------------------------------------


def test_only_ours_and_only_the_unwanted_are_stale() -> None:
    """What nobody's document wants and is ours is deleted by prune alone."""
    have = [
        there(max=3),
        there(("dev-2", "x", "threshold"), max=1),
        there(AWAY, "a"),
        there(("dev-2", "", "offline"), "b"),
    ]
    own = ours(have[0], have[2])
    found = compared([], have, own)
    assert found.work == ()
    assert [change.body for change in found.stale] == [
        {"source_id": "dev-1", "metric": "t.zscore"},
        {"offline_id": "a"},
    ]
    assert (found.foreign, found.empty) == (2, True)
    assert compared([], have, own, prune=True).work == found.stale


def test_a_delete_that_would_take_another_along_is_left() -> None:
    """The platform deletes a threshold and an event of one metric together."""
    have = [there(max=3), there(EVENT)]
    found = compared([], have, ours(have[0]), prune=True)
    assert found.work == ()
    assert "together with the event monitor" in found.problems[0].sentence
    assert len(compared([], have, ours(*have), prune=True).work) == 2
    wanted_event = compared([wanted(EVENT)], have, ours(*have), prune=True)
    assert (wanted_event.work, len(wanted_event.problems)) == ((), 1)


def test_an_edited_one_is_not_deleted() -> None:
    """Somebody may need it."""
    found = compared([], [there(max=9)], ours(there(max=3)), prune=True)
    assert (found.work, [p.kind for p in found.problems]) == ((), ["drift"])


# ---- the manifest ----------------------------------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was_written() -> None:
    """With what was sent and not confirmed."""
    have = [there(max=3), there(AWAY, "a"), there(EVENT, severity="critical")]
    manifest = Manifest(endpoint="https://app", owned=ours(*have).owned)
    manifest = manifest.expecting(compared([wanted(max=4)], have, Ownership(owned=manifest.owned)))
    assert any(entry.sent for entry in manifest.owned)
    other = Manifest("fleet-b", "https://app")
    again, theirs = manifests_from(text_of([other, manifest]), "m")[::-1]
    assert theirs == other
    assert sorted(again.owned, key=str) == sorted(manifest.owned, key=str)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "monitors": [3]}', "[" * 9999]
)
def test_a_damaged_manifest_is_one_sentence(text: str) -> None:
    """It says what to do."""
    with pytest.raises(ConfigError, match="no manifest of monitors"):
        manifests_from(text, "m.json")


def test_a_newer_manifest_is_refused() -> None:
    """Its entries may mean something else."""
    with pytest.raises(ConfigError, match="of version 2, which this program does not know"):
        manifests_from('{"version": 2}', "m.json")


def test_an_entry_goes_with_its_monitor() -> None:
    """Once it was deleted, or when two readings lack it; not when one does."""
    have = [there(max=3)]
    own = ours(*have)
    manifest = Manifest(owned=own.owned)
    pruned = compared([], have, own, prune=True)
    assert manifest.settled(pruned, [], NOW).owned == ()
    assert manifest.settled(compared([], have, own), [], NOW).owned == own.owned
    assert manifest.settled(compared([], [], own), have, NOW).owned == own.owned
    assert manifest.settled(compared([], [], own), [], NOW).owned == ()
