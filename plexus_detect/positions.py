"""A text in YAML, JSON or TOML as plain values, with the line on which each of them was written.

A key given twice, a text nested too deep and one of too many values are refused.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from plexus_detect.errors import ConfigError

BYTES_MAX = 1024 * 1024
DEPTH_MAX = 32
VALUES_MAX = 100_000

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]

_API_KEY = re.compile(r"plx_[^\s'\"]+")
_PLAIN = re.compile(r"[\w.-]+")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}:,]|[^\[\]{}:,"\s]+')
# Strings of three quotes may end in two more that belong to them.
_TOML_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|'
    r"'''.*?'{3,5}|"
    r'"(?:\\.|[^"\\])*"|'
    r"'[^']*'|#[^\n]*|"
    r"[\[\]{}=\n]|[^\s\[\]{}=\"'#]+",
    re.DOTALL,
)


@dataclass(frozen=True)
class Positioned:
    """The values of one text; ``lines`` has the line of every path that has one of its own."""

    name: str
    values: Any
    lines: Lines

    def where(self, path: KeyPath) -> str:
        """File and line; the line of the nearest enclosing key when the value has none of its own."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name

    def error(self, path: KeyPath, sentence: str) -> ConfigError:
        """The error "<file>:<line>: <key.path>: <sentence>"."""
        return config_error(self.where(path), path, sentence)


def parse(text: str, name: str, suffix: str) -> Positioned:
    """The values of a text whose kind its file's ``suffix`` says, one of ``SUFFIXES``.

    ``name`` is the file's, for messages. Raises ConfigError for whatever is wrong with the text.
    """
    values, lines = _PARSERS[suffix](name, text)
    return Positioned(name, values, lines)


def config_error(where: str, path: KeyPath, sentence: str) -> ConfigError:
    """The error "<where>: <key.path>: <sentence>", on one line, with every API key blotted out."""
    parts = [part for part in (where, key_text(path), sentence) if part]
    return ConfigError(" ".join(_API_KEY.sub("plx_***", ": ".join(parts)).splitlines()))


