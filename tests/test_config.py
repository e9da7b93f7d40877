"""What settings mean: merging, variables, precedence, rules, and that every example loads."""

from __future__ import annotations

import json
import pickle
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plexus_detect.config import (
    Config,
    DetectConfig,
    config_schema,
    duration_ms,
    format_duration,
    load_config,
    variable_names,
)
from plexus_detect.errors import ConfigError
from plexus_detect.series import RESERVED_SUFFIXES

KEY = "plx_0123456789abcdefABCDEF0123456789"
EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".toml"))
SCHEMA_READERS = {".yaml": yaml.safe_load, ".toml": tomllib.loads}


def load(folder: Path, *contents: str, env: Mapping[str, str] | None = None) -> Config:
    """The Config of YAML files with these contents, in this order."""
    paths = []
    for i, content in enumerate(contents):
        paths.append(folder / f"{i}.yaml")
        paths[-1].write_text(content)
    return load_config(paths, env or {})


def test_no_file_at_all_gives_the_documented_defaults() -> None:
    """Without file and environment the defaults hold, and they are the ones that the documentation names."""
    config = load_config([], {})
    assert (config.poll.interval_ms, config.poll.overlap_ms, config.poll.settle_ms) == (5000, 10_000, 0)
    assert (config.poll.history_ms, config.poll.catchup_max_ms) == (14 * 86_400_000, 6 * 3_600_000)
    assert (config.poll.limit, config.poll.pages_max) == (100_000, 64)
    assert (config.plexus.timeout_ms, config.plexus.concurrency) == (30_000, 4)
    assert config.detect == DetectConfig.model_validate(
        {"threshold": 3, "consecutive": 3, "of": 3, "close_after": 3, "window": 300, "min_points": 30}
    )
    assert (config.fleet.group_min, config.fleet.bucket_ms, config.fleet.stale_after_ms) == (5, None, None)
    assert (config.fleet.settle_ms, config.fleet.threshold) == (2000, 3.0)
    assert config.post.series == ("zscore", "fleet_zscore", "anomaly", "zscore_late")
    assert (config.post.max_alert_age_ms, config.post.batch_points_max) == (120_000, 10_000)
    assert (config.state.path, config.monitors.path) == (Path("plexus-detect.db"), Path("monitors"))
    assert (config.log.level, config.log.format) == ("info", "logfmt")
    assert [(rule.name, rule.sources, rule.metrics) for rule in config.series] == [
        ("series-0", ("*",), ("*",))
    ]


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("14d", 1_209_600_000),
        ("1.5s", 1500),
        (" 7 s ", 7000),
        ("2", 2000),
        (2, 2000),
        (0.25, 250),
        ("0s", 0),
    ],
)
def test_durations_bring_their_unit_and_a_bare_number_is_seconds(written: object, ms: int) -> None:
    """A duration means the same as text with a unit, as text without one, and as a number."""
    assert duration_ms(written) == ms


@given(st.integers(0, 10**12))
def test_a_formatted_duration_reads_back(ms: int) -> None:
    """format_duration loses nothing."""
    assert duration_ms(format_duration(ms)) == ms


SAME = {
    "version": 1,
    "poll": {"interval": "2s", "limit": 500},
    "series": [{"name": "a", "sources": ["dev-*"], "detect": {"window": 50}}, {"metrics": ["t"]}],
    "fleet": {"enabled": False, "bucket": "auto"},
    "post": {"series": ["zscore_raw"]},
}
SAME_TOML = """
version = 1
poll = { interval = "2s", limit = 500 }
fleet = { enabled = false, bucket = "auto" }
post.series = ["zscore_raw"]
[[series]]
name = "a"
sources = ["dev-*"]
detect.window = 50
[[series]]
metrics = ["t"]
"""


