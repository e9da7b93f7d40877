"""Bad configuration files and variables: exit 2, one sentence that says where, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from door import KEY, file_at, files_of, refused, through

NINE = ",".join(["x"] * 9)
LETTERS = list(zip("abcdefgh", "bcdefghi", strict=True))
BOMB = f"a: &a [{NINE}]\n" + "".join(f"{y}: &{y} [{','.join(['*' + x] * 9)}]\n" for x, y in LETTERS)
MAP_BOMB = "a: &a {k: v}\n" + "".join(
    f"{y}: &{y} {{" + ",".join(f"k{i}: *{x}" for i in range(9)) + "}\n" for x, y in LETTERS
)
MERGE_BOMB = "a: &a {k: v}\n" + "".join(
    f"{y}: &{y} {{<<: [{','.join(['*' + x] * 200)}]}}\n" for x, y in LETTERS
)
CODE = "is not valid YAML: could not determine a constructor for the tag"

YAML: dict[str, tuple[str | bytes, str]] = {
    "aliases that grow": (BOMB, "more than 100000 values"),
    "mappings that grow": (MAP_BOMB, "more than 100000 values"),
    "merges that grow": (MERGE_BOMB, "more than 100000 values"),
    "a list in itself": ("a: &a [*a]\n", "nested more than 32"),
    "a merge with itself": ("a: &a\n  <<: *a\n", "nested more than 32"),
    "a document in itself": ("&a\n<<: *a\n", "nested more than 32"),
    "a deep list": ("a: " + "[" * 2000 + "]" * 2000, "nested more than 32"),
    "a deep mapping": ("".join(" " * i + "a:\n" for i in range(300)), "nested more than 32"),
    "a list as a key": ("? &a [1,2]\n: 1\n", "unhashable key"),
    "a mapping as a key": ("? {a: b}\n: 1\n", "unhashable key"),
    "an alias as a key": ("&a ? *a\n: 1\n", "not valid YAML"),
    "a set": ("!!set {a, b}\n", "holds no keys at its top level"),
    "an ordered map": ("!!omap [a: 1]\n", "holds no keys at its top level"),
    "pairs": ("x: !!pairs [a: 1]\n", "x: unknown key"),
    "bytes": ("poll: {interval: !!binary aGVsbG8=}\n", "a bytes is not a duration"),
    "a system call": ("x: !!python/object/apply:os.system ['touch pwned']\n", CODE),
    "a new object": ("!!python/object/new:os.system ['touch pwned']\n", CODE),
    "a process": ("x: !!python/object/apply:subprocess.Popen [[touch, pwned]]\n", CODE),
    "a function's name": ("x: !!python/name:os.system\n", CODE),
    "a module": ("!!python/module:os\n", CODE),
    "a tuple of Python": ("x: !!python/tuple [1]\n", CODE),
    "a tag of one's own": ("x: !foo bar\n", CODE),
    "a tag by its handle": ("%TAG ! tag:x,2000:\n---\n!foo a: 1\n", CODE),
    "another version of YAML": ("%YAML 9.9\n---\na: 1\n", "incompatible YAML document"),
    "two documents": ("poll: {}\n---\npoll: {}\n", "another document"),
    "a merge with a number": ("<<: 5\n", "expected a mapping or list of mappings"),
    "a wrong colon": ("a: b: c\n", "mapping values are not allowed here"),
    "an open bracket": ("poll: [\n", "not valid YAML"),
    "an open quote": ("poll: {interval: '5s}\n", "not valid YAML"),
    "an unknown alias": ("poll: *nobody\n", "undefined alias"),
    "a tab": ("\tpoll: 5\n", "indent with spaces"),
    "a bare variable": ("poll: {interval: ${X}}\n", "put ${...} in quotes"),
    "a number of 5000 digits": ("poll: {limit: " + "9" * 5000 + "}\n", "a value does not fit its type"),
    "a number of 100 digits": ("poll: {limit: " + "9" * 100 + "}\n", "the number is too large"),
    "a hexadecimal number": ("poll: {limit: 0x" + "f" * 5000 + "}\n", "the number is too large"),
    "a number of the wrong base": ("poll: {limit: 0o7}\n", "'0o7' is not a whole number"),
    "infinity": ("detect: {threshold: .inf}\n", "not a finite number"),
    "not a number": ("detect: {threshold: .nan}\n", "not a finite number"),
    "a date": ("poll: {interval: 2020-01-01T00:00:00Z}\n", "a datetime is not a duration"),
    "an impossible date": ("poll: {interval: 2020-99-99}\n", "a value does not fit its type"),
    "an impossible zone": ("x: 2020-01-01T00:00:00+99:99\n", "a value does not fit its type"),
    "a NUL": (b"poll: \0\n", "unprintable characters"),
    "an escaped NUL": ('poll: {interval: "\\0"}\n', "'\\x00' is not a duration"),
    "an escape sequence": ('poll: {interval: "\\e[31m"}\n', "'\\x1b[31m' is not a duration"),
    "half a character": ('poll: {interval: "\\ud800"}\n', "'\\ud800' is not a duration"),
    "a mark of direction": ('poll: {"\\u202e": 1}\n', "poll.'\\u202e': unknown key"),
    "a line break in a key": ('poll: {"a\\nb": 1}\n', "poll.'a\\nb': unknown key"),
    "UTF-16": ("poll: {}\n".encode("utf-16"), "is not UTF-8 text"),
    "UTF-32": ("poll: {}\n".encode("utf-32"), "is not UTF-8 text"),
    "Latin-1": (b"poll: {interval: \xb55s}\n", "is not UTF-8 text"),
    "all bytes": (bytes(range(256)), "is not UTF-8 text"),
    "a byte order mark and a mistake": ("\ufeffpoll: 5\n", "poll: 5 is not a section"),
    "a word": ("hello\n", "holds no keys at its top level"),
    "a number": ("5\n", "holds no keys at its top level"),
    "a list": ("- a\n", "holds no keys at its top level"),
    "an empty key": ("'': 1\n", "'': unknown key"),
    "a section twice": ("poll: {}\npoll: {}\n", "is given twice (first on line 1)"),
    "a long key": ("poll: {? '" + "k" * 50_000 + "' : 1}\n", "unknown key"),
    "a long value": ("poll: {interval: '" + "v" * 50_000 + "'}\n", "is not a duration"),
    "10 MB": ("#" * 10_000_000, "is larger than 1048576 bytes"),
    "many keys": ("".join(f"k{i}: 1\n" for i in range(3000)), "k0: unknown key"),
    "open brackets of a glob": ("series: [{sources: ['" + "[" * 2000 + "']}]\n", "'[' is never closed"),
    "a section as a number": ("poll: 5\n", "poll: 5 is not a section"),
    "a list as a section": ("poll: []\n", "poll: a list is not a section"),
    "a mapping as a list": ("series: {}\n", "series: a mapping is not a list"),
    "a rule as a number": ("series: [5]\n", "series[0]: 5 is not a section"),
    "a switch as a number": ("poll: {limit: yes}\n", "true is not a number"),
    "a number as a path": ("state: {path: 5}\n", "5 is not a path"),
    "a path with a NUL": ('state: {path: "a\\0b"}\n', "'a\\x00b' is not a path"),
    "certificates with a NUL": ('plexus: {ca_file: "a\\0b"}\n', "'a\\x00b' is not a path"),
    "monitors with a NUL": ('monitors: {path: "a\\0b"}\n', "'a\\x00b' is not a path"),
    "models with a NUL": ('state: {models: "a\\0b"}\n', "'a\\x00b' is not a path"),
    "a key file that is a folder": ("plexus: {api_key_file: .}\n", "cannot be read (Is a directory)"),
    "a key file that is not there": ("plexus: {api_key_file: nowhere}\n", "No such file or directory"),
    "a key file without a key": ("plexus: {api_key_file: /dev/null}\n", "is empty"),
    "a time zone that climbs": ("detect: {timezone: ../../etc/passwd}\n", "is not a time zone"),
    "a time zone that is a file": ("detect: {timezone: /etc/passwd}\n", "is not a time zone"),
    "a time zone with a NUL": ('detect: {timezone: "a\\0b"}\n', "is not a time zone"),
    "a port that is none": ("health: {listen: '1:2:3:x'}\n", "is not an address to listen on"),
    "a source that is none": ("heartbeat: {source: 'A b'}\n", "cannot be a source"),
    "a detector without a name": ("detectors: [{}]\n", "detectors[0].name: is missing"),
    "a detector as a number": ("detectors: [5]\n", "detectors[0]: 5 is not a section"),
    "detectors as a mapping": ("detectors: {a: 1}\n", "detectors: a mapping is not a list"),
    "a version to come": ("version: 99\n", "does not read version 99"),
    "a version that is a list": ("version: []\n", "a list is not a whole number"),
    "a pattern that is none": ("metrics: {'[': {}}\n", "'[' is never closed"),
    "the key as a section": (f"plexus:\n  {KEY}: 1\n", "unknown key"),
    "the key as an address": (f"plexus: {{endpoint: '{KEY}'}}\n", "is not a base URL"),
}

JSON: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "Expecting value"),
    "cut off": ('{"poll": ', "Expecting value"),
    "NaN": ('{"detect":{"threshold":NaN}}', "not a finite number"),
    "Infinity": ('{"detect":{"threshold":Infinity}}', "not a finite number"),
    "a large exponent": ('{"detect":{"threshold":1e999}}', "not a finite number"),
    "a key twice": ('{"poll":{},"poll":{}}', "is given twice"),
    "brackets without end": ("[" * 100_000, "nested more than 32"),
    "braces without end": ('{"a":' * 100_000, "nested more than 32"),
    "closed and deep": ('{"a":' * 500 + "1" + "}" * 500, "nested more than 32"),
    "text behind it": ("{} x", "Extra data"),
    "a comment": ("{/*x*/}", "Expecting property name"),
    "single quotes": ("{'a':1}", "Expecting property name"),
    "a list": ("[]", "holds no keys at its top level"),
    "a number": ("5", "holds no keys at its top level"),
    "5000 digits": ('{"a":' + "9" * 5000 + "}", "a number is too long"),
    "all bytes": (bytes(range(256)), "is not UTF-8 text"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "is not UTF-8 text"),
    "a NUL in a key": ('{"a\\u0000b":1}', "unknown key"),
    "half a character as a key": ('{"\\ud800":1}', "half a character"),
    "a prototype": ('{"__proto__":{"a":1}}', "unknown key"),
    "a class": ('{"__class__":1}', "unknown key"),
    "a method": ('{"poll":{"__init__":1}}', "unknown key"),
    "pydantic's own": ('{"model_config":{}}', "unknown key"),
}

TOML: dict[str, tuple[str | bytes, str]] = {
    "cut off": ("[poll", "not valid TOML"),
    "a table twice": ("[poll]\n[poll]\n", "not valid TOML"),
    "a key twice": ("a=1\na=2\n", "not valid TOML"),
    "brackets without end": ("a=" + "[" * 5000, "nested more than 32"),
    "dots without end": (".".join(["a"] * 2000) + "=1\n", "nested more than 32"),
    "a date": ("poll.interval=2020-01-01\n", "a date is not a duration"),
    "a time": ("poll.interval=10:00:00\n", "a time is not a duration"),
    "infinity": ("detect.threshold=inf\n", "not a finite number"),
    "not a number": ("detect.threshold=nan\n", "not a finite number"),
    "5000 digits": ("poll.limit=" + "9" * 5000 + "\n", "a number is too long"),
    "all bytes": (bytes(range(256)), "is not UTF-8 text"),
    "bad UTF-8": (b'a="\xff"', "is not UTF-8 text"),
    "a list of tables": ("[[poll]]\n", "poll: a list is not a section"),
    "a wrong escape": ('a="\\x"\n', "not valid TOML"),
    "a bare carriage return": ("a=1\rb=2", "not valid TOML"),
}

CASES = [
    pytest.param(f"f.{suffix}", *case, id=f"{suffix}: {name}")
    for suffix, table in (("yaml", YAML), ("json", JSON), ("toml", TOML))
    for name, case in table.items()
]


@pytest.mark.parametrize(("name", "content", "words"), CASES)
def test_a_bad_file(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    """Exit 2 with the file's name and what is wrong with it; nothing is written, nothing is run."""
    file_at(tmp_path, name, content)
    before = files_of(tmp_path)
    env = {"PLEXUS_API_KEY": ""} if "api_key_file" in str(content) else {}
    said = through(tmp_path, ["run", "--once", "-c", name], env=env, url=None)
    refused(said, 2, name, words)
    assert files_of(tmp_path) == before


