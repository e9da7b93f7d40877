"""What a person reads when a setting is wrong: each sentence in full."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.config import Config, load_config
from plexus_detect.errors import ConfigError
from plexus_detect.positions import BYTES_MAX, DEPTH_MAX, VALUES_MAX

KEY = "plx_0123456789abcdefABCDEF0123456789"
DURATION = "write one like 500ms, 30s, 5m, 2h or 14d"
URL = "write one like https://app.plexus.company"
NO_URL = f"'x' is not a base URL beginning with http:// or https://; {URL}"
NO_JSON = 'the value is not usable JSON; write a list as ["a", "b"] and a section as {"key": 1}'
NO_FORM = (
    "holds a '${' that begins no variable; "
    "write ${NAME}, ${NAME:-default}, ${NAME:?message}, or $${ for the characters themselves"
)


def sentence(
    folder: Path, content: str | bytes, name: str = "f.yaml", env: Mapping[str, str] | None = None
) -> str:
    """The error of a file with this content; its folder is left out of the text."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        load_config([path], env or {})
    return str(caught.value).replace(f"{folder}/", "")


MISTAKES = {
    "poll:\n  intervall: 5s": "f.yaml:2: poll.intervall: unknown key; did you mean 'interval'?",
    "poll:\n  concurrency: 5": "f.yaml:2: poll.concurrency: unknown key; did you mean 'plexus.concurrency'?",
    "threshold: 3": "f.yaml:1: threshold: unknown key; did you mean 'detect.threshold'?",
    "series:\n- window: 20": "f.yaml:2: series[0].window: unknown key; did you mean 'detect.window'?",
    "log:\n  colour: red": "f.yaml:2: log.colour: unknown key; known keys are level, format",
    "polling: {}": "f.yaml:1: polling: unknown key; did you mean 'poll'?",
    "poll:\n  interval: 5x": f"f.yaml:2: poll.interval: '5x' is not a duration; {DURATION}",
    "poll: {interval: -5}": f"f.yaml:1: poll.interval: -5 is not a duration; {DURATION}",
    "poll: {interval: yes}": f"f.yaml:1: poll.interval: true is not a duration; {DURATION}",
    "poll: {interval: .inf}": f"f.yaml:1: poll.interval: inf is not a duration; {DURATION}",
    "poll: {interval: [5s]}": f"f.yaml:1: poll.interval: a list is not a duration; {DURATION}",
    "poll: {interval: 50ms}": (
        "f.yaml:1: poll.interval: '50ms' is out of range; choose a duration from 100ms to 1h"
    ),
    "fleet: {bucket: often}": f"f.yaml:1: fleet.bucket: 'often' is not a duration; {DURATION}, or auto",
    "poll: 5": "f.yaml:1: poll: 5 is not a section; write its keys below it",
    "poll: {limit: 100001}": "f.yaml:1: poll.limit: 100001 is too large; the most is 100000",
    "poll: {limit: 0}": "f.yaml:1: poll.limit: 0 is too small; the least is 1",
    "poll: {limit: 0x"
    + "f" * 8000
    + "}": "f.yaml:1: poll.limit: the number is too large; the most is 100000",
    "poll: {limit: many}": "f.yaml:1: poll.limit: 'many' is not a whole number; write one such as 10",
    "poll: {limit: 5.5}": "f.yaml:1: poll.limit: 5.5 is not a whole number; write one such as 10",
    "poll: {limit: {}}": "f.yaml:1: poll.limit: a mapping is not a whole number; write one such as 10",
    "detect: {consecutive: true}": (
        "f.yaml:1: detect.consecutive: true is not a number; write a number such as 3"
    ),
    "detect: {threshold: 0}": (
        "f.yaml:1: detect.threshold: 0 is too small; choose a number greater than 0.0"
    ),
    "detect: {threshold: .nan}": (
        "f.yaml:1: detect.threshold: nan is not a finite number; write one such as 10"
    ),
    "detect: {threshold: high}": "f.yaml:1: detect.threshold: 'high' is not a number; write one such as 2.5",
    "detect: {threshold: 2020-01-01}": (
        "f.yaml:1: detect.threshold: a date is not a number; write one such as 2.5"
    ),
    "detect:\n  window: 10": (
        "f.yaml:2: detect.window: impossible window: window = 10 points is less than min_points = 30; "
        "raise window or lower min_points"
    ),
    "detect:\n  min_points: 301": (
        "f.yaml:2: detect.min_points: impossible window: window = 300 points is less than min_points = 301; "
        "raise window or lower min_points"
    ),
    "fleet:\n  offset_window: 10": (
        "f.yaml:2: fleet.offset_window: impossible window: offset_window = 10 points is less than "
        "min_points = 30; raise offset_window or lower min_points"
    ),
    "detect:\n  consecutive: 4\n  of: 3": (
        "f.yaml:3: detect.of: 4 of the last 3 points can never be beyond the line; "
        "make of at least as large as consecutive"
    ),
    "detect:\n  of: 4\nseries:\n- detect:\n    consecutive: 5": (
        "f.yaml:5: series[0].detect.consecutive: 5 of the last 4 points can never be beyond the line; "
        "make of at least as large as consecutive"
    ),
    "series:\n- sources: [a]\n- detect:\n    window: 20": (
        "f.yaml:4: series[1].detect.window: impossible window: window = 20 points is less than "
        "min_points = 30; raise window or lower min_points"
    ),
    "series: []": "f.yaml:1: series: is an empty list; list at least 1, or leave the key out",
    "series: {}": 'f.yaml:1: series: a mapping is not a list; write one in brackets, like ["a", "b"]',
    "series:\n- sources: []": (
        "f.yaml:2: series[0].sources: is an empty list; list at least 1, or leave the key out"
    ),
    "series:\n- sources: dev": (
        'f.yaml:2: series[0].sources: \'dev\' is not a list; write one in brackets, like ["a", "b"]'
    ),
    "series:\n- sources:\n  - a\n  - 7": "f.yaml:4: series[0].sources[1]: 7 is not text; put it in quotes",
    "series:\n- sources: ['a[']": (
        "f.yaml:2: series[0].sources[0]: bad glob: '[' is never closed in 'a['; "
        "add a ']', or write [[] to match a '['"
    ),
    "series:\n- sources: ['[]']": (
        "f.yaml:2: series[0].sources[0]: bad glob: '[' is never closed in '[]'; "
        "add a ']', or write [[] to match a '['"
    ),
    "series:\n- exclude_metrics: ['']": (
        "f.yaml:2: series[0].exclude_metrics[0]: bad glob: an empty pattern matches nothing; "
        'write "*" to match everything'
    ),
    "series:\n- metrics: ['re:^a']": (
        "f.yaml:2: series[0].metrics[0]: bad glob: 're:^a' is a regular expression, which is not supported; "
        "use *, ? and [..] instead"
    ),
    "series:\n- metrics: ['*.zscore', _frame]": (
        "f.yaml:2: series[0].metrics: only names that the detector posts itself are listed, "
        "and those are never scored; list metrics that devices send"
    ),
    "series:\n- name: a\n- name: a": "f.yaml:3: series[1].name: 'a' is the name of two rules; rename one",
    "series:\n- name: a b": (
        "f.yaml:2: series[0].name: 'a b' is not a name; "
        "use up to 64 letters, digits, dots, dashes and underscores"
    ),
    "version: 2": "f.yaml:1: version: this program does not read version 2; write version: 1",
    "log: {level: warn}": (
        "f.yaml:1: log.level: 'warn' is not one of debug, info, warning, error; did you mean 'warning'?"
    ),
    "log: {format: xml}": "f.yaml:1: log.format: 'xml' is not one of logfmt, json, text; choose one of them",
    "post: {series: [zscore, zscore]}": (
        "f.yaml:1: post.series: 'zscore' is listed twice; remove one of them"
    ),
    "fleet: {enabled: maybe}": (
        "f.yaml:1: fleet.enabled: 'maybe' is neither true nor false; write one of them"
    ),
    "state: {path: 5}": "f.yaml:1: state.path: 5 is not a path; write one in quotes",
    "plexus: {endpoint: x}": f"f.yaml:1: plexus.endpoint: {NO_URL}",
    "plexus: {endpoint: 'http://h:x'}": f"f.yaml:1: plexus.endpoint: 'http://h:x' is not a URL; {URL}",
    "plexus: {endpoint: 'http://me:secret@h'}": (
        f"f.yaml:1: plexus.endpoint: a URL with a user name or a password is refused; {URL}"
    ),
    "plexus: {api_key: 5}": "f.yaml:1: plexus.api_key: the value is not text; put it in quotes",
    "monitors: {vars: {a b: 1}}": (
        "f.yaml:1: monitors.vars.'a b': 'a b' is not the name of a variable; "
        "use letters, digits, dashes and underscores"
    ),
    "monitors: {vars: {a: [1]}}": (
        "f.yaml:1: monitors.vars.a: a list is not a text, a number, true, false or null; write one of these"
    ),
    "monitors: {vars: {a: .inf}}": (
        "f.yaml:1: monitors.vars.a: inf is not a finite number; write one such as 10"
    ),
    "monitors: {targets: {ops: slack}}": (
        "f.yaml:1: monitors.targets.ops: 'slack' is not the id of an integration; "
        "copy it (a UUID) from the platform's settings"
    ),
    "poll:\n  interval: 1s\n  interval: 2s": (
        "f.yaml:3: poll.interval: is given twice (first on line 2); remove one of them"
    ),
    "log: {}\n1: 2": "f.yaml:2: 1 is not a text key; put it in quotes",
    "- a": "f.yaml: holds no keys at its top level; begin with a section such as poll:",
    "a: b: c": (
        "f.yaml:1: is not valid YAML: mapping values are not allowed here; "
        "correct that line or the one before it"
    ),
    "series:\n- sources: [*]": (
        "f.yaml:2: is not valid YAML: expected alphabetic or numeric character, but found ']'; "
        'put patterns with * or ? in quotes, like "dev-*"'
    ),
    "series:\n- metrics: [*temp]": (
        "f.yaml:2: is not valid YAML: found undefined alias 'temp'; "
        'put patterns with * or ? in quotes, like "dev-*"'
    ),
    "poll:\n\tinterval: 5s": (
        "f.yaml:2: is not valid YAML: found character '\\t' that cannot start any token; "
        "indent with spaces, not with tabs"
    ),
    "poll: {interval: ${X}}": (
        "f.yaml:1: is not valid YAML: expected ',' or '}', but got '{'; put ${...} in quotes"
    ),
    "x: !!python/object/apply:os.system ['true']": (
        "f.yaml:1: is not valid YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.system'; correct that line or the one before it"
    ),
    "x: 2020-99-99": (
        "f.yaml: is not valid YAML: a value does not fit its type; put dates and odd numbers in quotes"
    ),
    "x: \x01": "f.yaml: is not valid YAML: it holds unprintable characters; remove them",
    "x: &a [*a]": f"f.yaml: is nested more than {DEPTH_MAX} levels deep; make it flatter",
    "[" * 5000: f"f.yaml: is nested more than {DEPTH_MAX} levels deep; make it flatter",
    "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{y}: &{y} [{','.join(['*' + x] * 9)}]\n" for x, y in zip("abcdef", "bcdefg", strict=True)): (
        f"f.yaml: holds more than {VALUES_MAX} values; shorten it"
    ),
}


