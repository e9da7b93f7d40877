"""The files of monitors: what one may hold in either form, and the sentence for what it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect import monitors
from plexus_detect.errors import ConfigError

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "monitors/monitor.schema.json").read_text())
SLACK = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"
MAIL = "ab826bff-882f-415a-92ce-ba350eb6d808"
HOT = {"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 3}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"source_id": ', "m.json:1: is not valid JSON: Expecting value"),
        ('{"source_id": "a",\n "offline": NaN}', "m.json:2: offline: must be a finite number, not NaN"),
        ('{"source_id": "a",\n "source_id": "b"}', "m.json:2: source_id: is given twice (first on line 1)"),
        ("3", "m.json: a monitor must be an object, not 3"),
        ("[[]]", "m.json:1: [0]: a monitor must be an object, not []"),
        ('{"treshold": {"max": 3}}', "m.json:1: treshold: unknown key; did you mean 'threshold'?"),
        ('{"zzz": 1}', "m.json:1: zzz: unknown key; known are $schema, source_id, metric, threshold"),
        ('[{"threshold": {"maxx": 3}}]', "m.json:1: [0].threshold.maxx: unknown key; did you mean 'max'?"),
        ('{"threshold": {"max": "3"}}', 'threshold.max: must be a finite number or null, not "3"'),
        ('{"threshold": {"max": true}}', "threshold.max: must be a finite number or null, not true"),
        ('{"threshold": {"max": 1e999}}', "threshold.max: must be a finite number, not Infinity"),
        (
            '{"threshold": {"severity": "Warn"}}',
            "must be one of info, warning, critical, not \"Warn\"; did you mean 'warning'?",
        ),
        ('{"threshold": 3}', "m.json:1: threshold: must be an object, not 3"),
        ('{"offline": {"timeout_seconds": 0}}', "must be a whole number of seconds above 0, not 0"),
        ('{"event": {"delivery": "per-row"}}', 'must be one of digest, per_row, not "per-row"; did you mean'),
        ('{"source_id": "dev-[1"}', "source_id: must be a source's slug, its id or a glob"),
        ('{"source_id": ""}', "source_id: must be a source's slug, its id or a glob"),
        ('{"metric": "t", "threshold": {}}', "m.json:1: source_id is missing"),
        ('{"source_id": "a", "metric": "t", "event": null}', "at least one of threshold, event and offline"),
        ('[{"source_id": "a", "threshold": {"max": 3}}]', "m.json:1: [0]: metric is missing"),
        (
            '{"notification_targets": ["slack"]}',
            'notification_targets[0]: must be the id of an integration (a UUID), not "slack"',
        ),
        (
            '{"notification_targets": []}',
            "must be null or a list of at least one integration id (a UUID), not []",
        ),
        ("[" * 100_000, "m.json: is nested more than 32 levels deep"),
    ],
)
def test_bad_documents(text: str, sentence: str) -> None:
    """A bad document is one sentence with file, place, what is wrong and a near match."""
    with pytest.raises(ConfigError) as caught:
        monitors.parse(text, "m.json")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_documents_of_api_bodies() -> None:
    """An object and a list are read alike, and $schema belongs to editors only."""
    (alone,) = monitors.parse(json.dumps(HOT | {"$schema": "./monitor.schema.json"}), "m.json")
    (listed,) = monitors.parse(json.dumps([HOT]), "m.json")
    assert (alone.source, alone.metric, alone.parts) == (listed.source, listed.metric, listed.parts)
    assert (alone.origin, listed.origin) == ("m.json", "m.json#/0")


_bad_or_good = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["info", "warning", "critical", "digest", "per_row", "x", "", "dev-*", "dev-[1]", "[", SLACK]
    ),
    st.lists(st.sampled_from([SLACK, MAIL, "slack", 3]), max_size=2),
)


def _object(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), _bad_or_good, max_size=3)


_document = st.fixed_dictionaries(
    {},
    optional={
        "$schema": _bad_or_good,
        "source_id": st.one_of(st.just("dev-*"), _bad_or_good),
        "metric": st.one_of(st.just("t.zscore"), _bad_or_good),
        "threshold": st.one_of(_object("min", "max", "severity", "message", "maxx"), _bad_or_good),
        "event": st.one_of(
            _object("severity", "message", "enabled", "delivery", "filters", "y"), _bad_or_good
        ),
        "offline": st.one_of(_object("timeout_seconds", "severity", "message", "enabled"), _bad_or_good),
        "notification_targets": _bad_or_good,
        "name": _bad_or_good,
    },
)
_valid = jsonschema.Draft202012Validator(SCHEMA).is_valid


@examples(4000)
@given(document=st.one_of(_document, st.lists(_document, max_size=2)))
def test_schema_agrees_with_the_loader(document: Any) -> None:
    """What the schema shows an editor as valid is exactly what the loader takes."""
    try:
        monitors.parse(json.dumps(document), "m.json")
        loads = True
    except ConfigError:
        loads = False
    assert _valid(document) == loads


def test_the_published_schema_is_the_loaders() -> None:
    """The file that editors take is made from what the loader checks with."""
    assert monitors.monitor_schema() == SCHEMA


AS_YAML = """# two monitors
- source_id: dev-1
  metric: t.zscore
  threshold: {max: 3}