ADDRESSES = {
    "an open bracket": "http://[::1",
    "a blank": "http://a b",
    "a file": "file:///etc/passwd",
    "a port out of range": "http://x:99999",
    "port 0": "http://x:0",
    "no host": "http://",
    "a script": "javascript:alert(1)",
    "a NUL": "http://\0x",
    "a control character in the path": "http://x/\x01",
    "a name that IDNA refuses": "http://xn--a",
    "a sign of many letters": "http://\u2100",
    "a mark of direction": "http://\u202eevil",
    "a path of 70,000 characters": "http://h/" + "p" * 70_000,
    "an address of four wrong numbers": "http://256.1.1.1",
    "a password": "http://me:S3cret@host",
    "a query": "http://h?x",
    "a fragment": "http://h#x",
    "no scheme": "//h",
    "a word": "plexus",
}


@pytest.mark.parametrize("setting", ["endpoint", "gateway_url"])
@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_a_bad_address(tmp_path: Path, setting: str, address: str) -> None:
    """Exit 2 before anybody is asked, and without the password that may be in it."""
    file_at(tmp_path, "f.json", json.dumps({"plexus": {setting: address}}))
    refused(through(tmp_path, ["run", "--once", "-c", "f.json"], url=None), 2)


def test_things_that_are_no_file(tmp_path: Path) -> None:
    """A folder, nothing, a name too long, a file of another kind."""
    (tmp_path / "d.yaml").mkdir()
    file_at(tmp_path, "f.ini", "poll: 5\n")
    for name, words in {
        "d.yaml": "Is a directory",
        "nowhere.yaml": "No such file",
        "x" * 300 + ".yaml": "File name too long",
        "f.ini": "unknown kind",
        "/dev/null": "unknown kind",
    }.items():
        refused(through(tmp_path, ["run", "--once", "-c", name]), 2, words)