def test_yaml_json_and_toml_mean_the_same(tmp_path: Path) -> None:
    """One content in the three languages gives equal configs, and none of them is the default."""
    contents = {"c.yaml": yaml.safe_dump(SAME), "c.yml": yaml.safe_dump(SAME), "c.json": json.dumps(SAME)}
    contents["c.toml"] = SAME_TOML
    configs = []
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        configs.append(load_config([tmp_path / name], {}))
    assert all(config == configs[0] for config in configs)
    assert configs[0].poll.interval_ms == 2000
    assert configs[0] != load_config([], {})


def test_variables_and_targets_of_monitors(tmp_path: Path) -> None:
    """A variable keeps its type, and null is a value of one, unlike anywhere else."""
    target = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"
    content = (
        f"monitors: {{path: , vars: {{a: 3, b: '3', c: true, d: , e: 1.5}}, targets: {{ops: {target}}}}}"
    )
    config = load(tmp_path, content).monitors
    assert repr(config.vars) == "{'a': 3, 'b': '3', 'c': True, 'd': None, 'e': 1.5}"
    assert (config.targets, config.path) == ({"ops": target}, Path("monitors"))


def test_later_files_go_over_earlier_ones_key_by_key(tmp_path: Path) -> None:
    """Sections are merged, lists are replaced as a whole, and a key without a value is a key not given."""
    config = load(
        tmp_path,
        "poll: {interval: 1s, limit: 7}\nseries: [{sources: [a]}, {sources: [b]}]\nlog:\n",
        "poll: {interval: 3s, overlap: }\nseries: [{sources: [c]}]",
    )
    assert (config.poll.interval_ms, config.poll.limit, config.poll.overlap_ms) == (3000, 7, 10_000)
    assert [rule.sources for rule in config.series] == [("c",)]
    assert load(tmp_path, "poll: {limit: 7}", "poll: {limit: }").poll.limit == 100_000
    assert load(tmp_path, "", "# only a comment\n") == load_config([], {})


@pytest.mark.parametrize(
    ("written", "variables", "path"),
    [
        ("${DIR}/x.db", {"DIR": "/var"}, "/var/x.db"),
        ("${DIR:-.}/x.db", {"DIR": "/var"}, "/var/x.db"),
        ("${DIR:-.}/x.db", {}, "x.db"),
        ("${DIR:-.}/x.db", {"DIR": ""}, "x.db"),
        ("${A:-}${B:?needed}", {"B": "b"}, "b"),
        ("$${DIR}", {"DIR": "/var"}, "${DIR}"),
        ("${A}", {"A": "${B}", "B": "b"}, "${B}"),
        ("$HOME", {"HOME": "/root"}, "$HOME"),
    ],
)
def test_variables_in_text(written: str, variables: dict[str, str], path: str, tmp_path: Path) -> None:
    """The forms of a variable; an empty one counts as not set, and what comes out is not read again."""
    assert load(tmp_path, f'state: {{path: "{written}"}}', env=variables).state.path == Path(path)


def test_a_variable_can_become_a_number_but_never_structure(tmp_path: Path) -> None:
    """Numbers and switches can come from variables; a value with YAML in it stays one text."""
    text = 'plexus: {concurrency: "${N:-8}"}\nfleet: {enabled: "${F:-no}"}\nstate: {path: "${P}"}'
    config = load(tmp_path, text, env={"P": "a\nlog: {level: debug}"})
    assert (config.plexus.concurrency, config.fleet.enabled, config.log.level) == (8, False, "info")
    assert config.state.path == Path("a\nlog: {level: debug}")