@pytest.mark.parametrize("content", MISTAKES, ids=lambda content: content[:40].replace("\n", " "))
def test_one_sentence_says_where_what_and_what_to_do(content: str, tmp_path: Path) -> None:
    """Every mistake in a YAML file is told with file, line, key, what is wrong, and what to do."""
    assert sentence(tmp_path, content) == MISTAKES[content]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "f.json",
            '{"poll": {\n\t"interval": "5x"}}',
            f"f.json:2: poll.interval: '5x' is not a duration; {DURATION}",
        ),
        (
            "f.json",
            '{"poll": {\n"interval": }}',
            "f.json:2: is not valid JSON: Expecting value; correct that line or the one before",
        ),
        ("f.json", '{"a": 1,\n"a": 2}', "f.json:2: a: is given twice (first on line 1); remove one of them"),
        ("f.json", "[" * 100_000, f"f.json: is nested more than {DEPTH_MAX} levels deep; make it flatter"),
        (
            "f.json",
            '{"a": ' + "9" * 5000 + "}",
            "f.json: is not valid JSON: a number is too long; shorten it",
        ),
        ("f.toml", "[poll]\ninterval = '5x'", f"f.toml:2: poll.interval: '5x' is not a duration; {DURATION}"),
        ("f.toml", "[poll]\ninterval = x", "f.toml:2: is not valid TOML: Invalid value; correct that line"),
        (
            "f.toml",
            "a=" + "[" * 100_000,
            f"f.toml: is nested more than {DEPTH_MAX} levels deep; make it flatter",
        ),
        (
            "f.toml",
            f"a={'[' * 50}{']' * 50}",
            f"f.toml: is nested more than {DEPTH_MAX} levels deep; make it flatter",
        ),
        ("f.ini", "", "f.ini: is of an unknown kind; use a name that ends in .yaml, .yml, .json or .toml"),
        ("f.yaml", b"a: 1\nb: \xff", "f.yaml:2: is not UTF-8 text; save it as UTF-8"),
        (
            "f.yaml",
            b"#" * (BYTES_MAX + 1),
            "f.yaml: is larger than 1048576 bytes; split it into several files",
        ),
    ],
    ids=range(12),
)
def test_other_kinds_of_file(name: str, content: str | bytes, expected: str, tmp_path: Path) -> None:
    """JSON errors have lines as YAML's do; TOML syntax errors too; what is no config at all is said so."""
    assert sentence(tmp_path, content, name) == expected