NUMBER = "PLEXUS_DETECT_POLL__INTERVAL"
SECTION = "PLEXUS_DETECT_POLL"
RULES = "PLEXUS_DETECT_SERIES"
VARIABLES = [
    *(
        (NUMBER, text)
        for text in ("x", " ", "-1s", "nan", "1e400s", "9" * 5000, "\x1b[31m", "5 s s", "\u0665s", "1d1h")
    ),
    *((SECTION, text) for text in ("{", "[]", "5", '"x"', "[" * 5000, '{"a":' * 5000, '{"interval": 1e999}')),
    (SECTION, '{"limit":' + "9" * 5000 + "}"),
    *(
        (RULES, text)
        for text in ("{}", "[5]", "[[]]", "x", '[{"name":5}]', "[" * 100_000, '[{"sources":["["]}]')
    ),
    *(
        (f"PLEXUS_DETECT_{name}", "x")
        for name in ("", "_", "POLL__", "POLL__INTERVAL__X", "FOO", "POLL__INTRVAL")
    ),
    ("plexus_detect_poll__interval", "x"),
    *(
        ("PLEXUS_API_KEY", text)
        for text in ("x", "plx_", "plx_S3 cret", " ", "plx_S3crét", "Bearer plx_S3cretS3")
    ),
    *(
        ("PLEXUS_ENDPOINT", text)
        for text in ("x", "http://", "ftp://x", "http://me:S3cret@h", "http://h:0", " ")
    ),
    *(("PLEXUS_API_KEY_FILE", text) for text in ("nowhere", ".", "/dev/null", "/dev/zero", "x" * 5000)),
    *(("HTTPS_PROXY", text) for text in ("gopher://me:S3cret@x", "socks5://me:S3cret@x", "://")),
    ("NO_PROXY", "http://[::1"),
    *(("SSL_CERT_FILE", text) for text in ("nowhere", ".", "empty")),
    *(("PLEXUS_DETECT_PLEXUS__CA_FILE", text) for text in ("nowhere", ".", "empty", "/dev/null")),
    *(("PLEXUS_DETECT_VERSION", text) for text in ("2", "x", "[]")),
    *(("PLEXUS_DETECT_LOG__LEVEL", text) for text in ("loud", "[]")),
]
SPOKEN_OF = {
    "PLEXUS_API_KEY_FILE": "PLEXUS_API_KEY",
    "PLEXUS_DETECT_PLEXUS__CA_FILE": "plexus.ca_file",
    "NO_PROXY": "proxy",
}


@pytest.mark.parametrize(("name", "text"), VARIABLES, ids=lambda value: value[:30])
def test_a_bad_variable(tmp_path: Path, name: str, text: str) -> None:
    """Exit 2 with the variable's name, without a key or a password in it; no state file is made."""
    file_at(tmp_path, "empty", "")
    key = {"PLEXUS_API_KEY": ""} if name == "PLEXUS_API_KEY_FILE" else {}
    said = through(tmp_path, ["monitors", "plan", "empty"], env={**key, name: text})
    if "empty:1" in said.err:  # what makes a client is looked at only when one is made
        file_at(tmp_path, "empty", '{"source_id": "a", "offline": {}}')
        said = through(tmp_path, ["monitors", "plan", "empty"], env={**key, name: text})
    about = "PROXY" if name.endswith("PROXY") else name
    words = (SPOKEN_OF.get(name, about),) if not name.endswith("PROXY") else ()
    refused(said, 2, *words)
