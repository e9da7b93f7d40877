"""How documents of monitors spread over sources, and the plan."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plexus_detect import monitors
from plexus_detect.errors import ConfigError, ContractError
from plexus_detect.monitors import KnownSources, MonitorSpec, Ownership, Plan, marks

SLACK = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"
MAIL = "ab826bff-882f-415a-92ce-ba350eb6d808"
DEV_1 = "6eb5572a-35ce-44f3-96aa-7e2080b04ee7"
KNOWN = KnownSources(
    slug_of={"dev-1": "dev-1", DEV_1: "dev-1", "dev-2": "dev-2", "dev-3": "dev-3", "pg-1": "pg-1"},
    devices=("dev-1", "dev-2", "dev-3"),
)
OVERWRITE = Ownership(overwrite=True, mark=False)
HOT = {"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 3}}


def specs(*documents: dict[str, Any]) -> tuple[MonitorSpec, ...]:
    return monitors.parse(json.dumps(documents), "m.json")


def row(slug: str = "dev-1", metric: str = "t.zscore", **parts: dict[str, Any]) -> dict[str, Any]:
    empty = {"threshold": None, "event": None, "offline": None}
    return {"source_id": DEV_1, "source_slug": slug, "metric": metric} | empty | parts


def threshold(**given: Any) -> dict[str, Any]:
    usual = {"id": "5e73", "min": None, "max": 3, "severity": "warning", "message": None}
    return usual | {"notification_target_ids": None} | given


def event(**given: Any) -> dict[str, Any]:
    usual = {"id": "6c2a", "severity": "info", "message": None, "enabled": True, "delivery": None}
    return usual | {"visualization": None, "notification_target_ids": None} | given


def offline(id_: str = "fd10", **given: Any) -> dict[str, Any]:
    usual = {"id": id_, "timeout_seconds": 300, "severity": "warning", "enabled": True}
    return usual | {"notification_target_ids": None} | given


def planned(documents: list[dict[str, Any]], rows: list[dict[str, Any]], ours: Ownership = OVERWRITE) -> Plan:
    existing = monitors.existing_from(rows)
    return monitors.plan(monitors.expand(specs(*documents), KNOWN, {}, existing), existing, ours)


# ---- expansion -------------------------------------------------------------------------------------------


def reached(document: dict[str, Any], metrics: dict[str, tuple[str, ...]]) -> list[str]:
    return [w.key[0] for w in monitors.expand(specs(document), KNOWN, metrics).wanted]


def test_glob_reaches_devices_with_the_metric() -> None:
    """A score's monitor reaches devices that send the scored metric, and devices that we know nothing of."""
    metrics = {"dev-1": ("t",), "dev-2": ("humidity", "t.zscore_raw")}
    assert reached(HOT | {"source_id": "*"}, metrics) == ["dev-1", "dev-3"]
    assert reached(HOT | {"source_id": "*"}, {}) == ["dev-1", "dev-2", "dev-3"]
    assert reached(HOT | {"source_id": "dev-[!1]"}, {}) == ["dev-2", "dev-3"]
    assert reached(HOT | {"source_id": "*", "metric": "t"}, metrics) == ["dev-1", "dev-2", "dev-3"]


def test_monitored_device_stays_reached() -> None:
    """A device that has the monitor keeps being compared while it does not send the metric."""
    existing = monitors.existing_from([row("dev-2", threshold=threshold(max=5))])
    expansion = monitors.expand(specs(HOT | {"source_id": "*"}), KNOWN, {"dev-2": ("humidity",)}, existing)
    assert [w.key[0] for w in expansion.wanted] == ["dev-1", "dev-2", "dev-3"]


def test_a_groups_score_is_made_from_no_metric_of_its_name() -> None:
    """A glob on it reaches every device that it matches before anything is posted; no names are asked for."""
    group = HOT | {"source_id": "dev-*", "metric": "motor.anomaly"}
    assert reached(group, {"dev-1": ("humidity",)}) == reached(group, {})
    assert not monitors.needs_metric_names(specs(group)[0])


def test_literal_sources() -> None:
    """A source is named by slug or id, device or connection, whatever metrics it sends."""
    metrics = {"dev-1": ("humidity",), "pg-1": ("x",)}
    assert reached(HOT, metrics) == reached(HOT | {"source_id": DEV_1}, metrics) == ["dev-1"]
    assert reached(HOT | {"source_id": "pg-1"}, metrics) == ["pg-1"]