def test_a_file_that_is_not_there_is_named() -> None:
    """A missing file and a folder are one sentence each, not a traceback."""
    with pytest.raises(ConfigError) as caught:
        load_config([Path("nowhere.yaml")], {})
    expected = "nowhere.yaml: cannot be read (No such file or directory); check the path and its rights"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"PLEXUS_DETECT_POLL__INTERVAL": "2x"},
            f"PLEXUS_DETECT_POLL__INTERVAL: poll.interval: '2x' is not a duration; {DURATION}",
        ),
        (
            {"PLEXUS_DETECT_POLL__INTRVAL": "2s"},
            (
                "PLEXUS_DETECT_POLL__INTRVAL: unknown environment variable; "
                "did you mean 'PLEXUS_DETECT_POLL__INTERVAL'?"
            ),
        ),
        (
            {"PLEXUS_DETECT_FOO": "2s"},
            "PLEXUS_DETECT_FOO: unknown environment variable; use PLEXUS_DETECT_<SECTION>__<KEY>",
        ),
        (
            {"PLEXUS_DETECT_POST__SERIES": "zscore"},
            f"PLEXUS_DETECT_POST__SERIES: post.series: {NO_JSON}",
        ),
        (
            {"PLEXUS_DETECT_SERIES": "[" * 100 + "]" * 100},
            f"PLEXUS_DETECT_SERIES: series: {NO_JSON}",
        ),
        (
            {"PLEXUS_DETECT_POLL": '{"intervall": 1}'},
            "PLEXUS_DETECT_POLL: poll.intervall: unknown key; did you mean 'interval'?",
        ),
        (
            {"PLEXUS_ENDPOINT": "x"},
            f"PLEXUS_ENDPOINT: plexus.endpoint: {NO_URL}",
        ),
        (
            {"PLEXUS_API_KEY_FILE": "nowhere"},
            (
                "PLEXUS_API_KEY_FILE: plexus.api_key_file: nowhere cannot be read "
                "(No such file or directory); check the path and its rights"
            ),
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_error_in_the_environment_names_the_variable(variables: dict[str, str], expected: str) -> None:
    """Where a file would be named, the variable is; an unknown one gets its near match."""
    with pytest.raises(ConfigError) as caught:
        load_config([], variables)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${X}", "the environment variable X is not set; set it or write ${X:-default}"),
        ("${X:?give the app's address}", "give the app's address; set the environment variable X"),
        ("${X:?}", "the environment variable X is not set; set it or write ${X:-default}"),
        ("${X-1}", NO_FORM),
        ("a${X", NO_FORM),
    ],
)
def test_a_variable_that_cannot_be_replaced(written: str, expected: str, tmp_path: Path) -> None:
    """A required variable that is not set, or is empty, stops the start and says which one it is."""
    said = sentence(tmp_path, f'plexus:\n  endpoint: "{written}"', env={"X": ""})
    assert said == f"f.yaml:2: plexus.endpoint: {expected}"


