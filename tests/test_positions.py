"""The line of every value of a text in JSON, YAML or TOML."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.errors import ConfigError
from plexus_detect.positions import KeyPath, parse

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _text, st.just('a"]},{[:\\')),
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(_text, below, max_size=3)),
    max_leaves=12,
)


def paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """The paths of all that stands in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {one for part, item in items for one in ({(*path, part)} | paths(item, (*path, part)))}


@examples(3000)
@given(value=_values)
def test_every_value_of_json_has_its_line(value: Any) -> None:
    """Written one value a line, each path has a line, and the key or the value of a list stands there."""
    text = json.dumps(value, indent=1)
    written = parse(text, "f.json", ".json")
    assert written.values == value
    assert written.lines.keys() == paths(value)
    for path, line in written.lines.items():
        told = text.split("\n")[line - 1].strip()
        if isinstance(path[-1], str):
            assert told.startswith(json.dumps(path[-1]))


TOML = """# comment with [ and "
a = 1
"b.c".d = [
 "x]", # ]
 'y',
]
[t.u] # a header
k = \"\"\"
[no]
x = \\"3\"\"\"\"\"
m = {a = 1, b = [1, 2]}
e = ""
[[items]]
x = '''
[[items]]'''
[items.for]
source = "a"
[[items]]
  [[items.sub]]
  z = 1
  [[items.sub]]
  z.q = 2
[ "o p" . 'q' ]
last = 1979-05-27T07:32:00Z"""


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_lines_of_toml(ends: str) -> None:
    """Tables, lists of tables and keys have lines, whatever strings and comments hold."""
    lines = parse(TOML.replace("\n", ends), "f.toml", ".toml").lines
    told: dict[str, list[int]] = {}
    for path, line in lines.items():
        told.setdefault(".".join(map(str, path)), []).append(line)
    assert told == {
        "a": [2],
        "b.c": [3],
        "b.c.d": [3],
        "t": [7],
        "t.u": [7],
        "t.u.k": [8],
        "t.u.m": [11],
        "t.u.e": [12],
        "items": [13],
        "items.0": [13],
        "items.0.x": [14],
        "items.0.for": [16],
        "items.0.for.source": [17],
        "items.1": [18],
        "items.1.sub": [19],
        "items.1.sub.0": [19],
        "items.1.sub.0.z": [20],
        "items.1.sub.1": [21],
        "items.1.sub.1.z": [22],
        "items.1.sub.1.z.q": [22],
        "o p": [23],
        "o p.q": [23],
        "o p.q.last": [24],
    }


@pytest.mark.parametrize("text", ['{"a": {"b": 1,\n"\\u0062": 2}}', '{"a": 1, "<<": 2,\n\t"a": 3}'])
def test_a_key_given_twice_is_refused(text: str) -> None:
    """Also where it is written in another way, and in texts that are not YAML."""
    with pytest.raises(ConfigError, match=r"f\.json:2: .* is given twice \(first on line 1\)"):
        parse(text, "f.json", ".json")