def test_unknown_source_is_a_problem_and_an_idle_glob_is_not() -> None:
    """An unknown name needs a person and says the nearest one; a glob may wait for its devices."""
    expansion = monitors.expand(specs(HOT | {"source_id": "Dev-1"}, HOT | {"source_id": "esp*"}), KNOWN, {})
    (problem,) = expansion.problems
    assert problem.sentence == (
        "m.json#/0: source 'Dev-1' is unknown to the platform; it appears once it has sent a point, "
        "or create it; did you mean 'dev-1'?"
    )
    assert expansion.notes == ("m.json#/1: no device matches 'esp*' for now",)
    assert expansion.wanted == ()


@pytest.mark.parametrize("source", ["dev-1", DEV_1, "dev-*"])
def test_two_claims_on_one_pair(source: str) -> None:
    """Two documents on the same source and metric are refused, both named, however they name the source."""
    with pytest.raises(
        ConfigError, match=r"m\.json:1: \[1\]: metric 't\.zscore' of source 'dev-1' .*m\.json:1: \[0\]"
    ):
        monitors.expand(specs(HOT, HOT | {"source_id": source}), KNOWN, {})


def test_two_claims_on_one_offline_monitor() -> None:
    """Two documents on one source's offline monitor are refused as well."""
    with pytest.raises(ConfigError, match="the offline monitor of source 'dev-1' is already claimed"):
        monitors.expand(specs(HOT | {"offline": {}}, {"source_id": "*", "offline": {}}), KNOWN, {})


@pytest.mark.parametrize(
    ("metric", "base"),
    [
        ("t.zscore", "t"),
        ("t.fleet_zscore_raw", "t"),
        ("t.zscore_critical", "t"),
        ("a.b.zscore", "a.b"),
        ("t", None),
        (".zscore", None),
    ],
)
def test_scored_metric(metric: str, base: str | None) -> None:
    """The metric behind one of our names is found by its suffix."""
    assert monitors.scored_metric(metric) == base