- for: {source: "dev-*"}
  offline: 5m
"""
AS_TOML = """# two monitors
[[monitors]]
source_id = "dev-1"
metric = "t.zscore"
threshold = {max = 3}

[[monitors]]
for.source = "dev-*"
offline = "5m"
"""
AS_JSON = """{"monitors": [
{"source_id": "dev-1", "metric": "t.zscore", "threshold": {"max": 3}},
{"for": {"source": "dev-*"}, "offline": "5m"}]}"""


def test_yaml_json_and_toml_mean_the_same() -> None:
    """The three kinds hold the same monitors, each with its own lines."""
    found = [
        [(spec.where, spec.source, spec.metric, spec.parts) for spec in monitors.parse(text, name)]
        for text, name in ((AS_YAML, "m.yaml"), (AS_TOML, "m.toml"), (AS_JSON, "m.json"))
    ]
    assert [[one[0] for one in kind] for kind in found] == [
        ["m.yaml:2", "m.yaml:5"],
        ["m.toml:3", "m.toml:8"],
        ["m.json:2", "m.json:3"],
    ]
    assert [one[1:] for one in found[0]] == [one[1:] for one in found[1]] == [one[1:] for one in found[2]]


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        (
            AS_YAML.replace("max", "maxx"),
            "m.yaml",
            "m.yaml:4: [0].threshold.maxx: unknown key; did you mean 'max'?",
        ),
        (
            AS_TOML.replace("5m", "5"),
            "m.toml",
            "m.toml:9: monitors[1].offline: must be a duration such as 90s,",
        ),
        (
            AS_JSON.replace("for", "fro"),
            "m.json",
            "m.json:3: monitors[1].fro: unknown key; did you mean 'for'?",
        ),
        (AS_JSON.replace("[", "[ 3,"), "m.json", "m.json:1: monitors[0]: a monitor must be an object, not 3"),
    ],
)
def test_an_error_names_file_line_and_key(text: str, name: str, sentence: str) -> None:
    """Whatever the kind of the file."""
    with pytest.raises(ConfigError) as caught:
        monitors.parse(text, name)
    assert str(caught.value).startswith(sentence)


def test_default_set_is_valid() -> None:
    """The monitors of this repository watch our scores at 3 and the worker's sign of life, and their schema
    accepts them."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    files = [f for f in (ROOT / "monitors").glob("*.json") if f.name != "monitor.schema.json"]
    found = {}
    for file in files:
        assert _valid(json.loads(file.read_text()))
        (spec,) = monitors.parse(file.read_text(), file.name)
        found[spec.metric] = (spec.source, spec.parts.get("threshold", {}).get("max"))
    scores = ("temperature.zscore", "humidity.zscore", "temperature.fleet_zscore")
    assert found == dict.fromkeys(scores, ("*", 3)) | {"": ("plexus-detect", None)}
