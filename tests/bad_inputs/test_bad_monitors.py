"""Bad monitor documents: exit 2, the file and the place in it, before the platform is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from door import KEY, file_at, files_of, refused, through

GOOD: dict[str, Any] = {"source_id": "a", "metric": "m", "threshold": {"max": 1}}


def doc(**more: Any) -> str:
    """A good document with these fields in place of its own."""
    return json.dumps({**GOOD, **more})


def raw(**more: str) -> str:
    """A good document with fields of this text, which need not be JSON."""
    fields = {**{key: json.dumps(value) for key, value in GOOD.items()}, **more}
    return "{" + ",".join(f'"{key}":{text}' for key, text in fields.items()) + "}"


DEEP = "m.json: is nested more than 32 levels deep"
DOCUMENTS: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "m.json:1: is not valid JSON"),
    "cut off": ('{"a":', "m.json:1: is not valid JSON"),
    "an empty list": ("[]", "m.json: no monitor in it"),
    "null": ("null", "m.json: a monitor must be an object, not none"),
    "a number": ("5", "m.json: a monitor must be an object, not 5"),
    "a text": ('"x"', "m.json: a monitor must be an object"),
    "a list of lists": ("[[]]", "m.json:1: [0]: a monitor must be an object"),
    "a list of numbers": ("[5]", "m.json:1: [0]: a monitor must be an object"),
    "the second one": (f"[{doc()}, {{}}]", "m.json:1: [1]: source_id is missing"),
    "an unknown key": (doc(x=1), "m.json:1: x: unknown key"),
    "no source": ('{"metric":"m","threshold":{}}', "source_id is missing"),
    "no part": ('{"source_id":"a","metric":"m"}', "at least one of threshold, event and offline"),
    "parts of null": (doc(threshold=None), "at least one of threshold, event and offline"),
    "no metric": ('{"source_id":"a","threshold":{}}', "metric is missing"),
    "a source of a number": (raw(source_id="5"), "source_id: must be a source's slug"),
    "a source of nothing": (doc(source_id=""), "source_id: must be a source's slug"),
    "an open bracket": (doc(source_id="[a"), "source_id: must be a source's slug"),
    "a metric of a number": (doc(metric=5), "metric: must be a metric's name"),
    "a metric of nothing": (doc(metric=""), "metric: must be a metric's name"),
    "a part of a list": (doc(threshold=[]), "threshold: must be an object"),
    "a part of a text": (doc(threshold="x"), "threshold: must be an object"),
    "an unknown field": (doc(threshold={"maxx": 1}), "threshold.maxx: unknown key; did you mean 'max'"),
    "NaN": (raw(threshold='{"max":NaN}'), "threshold.max: must be a finite number, not NaN"),
    "Infinity": (raw(threshold='{"max":-Infinity}'), "threshold.max: must be a finite number, not -Infinity"),
    "a large exponent": (raw(threshold='{"max":1e999}'), "threshold.max: must be a finite number"),
    "400 digits": (raw(threshold='{"max":' + "9" * 400 + "}"), "threshold.max: must be a finite number"),
    "5000 digits": (raw(threshold='{"max":' + "9" * 5000 + "}"), "a number is too long; shorten it"),
    "a bound of a switch": (doc(threshold={"max": True}), "threshold.max: must be a finite number"),
    "a bound of a text": (doc(threshold={"max": "1"}), "threshold.max: must be a finite number"),
    "a near severity": (doc(threshold={"severity": "crit"}), "did you mean 'critical'"),
    "a severity of a list": (doc(threshold={"severity": []}), "threshold.severity: must be one of"),
    "a message of a number": (doc(threshold={"message": 5}), "threshold.message: must be a text"),
    "no time": (doc(offline={"timeout_seconds": 0}), "offline.timeout_seconds: must be a whole number"),
    "less than no time": (doc(offline={"timeout_seconds": -1}), "offline.timeout_seconds: must be"),
    "a time of a text": (doc(offline={"timeout_seconds": "5"}), "offline.timeout_seconds: must be"),
    "half a second": (doc(offline={"timeout_seconds": 1.5}), "offline.timeout_seconds: must be"),
    "a time of 400 digits": (
        raw(offline='{"timeout_seconds":' + "9" * 400 + "}"),
        "offline.timeout_seconds",
    ),
    "a wrong delivery": (doc(event={"delivery": "x"}), "event.delivery: must be one of"),
    "a switch of a text": (doc(event={"enabled": "yes"}), "event.enabled: must be true or false"),
    "no targets": (doc(notification_targets=[]), "notification_targets: must be null or a list"),
    "a target of a word": (doc(notification_targets=["x"]), "notification_targets[0]: must be the id"),
    "a target of a number": (doc(notification_targets=[5]), "notification_targets[0]: must be the id"),
    "targets of a text": (doc(notification_targets="x"), "notification_targets: must be null"),
    "targets of an object": (doc(notification_targets={}), "notification_targets: must be null"),
    "a key twice": ('{"source_id":"a","source_id":"b"}', "source_id: is given twice (first on line 1)"),
    "brackets without end": ("[" * 100_000, DEEP),
    "braces without end": ('{"a":' * 100_000, DEEP),
    "deep filters": (raw(event='{"filters":' + "[" * 3000 + "]" * 3000 + "}"), DEEP),
    "filters a little too deep": (raw(event='{"filters":' + "[" * 40 + "]" * 40 + "}"), DEEP),
    "all bytes": (bytes(range(256)), "m.json: not UTF-8 text"),
    "UTF-16": (doc().encode("utf-16"), "m.json: not UTF-8 text"),
    "a byte order mark and a mistake": ("\ufeff{}", "source_id is missing"),
    "a NUL": ("\0", "m.json:1: is not valid JSON"),
    "half a character": (raw(source_id='"\\ud800"'), "'\\ud800' holds half a character"),
    "half a character as a key": ('{"\\ud800":1}', "'\\ud800' holds half a character"),
    "half a character in filters": (raw(event='{"filters":{"a":["\\udfff"]}}'), "half a character"),
    "10 MB": ("[" + " " * 10_000_000 + "]", "larger than 1048576 bytes"),
    "text behind it": (doc() + "x", "Extra data"),
    "single quotes": ("{'a':1}", "Expecting property name"),
    "YAML": ("source_id: a\n", "m.json:1: is not valid JSON"),
    "a schema of a number": (doc(**{"$schema": 5}), "'$schema': must be a text"),
    "an escape sequence": (doc(**{"\x1b[31m": 1}), "'\\x1b[31m': unknown key"),
    "a line break": (doc(**{"a\nb": 1}), "'a\\nb': unknown key"),
    "the key as a key": (doc(**{KEY: 1}), "plx_*** unknown key"),
    "the key as a bound": (doc(threshold={"max": KEY}), 'not "plx_***"'),
    "a long key": (doc(**{"k" * 100_000: 1}), "unknown key"),
    "a long value": (doc(threshold={"max": "v" * 100_000}), "threshold.max: must be"),
    "a prototype": (doc(__proto__={}), "__proto__: unknown key"),
}


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize(("content", "words"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_bad_document(tmp_path: Path, command: str, content: str | bytes, words: str) -> None:
    """File, place and what is wrong; the platform, which does not answer here, was not asked."""
    file_at(tmp_path, "m.json", content)
    before = files_of(tmp_path)
    refused(through(tmp_path, ["monitors", command, "m.json"]), 2, words)
    assert files_of(tmp_path) == before


def test_things_that_are_no_document(tmp_path: Path) -> None:
    """Nothing, a name too long, an empty folder, a folder of folders, links to nothing and to themselves."""
    for name in ("empty", "folders/a.json", "links", "circles"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "links/a.json").symlink_to("nowhere")
    (tmp_path / "circles/a.json").symlink_to("a.json")
    for path, words in {
        "nowhere": "no such file or directory",
        "x" * 5000: "File name too long",
        "empty": "no monitor in it",
        "folders": "Is a directory",
        "links": "No such file",
        "circles": "Too many levels",
        "/dev/null": "is not valid JSON",
    }.items():
        refused(through(tmp_path, ["monitors", "plan", path]), 2, words)


SHORT = "for: {source: a, metric: m}\n"
IN_SHORT: dict[str, tuple[str, str, str]] = {
    "nothing": ("m.yaml", "", "m.yaml: a monitor must be an object, not none"),
    "a tag": ("m.yaml", "for: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    "an alias in itself": ("m.yaml", "for: &a [*a]\n", "nested more than 32 levels deep"),
    "a key twice": ("m.yaml", f"{SHORT}max: 1\nmax: 2\n", "m.yaml:3: max: is given twice (first on line 2)"),
    "not a number": ("m.yaml", f"{SHORT}max: .nan\n", "m.yaml:2: max: must be a finite number, not NaN"),
    "a number without end": ("m.yaml", f"{SHORT}max: 0x{'f' * 8000}\n", "m.yaml:2: max: must be a finite"),
    "a date": ("m.yml", f"{SHORT}max: 2020-01-01\n", "m.yml:2: max: must be a text, not a date"),
    "bytes": ("m.yml", f"{SHORT}message: !!binary aGk=\n", "message: must be a text, not a bytes"),
    "a key of a number": ("m.yaml", f"{SHORT}1: 2\n", '"1" is not a text key; put it in quotes'),
    "a variable of nothing": ("m.yaml", f'{SHORT}max: "${{}}"\n', "m.yaml:2: max: holds a '${' that begins"),
    "an open variable": ("m.yaml", f'{SHORT}max: "${{x"\n', "m.yaml:2: max: holds a '${' that begins"),
    "the key as a target": ("m.yaml", f"{SHORT}max: 1\ntargets: [{KEY}]\n", "is no known target"),
    "the key as a variable": ("m.yaml", f'{SHORT}max: "${{{KEY}}}"\n', "the variable plx_***"),
    "many sources": ("m.toml", "for.source = [" + "'a['," * 9999 + "]\nmax = 1\n", "m.toml:1: for.source[0]"),
    "a time": ("m.toml", "[[monitors]]\nmetric = 10:00:00\n", "m.toml:2: monitors[0].metric: must be a text"),
    "a number as monitors": ("m.toml", "monitors = 5\n", "m.toml:1: monitors: must be a list of monitors"),
    "a table as monitors": ("m.toml", "[monitors]\nmax = 1\n", "monitors: must be a list of monitors"),
    "a key beside monitors": (
        "m.toml",
        "max = 1\n[[monitors]]\n",
        "m.toml:1: max: unknown key beside monitors",
    ),
}


@pytest.mark.parametrize(("name", "content", "words"), IN_SHORT.values(), ids=IN_SHORT)
def test_a_bad_document_in_the_short_form(tmp_path: Path, name: str, content: str, words: str) -> None:
    """The same for the short form, YAML and TOML."""
    file_at(tmp_path, name, content)
    refused(through(tmp_path, ["monitors", "plan", name]), 2, words)


@pytest.mark.parametrize("given", ["x", "=3", ""])
def test_a_variable_on_the_command_line_has_a_name(tmp_path: Path, given: str) -> None:
    """What is not name=value is wrong usage."""
    refused(through(tmp_path, ["monitors", "plan", "--var", given]), 2, "is not of the form name=value")


def test_a_variable_has_the_type_of_its_json(tmp_path: Path) -> None:
    """A number is one, a list or no JSON at all a text; the command line goes over the configuration."""
    file_at(tmp_path, "m.yaml", f'{SHORT}max: "${{line}}"\n')
    env = {"PLEXUS_DETECT_MONITORS__VARS": '{"line": false}'}
    refused(through(tmp_path, ["monitors", "plan", "m.yaml"], env=env), 2, "or null, not false")
    for given, words in {"x": 'not "x"', "[3]": 'not "[3]"', "true": "not true", "": 'not ""'}.items():
        said = through(tmp_path, ["monitors", "plan", "m.yaml", "--var", f"line={given}"], env=env)
        refused(said, 2, f"m.yaml:2: max: must be a finite number or null, {words}")
    refused(through(tmp_path, ["monitors", "plan", "m.yaml", "--var", "line=3"], env=env), 75)