# ---- comparison ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "rows"),
    [
        (HOT, [row(threshold=threshold())]),
        (HOT | {"threshold": {"max": 3.0, "min": None, "severity": "warning"}}, [row(threshold=threshold())]),
        (HOT | {"threshold": {"max": 3, "message": ""}}, [row(threshold=threshold())]),
        (
            HOT | {"threshold": {"max": 123456789012345678}},
            [row(threshold=threshold(max=123456789012345680))],
        ),
        (HOT, [row(threshold=threshold(notification_target_ids=[SLACK]))]),
        (
            HOT | {"notification_targets": [SLACK.upper(), MAIL]},
            [row(threshold=threshold(notification_target_ids=[MAIL, SLACK]))],
        ),
        ({"source_id": "dev-1", "metric": "x", "event": {}}, [row(metric="x", event=event())]),
        ({"source_id": "dev-1", "offline": {"message": "thrown away"}}, [row(metric="", offline=offline())]),
        (
            {"source_id": "dev-1", "offline": {}},
            [row(metric="", offline=offline("a", timeout_seconds=60)), row(metric="", offline=offline("b"))],
        ),
    ],
)
def test_equal_after_the_platforms_defaults(document: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """What the platform would make of a document is what it has: nothing is sent."""
    plan = planned([document], rows)
    assert plan.empty, monitors.render(plan)
    assert plan.keep == 1


def test_threshold_change_sets_every_field() -> None:
    """A threshold is replaced whole, so both bounds are sent, and the plan names each field that changes."""
    (change,) = planned([HOT], [row(threshold=threshold(max=5, min=-5, message="tuned"))]).changes
    assert (change.action, change.method) == ("change", "POST")
    assert change.fields == (("min", -5.0, None), ("max", 5.0, 3.0), ("message", "tuned", None))
    body = {"min": None, "max": 3.0, "severity": "warning", "message": None}
    assert change.body == {"source_id": "dev-1", "metric": "t.zscore", "threshold": body}


def test_only_the_part_that_differs_is_sent() -> None:
    """An event monitor that is as wanted is not posted again beside its changed threshold."""
    document = HOT | {"event": {"severity": "critical"}}
    plan = planned([document], [row(threshold=threshold(max=9), event=event(severity="critical"))])
    (change,) = plan.changes
    assert "event" not in change.body
    assert plan.keep == 1


def test_targets_alone_are_patched() -> None:
    """When only notification targets differ, only they are sent."""
    (change,) = planned([HOT | {"notification_targets": [SLACK]}], [row(threshold=threshold())]).changes
    assert (change.method, change.body) == (
        "PATCH",
        {"source_id": "dev-1", "metric": "t.zscore", "notification_targets": [SLACK]},
    )
    back = row(threshold=threshold(notification_target_ids=[SLACK]))
    (change,) = planned([HOT | {"notification_targets": None}], [back]).changes
    assert change.body["notification_targets"] is None


def test_targets_travel_with_a_post() -> None:
    """A new or changed monitor is posted together with the targets a document gives."""
    for rows in ([], [row(threshold=threshold(max=9))]):
        (change,) = planned([HOT | {"notification_targets": [SLACK]}], rows).changes
        assert (change.method, change.body["notification_targets"]) == ("POST", [SLACK])


def test_offline_targets_are_patched_by_id() -> None:
    """An offline monitor that suits is addressed by its own id when its targets differ."""
    rows = [row(metric="", offline=offline("a", severity="info")), row(metric="", offline=offline("b"))]
    (change,) = planned([{"source_id": "dev-1", "offline": {}, "notification_targets": [MAIL]}], rows).changes
    assert change.body == {"offline_id": "b", "notification_targets": [MAIL]}


@pytest.mark.parametrize(
    ("have", "said"),
    [
        ({"timeout_seconds": 60}, "timeout_seconds 60 where 300 is wanted"),
        ({"enabled": False}, "enabled false where true is wanted"),
    ],
)
def test_offline_of_another(have: dict[str, Any], said: str) -> None:
    """An offline monitor that somebody set otherwise needs a person: a post would add a second one."""
    rows = [row(metric="", offline=offline(**have))]
    plan = planned([{"source_id": "dev-1", "offline": {}}], rows, Ownership())
    assert plan.changes == ()
    assert not plan.empty
    (problem,) = plan.problems
    assert problem.kind == "not ours"
    assert said in problem.sentence


def test_foreign_monitors_are_counted_and_untouched() -> None:
    """Monitors that no document wants are left alone and counted, also beside a wanted one."""
    rows = [row(threshold=threshold(), event=event()), row(metric="other", threshold=threshold())]
    plan = planned([HOT], [*rows, row("dev-2", metric="", offline=offline())])
    assert plan.empty
    assert plan.foreign == 3


def test_partial_rows_are_refused() -> None:
    """A row of another shape is named rather than guessed at."""
    for bad in (
        row(threshold=threshold(max="high")),
        row(threshold=[3]),
        row(threshold=threshold()) | {"metric": 3},
    ):
        with pytest.raises(ContractError, match="GET /api/monitors"):
            monitors.existing_from([bad])


def marked(line: float) -> str:
    settings = {"min": None, "max": float(line), "severity": "warning", "message": "off its past"}
    return marks.marked(settings, "plexus-detect")


def test_render() -> None:
    """A plan reads as lines with a sign each and ends with a sum."""
    plan = planned(
        [
            {"source_id": "dev-*", "metric": "t.zscore", "threshold": {"max": 3, "message": "off its past"}},
            {"source_id": "dev-1", "offline": {}},
            {"source_id": "dev-2", "offline": {}},
            {"source_id": "nope", "offline": {}},
            {"source_id": "esp*", "offline": {}},
        ],
        [
            row("dev-2", threshold=threshold(max=4.5, message=marked(4.5))),
            row("dev-3", threshold=threshold(message="off its past")),
            row("dev-1", metric="", offline=offline(timeout_seconds=60)),
            row("dev-2", metric="", offline=offline("a")),
            row("dev-2", metric="", offline=offline("b")),
            row("dev-2", metric="own", event=event()),
            row("dev-3", metric="old", threshold=threshold(message=marked(3))),
        ],
        Ownership(),
    )
    assert monitors.render(plan) == [
        '+ create threshold dev-1 t.zscore: max 3, severity "warning", message "off its past"',
        "~ change threshold dev-2 t.zscore",
        "    max: 4.5 -> 3",
        "- delete threshold dev-3 old (no document wants it)",
        f"! unknown source: {plan.problems[0].sentence}",
        f"! not ours: {plan.problems[1].sentence}",
        "  note: m.json#/4: no device matches 'esp*' for now",
        "  note: dev-2 has 2 offline monitors, and each of them notifies",
        "  note: apply deletes nothing; plexus-detect monitors prune does (1)",
        "= keep 2 as they are",
        "  not ours: 1, left alone",
        "plan: 1 to create, 1 to change, 2 to keep, 2 for a person",
    ]