def test_the_environment_goes_over_files(tmp_path: Path) -> None:
    """PLEXUS_DETECT_* wins over a file; lists and sections are JSON; empty is not set; any case will do."""
    env = {
        "PLEXUS_DETECT_POLL__INTERVAL": "2s",
        "PLEXUS_DETECT_POLL": '{"interval": "9s", "overlap": "1s"}',
        "plexus_detect_fleet__bucket": "auto",
        "PLEXUS_DETECT_POST__SERIES": '["zscore_raw"]',
        "PLEXUS_DETECT_SERIES": '[{"sources": ["x"], "detect": null}]',
        "PLEXUS_DETECT_DETECT__THRESHOLD": "4.5",
        "PLEXUS_DETECT_LOG__LEVEL": "",
        "PLEXUS_DETECT_VERSION": "1",
        "UNRELATED": "x",
    }
    file = "poll: {interval: 1s, settle: 1s}\nlog: {level: DEBUG}\nfleet: {bucket: 3s}\nseries: [{}, {}]"
    config = load(tmp_path, file, env=env)
    assert (config.poll.interval_ms, config.poll.overlap_ms, config.poll.settle_ms) == (2000, 1000, 1000)
    assert config.fleet.bucket_ms is None
    assert config.post.series == ("zscore_raw",)
    assert [rule.sources for rule in config.series] == [("x",)]
    assert config.detect.threshold == 4.5
    assert config.log.level == "debug"


def outcome(env: Mapping[str, str]) -> str:
    """The config that this environment gives, or the error, as text."""
    try:
        return repr(load_config([], env))
    except ConfigError as error:
        return str(error)


def test_every_announced_variable_is_read() -> None:
    """Each name of variable_names() is known to the loader: it changes the config or is an error there."""
    for name in variable_names():
        said = outcome({name: "{"})
        assert re.match(rf"{name}: [a-z_.]+: ", said) or said != outcome({}), name


def test_what_kubernetes_puts_into_the_environment_is_no_mistake() -> None:
    """A Service named plexus-detect adds variables with our prefix to every pod; they are left alone."""
    links = [
        "SERVICE_HOST",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_80_TCP",
        "PORT_80_TCP_ADDR",
        "WEB_SERVICE_HOST",
    ]
    assert load_config([], {f"PLEXUS_DETECT_{link}": "x" for link in links}) == load_config([], {})


def test_the_platform_s_own_variables(tmp_path: Path) -> None:
    """PLEXUS_ENDPOINT and its like go over files, PLEXUS_DETECT_PLEXUS__* over them."""
    env = {
        "PLEXUS_ENDPOINT": "http://app:3000/",
        "PLEXUS_GATEWAY_URL": "http://gw",
        "PLEXUS_API_URL": "http://api",
    }
    config = load(tmp_path, "plexus: {endpoint: http://file, timeout: 1s}", env=env)
    assert (config.plexus.endpoint, config.plexus.gateway_url) == ("http://app:3000", "http://gw")
    assert (config.plexus.api_url, config.plexus.timeout_ms) == ("http://api", 1000)
    env["PLEXUS_DETECT_PLEXUS__ENDPOINT"] = "http://own"
    assert load_config([], env).plexus.endpoint == "http://own"


def test_the_key_comes_from_the_most_specific_place(tmp_path: Path) -> None:
    """PLEXUS_API_KEY over PLEXUS_API_KEY_FILE over the files; a later file's way over an earlier one's."""
    (tmp_path / "key").write_text("plx_file\n")
    env = {"PLEXUS_API_KEY": "plx_env ", "PLEXUS_API_KEY_FILE": str(tmp_path / "key")}
    literal, from_file = "plexus: {api_key: plx_yaml}", f"plexus: {{api_key_file: '{tmp_path}/key'}}"
    assert load(tmp_path, literal, env=env).require_api_key() == "plx_env"
    assert load(tmp_path, literal, env=env | {"PLEXUS_API_KEY": ""}).require_api_key() == "plx_file"
    assert load(tmp_path, literal).require_api_key() == "plx_yaml"
    assert load(tmp_path, literal, from_file).require_api_key() == "plx_file"
    assert load(tmp_path, from_file, literal).require_api_key() == "plx_yaml"
    own = {"PLEXUS_DETECT_PLEXUS__API_KEY": "plx_own", "PLEXUS_DETECT_PLEXUS__API_KEY_FILE": "nowhere"}
    assert load(tmp_path, literal, env=env | own).require_api_key() == "plx_own"


