"""One config file as plain values, with the place where each of them was written.

YAML, JSON and TOML mean the same here. ``${VAR}``, ``${VAR:-default}`` and ``${VAR:?message}`` are
replaced in every text value, after parsing, so that a variable can never change the structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from plexus_detect import positions
from plexus_detect.positions import (
    BYTES_MAX,
    DEPTH_MAX,
    SUFFIXES,
    KeyPath,
    Positioned,
    config_error,
    too_deep,
)

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


def read_document(path: Path, env: Mapping[str, str]) -> Document:
    """Read one file; raises ConfigError for whatever is wrong with it."""
    name = str(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise config_error(
            name, (), "is of an unknown kind; use a name that ends in .yaml, .yml, .json or .toml"
        )
    written = positions.parse(_read(path), name, suffix)
    values = {} if written.values is None else written.values
    if not isinstance(values, dict):
        raise config_error(name, (), "holds no keys at its top level; begin with a section such as poll:")
    origins: dict[KeyPath, Origin] = {}
    expansion = _Expansion(written, env, origins)
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


@dataclass(frozen=True)
class _Expansion:
    """Replaces variables in all values of one file, and notes the origin of each."""

    written: Positioned
    env: Mapping[str, str]
    origins: dict[KeyPath, Origin]

    def of(self, value: object, path: KeyPath) -> object:
        """The value with its variables replaced; raises ConfigError."""
        if len(path) > DEPTH_MAX:
            raise too_deep(self.written.name)
        self.origins[path] = Origin(self.written.where(path))
        if isinstance(value, dict):
            return self.mapping(value, path)
        if isinstance(value, list):
            return [self.of(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            self.origins[path] = Origin(self.written.where(path), showable=False)
            return _REFERENCE.sub(lambda found: self._replacement(found, path), value)
        return value

    def mapping(self, values: Mapping[object, object], path: KeyPath) -> dict[str, object]:
        """All values of a mapping with their variables replaced; raises ConfigError."""
        replaced: dict[str, object] = {}
        for key, value in values.items():
            if not isinstance(key, str):
                raise config_error(
                    self.written.where((*path, str(key))),
                    path,
                    f"{key!r} is not a text key; put it in quotes",
                )
            if any("\ud800" <= c <= "\udfff" for c in key):
                raise config_error(
                    self.written.where(path), path, f"{key!r} holds half a character; write all of it"
                )
            replaced[key] = self.of(value, (*path, key))
        return replaced

    def _replacement(self, found: re.Match[str], path: KeyPath) -> str:
        if found[0] == "$${":
            return "${"
        form = _FORM.fullmatch(found[1]) if found[1] is not None else None
        if form is None:
            forms = "${NAME}, ${NAME:-default}, ${NAME:?message}, or $${ for the characters themselves"
            sentence = f"holds a '${{' that begins no variable; write {forms}"
            raise config_error(self.written.where(path), path, sentence)
        variable, operator, operand = form[1], form[2], form[3]
        value = self.env.get(variable, "")
        if value:
            return value
        if operator == "-":
            return operand
        if operator == "?" and operand:
            raise config_error(
                self.written.where(path), path, f"{operand}; set the environment variable {variable}"
            )
        sentence = f"the environment variable {variable} is not set; set it or write ${{{variable}:-default}}"
        raise config_error(self.written.where(path), path, sentence)