def key_text(path: KeyPath) -> str:
    """A path as people write it: ``series[0].detect.window``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part if _PLAIN.fullmatch(part) else repr(part)
            text += f".{plain[:80]}" if text else plain[:80]
    return text


def too_deep(name: str) -> ConfigError:
    """The error for a text nested deeper than ``DEPTH_MAX``."""
    return config_error(name, (), f"is nested more than {DEPTH_MAX} levels deep; make it flatter")


def _yaml(name: str, text: str) -> tuple[Any, Lines]:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines = _yaml_lines(name, node)
        return (None if node is None else loader.construct_document(node)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        hint = _yaml_hint(text.splitlines()[line - 1] if line <= len(text.splitlines()) else "")
        raise config_error(f"{name}:{line}", (), f"is not valid YAML: {error.problem}; {hint}") from None
    except yaml.YAMLError:
        raise config_error(
            name, (), "is not valid YAML: it holds unprintable characters; remove them"
        ) from None
    except RecursionError:
        raise too_deep(name) from None
    except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError):
        # What PyYAML's constructors let through for a malformed tagged or date-like scalar.
        raise config_error(
            name, (), "is not valid YAML: a value does not fit its type; put dates and odd numbers in quotes"
        ) from None


def _yaml_hint(line: str) -> str:
    if "*" in line or "?" in line:
        return 'put patterns with * or ? in quotes, like "dev-*"'
    if "${" in line:
        return "put ${...} in quotes"
    if "\t" in line:
        return "indent with spaces, not with tabs"
    return "correct that line or the one before it"


def _yaml_lines(name: str, root: yaml.Node | None) -> Lines:
    """The line of every path below ``root``.

    Raises ConfigError for a key given twice, and when aliases blow the document up to more than
    ``VALUES_MAX`` values or ``DEPTH_MAX`` levels (an alias can contain itself).
    """
    noted = _Noted(name, {})
    waiting: list[tuple[KeyPath, yaml.Node]] = [((), root)] if root is not None else []
    while waiting:
        path, node = waiting.pop()
        if len(path) > DEPTH_MAX:
            raise too_deep(name)
        for part, mark, child in _children(node):
            here = (*path, part)
            noted.note(here, mark.start_mark.line + 1, once=part != "<<")
            waiting.append((here, child))
    return noted.lines


def _children(node: yaml.Node) -> list[tuple[str | int, yaml.Node, yaml.Node]]:
    """Key, the node that marks its line, and value node of all entries; only keys that are scalars."""
    if isinstance(node, yaml.SequenceNode):
        return [(i, item, item) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return [(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
    return []


class _Noted(NamedTuple):
    """The lines noted so far of the file ``name``."""

    name: str
    lines: Lines

    def note(self, path: KeyPath, line: int, *, once: bool = True) -> None:
        """Note the line of a path; raises ConfigError if it has one already, or at too many paths."""
        if once and path in self.lines:
            sentence = f"is given twice (first on line {self.lines[path]}); remove one of them"
            raise config_error(f"{self.name}:{line}", path, sentence)
        self.lines[path] = line
        if len(self.lines) > VALUES_MAX:
            raise config_error(self.name, (), f"holds more than {VALUES_MAX} values; shorten it")


def _json(name: str, text: str) -> tuple[Any, Lines]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}:{error.lineno}"
        raise config_error(
            where, (), f"is not valid JSON: {error.msg}; correct that line or the one before"
        ) from None
    except RecursionError:
        raise too_deep(name) from None
    except ValueError:  # a number of more digits than Python converts
        raise config_error(name, (), "is not valid JSON: a number is too long; shorten it") from None
    _check_depth(name, values)
    return values, _json_lines(name, text)


def _json_lines(name: str, text: str) -> Lines:
    """The line of every path of a valid JSON text; raises ConfigError for a key given twice."""
    noted = _Noted(name, {})
    # Of each open list the index of its next value, of each open object the key, None where one is due.
    path: list[Any] = []
    line, counted = 1, 0
    for found in _JSON_TOKEN.finditer(text):
        sign = found[0]
        if sign == ":":
            continue
        if sign == ",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else None
            continue
        if sign in ("]", "}"):
            path.pop()
            continue
        line, counted = line + text.count("\n", counted, found.start()), found.start()
        if path and path[-1] is None:
            path[-1] = json.loads(sign)
            noted.note(tuple(path), line)
            continue
        if path and isinstance(path[-1], int):
            noted.note(tuple(path), line)
        if sign in ("[", "{"):
            path.append(0 if sign == "[" else None)
    return noted.lines


def _toml(name: str, text: str) -> tuple[Any, Lines]:
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise too_deep(name) from None
    except ValueError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        where = f"{name}:{found[1]}" if found else name
        problem = "a number is too long" if "digits" in str(error) else str(error).split(" (at ")[0]
        raise config_error(where, (), f"is not valid TOML: {problem}; correct that line") from None
    _check_depth(name, values)
    return values, _toml_lines(name, text)


def _toml_lines(name: str, text: str) -> Lines:
    """The lines of the tables and keys of a valid TOML text; what stands in a value has those of its key."""
    noted = _Noted(name, {})
    tables: dict[KeyPath, int] = {}
    inside: KeyPath = ()
    line, counted = 1, 0
    for start, is_table, is_item, key in _toml_statements(text):
        line, counted = line + text.count("\n", counted, start), start
        path: KeyPath = () if is_table else inside
        parts = _toml_key(key)
        for i, part in enumerate(parts):
            path = (*path, part)
            noted.note(path, noted.lines.get(path, line), once=False)
            if is_item and i == len(parts) - 1:
                tables[path] = tables.get(path, -1) + 1
            if path in tables:
                path = (*path, tables[path])
                noted.note(path, noted.lines.get(path, line), once=False)
        inside = path if is_table else inside
    return noted.lines


def _toml_statements(text: str) -> Iterator[tuple[int, bool, bool, str]]:
    """Of each statement its start, whether it heads a table, whether one of a list of tables, and its key."""
    depth, tokens = 0, list[re.Match[str]]()
    for found in [*_TOML_TOKEN.finditer(text + "\n")]:
        sign = found[0]
        depth += (sign in ("[", "{")) - (sign in ("]", "}"))
        if sign == "\n" and depth == 0:
            if tokens:
                yield _toml_statement(text, tokens)
            tokens = []
        elif sign != "\n" and not sign.startswith("#"):
            tokens.append(found)


def _toml_statement(text: str, tokens: list[re.Match[str]]) -> tuple[int, bool, bool, str]:
    start, is_table = tokens[0].start(), tokens[0][0] == "["
    if is_table:
        key = [token for token in tokens if token[0] not in ("[", "]")]
        return start, True, tokens[1][0] == "[", text[key[0].start() : key[-1].end()]
    end = next(token.start() for token in tokens if token[0] == "=")
    return start, False, False, text[start:end]


def _toml_key(text: str) -> list[str]:
    """The parts of a dotted key."""
    parts: list[str] = []
    value: Any = tomllib.loads(f"{text} = 0")
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return parts


def _check_depth(name: str, values: object) -> None:
    level, waiting = 0, [values]
    while waiting:
        if level > DEPTH_MAX:
            raise too_deep(name)
        level += 1
        waiting = [
            item
            for value in waiting
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]


_PARSERS: dict[str, Callable[[str, str], tuple[Any, Lines]]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _json,
    ".toml": _toml,
}
SUFFIXES = tuple(_PARSERS)