def test_the_file_with_the_mistake_is_the_one_named(tmp_path: Path) -> None:
    """With several files the error names the one that wrote the value, also when it replaced a list."""
    (tmp_path / "a.yaml").write_text("\n\nseries:\n- sources: [a, b, c]\npoll:\n  limit: 5\n")
    (tmp_path / "b.yaml").write_text("series:\n- sources: [a, 'b[']\n")
    with pytest.raises(ConfigError, match=r"b\.yaml:2: series\[0\]\.sources\[1\]: bad glob"):
        load_config([tmp_path / "a.yaml", tmp_path / "b.yaml"], {})
    (tmp_path / "b.yaml").write_text("poll: {interval: 5s}\n")
    (tmp_path / "a.yaml").write_text("poll:\n  limit: -5\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: poll\.limit: -5 is too small"):
        load_config([tmp_path / "a.yaml", tmp_path / "b.yaml"], {})


@pytest.mark.parametrize(
    ("content", "env"),
    [
        (f"plexus: {{endpoint: '{KEY}'}}", {}),
        (f"plexus:\n  {KEY}: 1", {}),
        ("plexus: {endpoint: '${PASSWORD}'}", {"PASSWORD": "hunter22"}),
        ("log: {level: '${PASSWORD}'}", {"PASSWORD": "hunter22"}),
        ("poll: {interval: '${PASSWORD}'}", {"PASSWORD": "hunter22"}),
        (f"plexus: {{api_key: ['{KEY}', hunter22]}}", {}),
        ("poll: {}", {"PLEXUS_ENDPOINT": KEY}),
        ("poll: {}", {"PLEXUS_API_KEY_FILE": KEY}),
        ("poll: {}", {"PLEXUS_DETECT_PLEXUS": '{"api_key": "hunter22'}),
        (f"plexus: {{api_key: '{KEY}", {}),
    ],
    ids=range(10),
)
def test_no_error_shows_a_secret(content: str, env: dict[str, str], tmp_path: Path) -> None:
    """A key in the wrong place, and whatever came out of a variable, is not repeated in the error."""
    said = sentence(tmp_path, content, env=env)
    assert KEY not in said
    assert "hunter22" not in said
    assert len(said.splitlines()) == 1


