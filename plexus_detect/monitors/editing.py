"""One value of a document's text changed, and nothing else: not a blank, not a comment, not a line end."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import yaml

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value of a document."""

_NUMBER = re.compile(r"(?<![^\s:=,\[{(])[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?(?![^\s,\]})#])")
_MARK = 900_000_000_000_000  # below 2**53, so that a reader that makes doubles of numbers keeps it
_MARKED_MAX = 100_000

READERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".toml": tomllib.loads,
}


def read(text: str, suffix: str) -> Any:  # noqa: ANN401
    """The document of a text in the language that a file's suffix names; None where it is in none."""
    try:
        return READERS[suffix](text.removeprefix("\ufeff").replace("\r\n", "\n"))
    except (KeyError, ValueError, yaml.YAMLError, RecursionError):
        return None


def value_at(document: object, place: Place) -> object:
    """The value that a place leads to, None where there is none."""
    for step in place:
        inside = isinstance(document, list) and isinstance(step, int) and step < len(document)
        if not inside and not (isinstance(document, dict) and step in document):
            return None
        document = document[step]  # type: ignore[index]
    return document


def edited(text: str, suffix: str, place: Place, new: float | str) -> str | None:
    """The text with the value at ``place`` replaced, byte by byte the same elsewhere.

    None where that cannot be done: there is no such value, it stands elsewhere in the text (an anchor, a
    variable, escapes), or the edit would change anything else.
    """
    document = read(text, suffix)
    old = value_at(document, place)
    if (
        isinstance(old, bool)
        or not isinstance(old, int | float | str)
        or isinstance(old, str) != isinstance(new, str)
    ):
        return None
    places = list(_places(text, old))[:_MARKED_MAX]
    # Every place that looks like the value gets a mark of its own; the reader then says which one it is.
    marks = [
        f"{_MARK + i}" if isinstance(old, int | float) else f"{old}~{_MARK + i}" for i in range(len(places))
    ]
    found = value_at(read(_replaced(text, places, marks), suffix), place)
    number = str(found).removeprefix(f"{old}~").removesuffix(".0")
    if not number.isdecimal() or not 0 <= int(number) - _MARK < len(places):
        return None
    span = places[int(number) - _MARK]
    result = _replaced(text, [span], [new if isinstance(new, str) else number_text(new)])
    return result if _only_changed(document, read(result, suffix), place, new) else None


def _places(text: str, old: float | str) -> Iterator[tuple[int, int]]:
    if isinstance(old, str):
        # A whole word of the text, not a part of a key or of a longer name.
        whole = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w.-])")
        yield from (match.span() for match in whole.finditer(text))
        return
    for match in _NUMBER.finditer(text):
        if float(match[0].replace("_", "") or "nan") == old:
            yield match.span()


def _replaced(text: str, places: list[tuple[int, int]], words: list[str]) -> str:
    pieces, at = [], 0
    for (start, end), word in zip(places, words, strict=True):
        pieces += [text[at:start], word]
        at = end
    return "".join([*pieces, text[at:]])


def _only_changed(before: object, after: object, place: Place, new: float | str) -> bool:
    """True where the second document is the first with the value at ``place`` replaced."""
    if not place:
        return not isinstance(after, bool) and after == new
    step, *rest = place
    if isinstance(before, dict) and isinstance(after, dict):
        others = before.keys() == after.keys() and all(after[k] == before[k] for k in before if k != step)
        return others and _only_changed(before[step], after[step], tuple(rest), new)
    if isinstance(before, list) and isinstance(after, list) and isinstance(step, int):
        others = len(before) == len(after) and all(
            x == y for i, (x, y) in enumerate(zip(before, after, strict=True)) if i != step
        )
        return others and _only_changed(before[step], after[step], tuple(rest), new)
    return False


def number_text(value: float) -> str:
    """A number as a person writes it: whole ones without a point, none with an exponent."""
    text = f"{value:.17g}" if float(f"{value:.15g}") != value else f"{value:.15g}"
    if "e" not in text:
        return text
    return f"{value:.0f}" if abs(value) >= 1 else f"{value:.330f}".rstrip("0")


def unified(name: str, before: str, after: str) -> str:
    """A unified diff of one file that ``git apply`` and ``patch -p1`` take; empty where nothing changed."""
    name += "\t" * any(map(str.isspace, name))  # else patch(1) would end the name at its first blank
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}", n=3)
    # A last line without a line break must be told from one with it.
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(text: str) -> list[str]:
    """The lines as diff tools see them: only a line feed ends one, and it belongs to it."""
    return [line for line in re.split(r"(?<=\n)", text) if line]