def test_a_missing_key_is_an_error_only_when_it_is_needed(tmp_path: Path) -> None:
    """Loading needs no key; asking for one that is not there says how to give it; an empty file is told."""
    sentence = "plexus.api_key: is not set; set PLEXUS_API_KEY, or PLEXUS_API_KEY_FILE to a file with it"
    for config in (load_config([], {}), load(tmp_path, 'plexus: {api_key: "${X:-}"}')):
        with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
            config.require_api_key()
    (tmp_path / "key").write_text(" \n")
    with pytest.raises(
        ConfigError, match=r"^PLEXUS_API_KEY_FILE: plexus\.api_key_file: .*key is empty; write"
    ):
        load_config([], {"PLEXUS_API_KEY_FILE": str(tmp_path / "key")})


def test_the_key_is_never_shown() -> None:
    """Neither repr nor str nor a dump of the config holds the key, and the key is really there."""
    config = load_config([], {"PLEXUS_API_KEY": KEY})
    shown = [
        repr(config),
        str(config),
        config.model_dump_json(),
        str(config.model_dump()),
        f"{config.plexus}",
    ]
    assert not any(KEY in text for text in shown)
    assert config.require_api_key() == KEY


def test_a_dump_reads_back(tmp_path: Path) -> None:
    """What model_dump_json writes by file keys is a config file that means the same."""
    config = load_config([EXAMPLES / "fleet_of_fifty.yaml"], {})
    (tmp_path / "c.json").write_text(config.model_dump_json(by_alias=True))
    assert load_config([tmp_path / "c.json"], {}).model_dump() == config.model_dump()


def test_a_config_does_not_change_and_can_be_sent_to_a_process() -> None:
    """Settings are frozen, and pickling keeps them, matchers included."""
    config = load_config([], {})
    with pytest.raises(ValidationError):
        config.poll.interval_ms = 1  # type: ignore[misc]
    assert config.rule_for("a", "b") == 0
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_first_matching_rule_wins(tmp_path: Path) -> None:
    """A series belongs to the first rule that selects it; an excluded one to a later rule or none."""
    config = load(
        tmp_path,
        "series:\n"
        "- {sources: [dev-*, 'x[12]'], metrics: [temp*],\n"
        "   exclude_sources: ['dev-9?'], exclude_metrics: ['*.raw']}\n"
        "- {sources: [dev-99]}\n",
    )
    assert config.rule_for("dev-1", "temperature") == 0
    assert config.rule_for("x2", "temp") == 0
    assert config.rule_for("x3", "temp") is None
    assert config.rule_for("dev-99", "temp") == 1
    assert config.rule_for("dev-98", "temp") is None
    assert config.rule_for("dev-1", "temp.raw") is None
    assert config.rule_for("DEV-1", "temp") is None
    assert config.rule_for("dev-1", "Temp") is None


@pytest.mark.parametrize("metric", ["_frame", *(f"temp{suffix}" for suffix in RESERVED_SUFFIXES)])
def test_our_own_series_are_never_selected(metric: str, tmp_path: Path) -> None:
    """Whatever the patterns say, a name that we could have posted is not watched."""
    config = load(tmp_path, f"series: [{{sources: [a], metrics: [temp, '{metric}', '*']}}]")
    assert config.rule_for("a", metric) is None
    assert config.series[0].literal_keys() == [("a", "temp")]


GLOBS = st.text(alphabet="ab[]!*?-^&|~.\\\n", min_size=1, max_size=8)