WORDS = st.sampled_from(
    ["poll:", "series", "interval", "${X}", "${", "*a", "&a", "<<:", "!!int", "!!bool", "1e999"]
)
MARKS = st.sampled_from("[]{}:*&!<>|?\"'#=,~ \n\t-%@`x5")


@given(
    content=st.one_of(st.text(), st.binary(), st.lists(WORDS | MARKS, max_size=30).map("".join)).map(
        lambda content: content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    ),
    suffix=st.sampled_from([".yaml", ".json", ".toml"]),
)
@example(content=b"!!int '': 1", suffix=".yaml")
@example(content=b"!!bool x: 1", suffix=".yaml")
@example(content=b"!!timestamp x: 1", suffix=".yaml")
@example(content=b"? [a]\n: 1", suffix=".yaml")
@example(content=b"<<: 5", suffix=".yaml")
@example(content=b"poll: {interval: 1e400}", suffix=".yaml")
@example(content=b'{"poll": {"limit": NaN}}', suffix=".json")
@example(content=b'{"\\ud800": 1}', suffix=".json")
@example(content=b'{"plexus": {"endpoint": "\\ud800"}}', suffix=".json")
@example(content=b'{"plexus": {"endpoint": "http://\\u2100"}}', suffix=".json")
@example(content=b'{"plexus": {"api_key_file": "a\\u0000b"}}', suffix=".json")
@examples(4000)
def test_no_file_can_do_worse_than_a_config_error(content: bytes, suffix: str) -> None:
    """Whatever a file holds, loading ends with a Config or with a ConfigError of one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"f{suffix}"
        path.write_bytes(content)
        try:
            assert isinstance(load_config([path], {}), Config)
        except ConfigError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - either outcome is fine
