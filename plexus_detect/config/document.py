"""One config file as plain values, with the place where each of them was written.

YAML, JSON and TOML mean the same here. ``${VAR}``, ``${VAR:-default}`` and ``${VAR:?message}`` are
replaced in every text value, after parsing, so that a variable can never change the structure.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
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
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_FORM = re.compile(r"([A-Za-z_]\w*)(?::([-?])(.*))?", re.DOTALL | re.ASCII)


class Origin(NamedTuple):
    """Where a value was written, and whether an error may repeat it: not if it came out of a variable."""

    where: str
    showable: bool = True


@dataclass(frozen=True)
class Document:
    """Settings of one file or of the environment; ``origins`` has an entry for every value's path."""

    values: dict[str, Any]
    origins: dict[KeyPath, Origin]


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


def read_document(path: Path, env: Mapping[str, str]) -> Document:
    """Read one file; raises ConfigError for whatever is wrong with it."""
    name = str(path)
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise config_error(
            name, (), "is of an unknown kind; use a name that ends in .yaml, .yml, .json or .toml"
        )
    values, lines = parse(name, _read(path))
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise config_error(name, (), "holds no keys at its top level; begin with a section such as poll:")
    origins: dict[KeyPath, Origin] = {}
    expansion = _Expansion(name, env, lines, origins)
    return Document(expansion.mapping(values, ()), origins)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise config_error(
            str(path), (), f"cannot be read ({reason}); check the path and its rights"
        ) from None
    if len(content) > BYTES_MAX:
        raise config_error(str(path), (), f"is larger than {BYTES_MAX} bytes; split it into several files")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise config_error(f"{path}:{line}", (), "is not UTF-8 text; save it as UTF-8") from None


def _yaml(name: str, text: str) -> tuple[Any, Lines]:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines = _line_numbers(name, node)
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
        raise _too_deep(name) from None
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


def _json(name: str, text: str) -> tuple[Any, Lines]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}:{error.lineno}"
        raise config_error(
            where, (), f"is not valid JSON: {error.msg}; correct that line or the one before"
        ) from None
    except RecursionError:
        raise _too_deep(name) from None
    except ValueError:  # a number of more digits than Python converts
        raise config_error(name, (), "is not valid JSON: a number is too long; shorten it") from None
    try:
        # JSON is YAML, so YAML's marks give the lines; a tab can only be white space here.
        node = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return values, {}  # the few JSON texts that are not YAML do without line numbers
    return values, _line_numbers(name, node)


def _toml(name: str, text: str) -> tuple[Any, Lines]:
    try:
        return tomllib.loads(text), {}
    except RecursionError:
        raise _too_deep(name) from None
    except ValueError as error:
        found = re.search(r"\(at line (\d+), column \d+\)", str(error))
        where = f"{name}:{found[1]}" if found else name
        problem = "a number is too long" if "digits" in str(error) else str(error).split(" (at ")[0]
        raise config_error(where, (), f"is not valid TOML: {problem}; correct that line") from None


_PARSERS: dict[str, Callable[[str, str], tuple[Any, Lines]]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _json,
    ".toml": _toml,
}


def _too_deep(name: str) -> ConfigError:
    return config_error(name, (), f"is nested more than {DEPTH_MAX} levels deep; make it flatter")


def _line_numbers(name: str, root: yaml.Node | None) -> Lines:
    """The line of every path below ``root``.

    Raises ConfigError for a key given twice, and when aliases blow the document up to more than
    ``VALUES_MAX`` values or ``DEPTH_MAX`` levels (an alias can contain itself).
    """
    lines: Lines = {}
    waiting: list[tuple[KeyPath, yaml.Node]] = [((), root)] if root is not None else []
    while waiting:
        path, node = waiting.pop()
        if len(path) > DEPTH_MAX:
            raise _too_deep(name)
        for part, mark, child in _children(node):
            line = mark.start_mark.line + 1
            here = (*path, part)
            if here in lines and part != "<<":
                sentence = f"is given twice (first on line {lines[here]}); remove one of them"
                raise config_error(f"{name}:{line}", here, sentence)
            lines[here] = line
            waiting.append((here, child))
        if len(lines) > VALUES_MAX:
            raise config_error(name, (), f"holds more than {VALUES_MAX} values; shorten it")
    return lines


def _children(node: yaml.Node) -> list[tuple[str | int, yaml.Node, yaml.Node]]:
    """Key, the node that marks its line, and value node of all entries; only keys that are scalars."""
    if isinstance(node, yaml.SequenceNode):
        return [(i, item, item) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return [(key.value, key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
    return []


@dataclass(frozen=True)
class _Expansion:
    """Replaces variables in all values of one file, and notes the origin of each."""

    name: str
    env: Mapping[str, str]
    lines: Lines
    origins: dict[KeyPath, Origin]

    def of(self, value: object, path: KeyPath) -> object:
        """The value with its variables replaced; raises ConfigError."""
        if len(path) > DEPTH_MAX:
            raise _too_deep(self.name)
        self.origins[path] = Origin(self.where(path))
        if isinstance(value, dict):
            return self.mapping(value, path)
        if isinstance(value, list):
            return [self.of(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            self.origins[path] = Origin(self.where(path), showable=False)
            return _REFERENCE.sub(lambda found: self._replacement(found, path), value)
        return value

    def mapping(self, values: Mapping[object, object], path: KeyPath) -> dict[str, object]:
        """All values of a mapping with their variables replaced; raises ConfigError."""
        replaced: dict[str, object] = {}
        for key, value in values.items():
            if not isinstance(key, str):
                raise config_error(
                    self.where((*path, str(key))), path, f"{key!r} is not a text key; put it in quotes"
                )
            if any("\ud800" <= c <= "\udfff" for c in key):
                raise config_error(self.where(path), path, f"{key!r} holds half a character; write all of it")
            replaced[key] = self.of(value, (*path, key))
        return replaced

    def where(self, path: KeyPath) -> str:
        """File and line; the line of the nearest enclosing key when the value has none of its own."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name

    def _replacement(self, found: re.Match[str], path: KeyPath) -> str:
        if found[0] == "$${":
            return "${"
        form = _FORM.fullmatch(found[1]) if found[1] is not None else None
        if form is None:
            forms = "${NAME}, ${NAME:-default}, ${NAME:?message}, or $${ for the characters themselves"
            sentence = f"holds a '${{' that begins no variable; write {forms}"
            raise config_error(self.where(path), path, sentence)
        variable, operator, operand = form[1], form[2], form[3]
        value = self.env.get(variable, "")
        if value:
            return value
        if operator == "-":
            return operand
        if operator == "?" and operand:
            raise config_error(self.where(path), path, f"{operand}; set the environment variable {variable}")
        sentence = f"the environment variable {variable} is not set; set it or write ${{{variable}:-default}}"
        raise config_error(self.where(path), path, sentence)