@given(patterns=st.lists(GLOBS, min_size=1, max_size=3), name=st.text(alphabet="ab[]!-.\n^", max_size=5))
def test_patterns_match_as_fnmatch_does(patterns: list[str], name: str) -> None:
    """A list of accepted patterns selects what fnmatch, case-sensitive, selects with any one of them."""
    try:
        config = Config.model_validate({"series": [{"sources": patterns}]})
    except ValidationError:
        return
    assert config.series[0].selects(name, "m") == any(fnmatchcase(name, pattern) for pattern in patterns)


def test_literal_names_need_no_discovery(tmp_path: Path) -> None:
    """Pairs without glob characters are listed once each, without what is excluded."""
    rule = "{sources: [a, b, a, 'c*'], metrics: [t, 'h?', 'x[1]', p], exclude_sources: [b]}"
    assert load(tmp_path, f"series: [{rule}]").series[0].literal_keys() == [("a", "t"), ("a", "p")]


def test_a_rule_inherits_what_it_does_not_say(tmp_path: Path) -> None:
    """detect_for gives the base section with the rule's own values; 'of' follows the rule's consecutive."""
    base, rules = "threshold: 4, relearn_after: 90m", "{}, {detect: {consecutive: 5, scale_floor: 0.5}}"
    config = load(tmp_path, f"detect: {{{base}}}\nseries: [{rules}]")
    assert config.detect_for(0) == config.detect
    own = config.detect_for(1)
    assert (own.threshold, own.consecutive, own.of, own.scale_floor) == (4.0, 5, 5, 0.5)
    assert own.relearn_after_ms == 5_400_000
    given_of = load(tmp_path, "detect: {consecutive: 2, of: 6}\nseries: [{detect: {consecutive: 4}}]")
    assert given_of.detect_for(0).of == 6


def test_half_moved_addresses_are_warned_of() -> None:
    """An address left at the hosted platform while another points elsewhere is said, with the remedy."""
    assert load_config([], {}).warnings() == ()
    still = "plexus.{} is still {} although plexus.endpoint points elsewhere; set it (or {}) as well"
    assert load_config([], {"PLEXUS_ENDPOINT": "http://a"}).warnings() == (
        still.format("gateway_url", "https://gateway.plexus.company", "PLEXUS_GATEWAY_URL"),
        still.format("api_url", "https://api.plexus.company", "PLEXUS_API_URL"),
    )
    everywhere = dict.fromkeys(("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL"), "http://a")
    assert load_config([], everywhere).warnings() == ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_example_loads_and_fits_the_schema(path: Path) -> None:
    """Each example is valid for the loader and for an editor, warns of nothing, and names its schema."""
    config = load_config([path], {})
    assert config.warnings() == ()
    assert config.version == 1
    document = SCHEMA_READERS[path.suffix](path.read_text())
    jsonschema.validate(document, config_schema())
    first = {
        ".yaml": "# yaml-language-server: $schema=config.schema.json",
        ".toml": "#:schema config.schema.json",
    }
    assert path.read_text().splitlines()[0] == first[path.suffix]


def test_the_three_deployments_are_there() -> None:
    """The examples that the documentation names exist."""
    assert {"esp32_bme280.yaml", "fleet_of_fifty.yaml", "self_hosted.toml"} <= {path.name for path in FILES}


def test_the_committed_schema_is_current() -> None:
    """examples/config.schema.json is what config_schema() says; if not, write it anew."""
    assert json.loads((EXAMPLES / "config.schema.json").read_text()) == config_schema()


@pytest.mark.parametrize(
    "document",
    [
        {"pol": {}},
        {"poll": {"limit": 0}},
        {"poll": {"interval": "5x"}},
        {"log": {"level": "loud"}},
        {"series": []},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_loader_refuses(document: dict[str, object]) -> None:
    """An editor marks unknown keys, bad numbers, durations and words; and takes variables for numbers."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, config_schema())
    jsonschema.validate({"poll": {"limit": "${N}", "interval": "${I:-5s}"}}, config_schema())
