"""Import: monitors that are nobody's as a document that asks for nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeMonitorApi
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from prune_fleet import FLEET, SLACK, Deployment, body_of, documents_of, parsed, places

from plexus_detect import monitors
from plexus_detect.monitors import Existing, Ownership
from plexus_detect.monitors.adopting import Adoption, adopted, adoption
from plexus_detect.monitors.documents import filled
from plexus_detect.monitors.marks import Mark
from plexus_detect.provision.importing import read_adoption
from plexus_detect.provision.reading import make_plan

HOT = ("dev-1", "t", "threshold")
LOOK = ("dev-1", "t", "event")
AWAY = ("dev-1", "", "offline")


def there(key: tuple[str, str, str], id_: str = "i", targets: Any = None, **fields: Any) -> Existing:
    return Existing(key, filled(key[2], fields), targets, id_)


def taken(*existing: Existing, wanted: dict[Any, str] | None = None, **globs: str) -> Adoption:
    return adoption(existing, wanted or {}, Ownership(), **globs)


def test_one_body_for_a_source_and_metric() -> None:
    """Threshold and event together, with what is set and whole numbers as such; an offline one by itself."""
    found = taken(
        there(LOOK, message="look", targets=(SLACK,), filters=[1]),
        there(HOT, max=3, targets=(SLACK,)),
        there(AWAY, timeout_seconds=60),
    )
    assert found.bodies == (
        {"source_id": "dev-1", "offline": {"timeout_seconds": 60, "severity": "warning"}},
        {
            "source_id": "dev-1",
            "metric": "t",
            "threshold": {"max": 3, "severity": "warning"},
            "event": {
                "severity": "info",
                "message": "look",
                "enabled": True,
                "delivery": "digest",
                "filters": [1],
            },
            "notification_targets": [SLACK],
        },
    )
    assert '"max": 3,' in found.to_json()
    assert found.left == ()


def test_targets_that_differ_are_nobodys_business() -> None:
    """One body has one list; they stay as they are, which is said."""
    found = taken(there(HOT, max=3), there(LOOK, targets=(SLACK,)))
    assert "notification_targets" not in found.bodies[0]
    assert len(found.taken) == 2
    assert "threshold and event have different ones" in found.left[0]


def test_a_second_offline_monitor_is_named() -> None:
    """The first is taken: one document wants one."""
    found = taken(there(AWAY, "a"), there(AWAY, "b", timeout_seconds=60))
    assert [monitor.id for monitor in found.taken] == ["a"]
    assert "a second one on its source, which notifies twice" in found.left[0]


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        (there(("dev-*", "t", "threshold"), max=1), "reads as a glob"),
        (Existing(AWAY, {**filled("offline", {}), "enabled": False}, None, "i"), "switched off"),
        (there(HOT, severity="grave"), "no document can hold it"),
        (there(HOT, message="\ud800"), "half a character"),
    ],
)
def test_what_no_document_can_say_is_named(monitor: Existing, words: str) -> None:
    """And not written."""
    found = taken(monitor)
    assert (found.bodies, found.taken) == ((), ())
    assert words in found.left[0]


def test_whose_it_is_decides() -> None:
    """What another owner marked is counted, what a document wants is not looked at, and what hangs on the
    same metric as a document's is shown as it would be written there."""
    marked = Existing(("dev-2", "t", "threshold"), filled("threshold", {}), None, "i", Mark("b", "0" * 8))
    found = taken(marked, there(HOT, max=3), there(LOOK), wanted={HOT: "a.json"})
    assert (found.taken, found.others) == ((), 1)
    (sentence,) = found.left
    assert sentence.startswith("event dev-1 t: a.json is about the same metric; write it there: {")


def test_globs_choose() -> None:
    """By source and by metric; an offline monitor has none."""
    fleet = (there(HOT), there(AWAY), there(("dev-2", "humidity", "threshold")))
    assert [m.key for m in taken(*fleet, source="dev-1").taken] == [AWAY, HOT]
    assert [m.key for m in taken(*fleet, metric="h*").taken] == [("dev-2", "humidity", "threshold")]


@examples(900)
@given(
    theirs=st.lists(places, max_size=5),
    ours=st.lists(places, max_size=3),
    later=st.lists(places, max_size=3),
)
def test_after_an_import_the_plan_is_empty(
    tmp_path_factory: pytest.TempPathFactory, theirs: Any, ours: Any, later: Any
) -> None:
    """From any state of the platform: what was taken is ours, asks for nothing, and
    nothing else changed hands."""
    fleet = Deployment(tmp_path_factory.mktemp("import"), FakeMonitorApi(FLEET))
    for place in theirs:
        fleet.post(body_of(place))
    documents = documents_of(ours)
    fleet.apply(documents)
    for place in later:
        fleet.post(body_of(place))
    before, writes = fleet.file.load(), len(fleet.api.writes())
    ownership = Ownership(owned=before.owned)
    specs = parsed(documents)
    first, found = asyncio.run(read_adoption(fleet.api, specs, "", ownership))
    if not found.bodies:
        return
    new = monitors.parse(found.to_json(), "new.json")
    manifest = adopted(before, asyncio.run(make_plan(fleet.api, new, ownership=ownership)), "now")
    again = asyncio.run(make_plan(fleet.api, (*specs, *new), ownership=Ownership(owned=manifest.owned)))
    assert [change.label for change in again.work] == [change.label for change in first.work]
    assert [p.kind for p in again.problems] == [p.kind for p in first.problems]
    own = {(entry.key, entry.id) for entry in manifest.owned}
    assert own == {(e.key, e.id) for e in before.owned} | {(m.key, m.id) for m in found.taken}
    assert len(fleet.api.writes()) == writes


def test_a_partial_list_costs_no_ownership(tmp_path: Path) -> None:
    """What the reading after an import leaves out was ours and still is."""
    fleet = Deployment(tmp_path, FakeMonitorApi(FLEET))
    fleet.apply([{"source_id": "dev-2", "offline": {}}])
    fleet.post({"source_id": "dev-1", "metric": "t", "threshold": {"max": 3}})
    before = fleet.file.load()
    fleet.api.hidden, fleet.api.hide_reads = {("dev-2", "")}, 1
    new = monitors.parse(json.dumps({"source_id": "dev-1", "metric": "t", "threshold": {"max": 3}}), "n")
    manifest = adopted(before, asyncio.run(make_plan(fleet.api, new)), "now")
    assert [entry.key[0] for entry in manifest.owned] == ["dev-2", "dev-1"]
