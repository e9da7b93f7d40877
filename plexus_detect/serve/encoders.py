"""Values that are no numbers as numbers, by a schema: column name -> kind of encoding."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# More categories than this are not told apart.
CATEGORIES_MAX = 1000
ONEHOT_MAX = 64
CATEGORY_CHARS_MAX = 200

_YES = {"yes", "true", "on", "y", "t", "1", "1.0"}
_NO = {"no", "false", "off", "n", "f", "0", "0.0", ""}


class Encoder:
    """Rows as rows of numbers.

    numeric takes numbers and text that is one; hash is a number in 0..1 from the value alone; label numbers
    categories in order of first sight (-1: not known); onehot is a column ``<name>_<category>`` for each;
    binary is 0 or 1; frequency is the category's share of the values learned so far. Columns without an entry
    in the schema stay as they are. ``seen`` holds the counts of categories by column.
    """

    def __init__(
        self, schema: Mapping[str, str], seen: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        self.schema = dict(schema)
        self.seen: dict[str, dict[str, int]] = {
            name: dict((seen or {}).get(name, {}))
            for name, kind in self.schema.items()
            if kind in ("label", "onehot", "frequency")
        }

    @property
    def names(self) -> list[str]:
        """The columns that the schema's columns become."""
        out: list[str] = []
        for name, kind in self.schema.items():
            out += [f"{name}_{c}" for c in self.seen[name]] if kind == "onehot" else [name]
        return out

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count the categories of rows."""
        for row in rows:
            for name, counts in self.seen.items():
                category = _category(row.get(name))
                room = ONEHOT_MAX if self.schema[name] == "onehot" else CATEGORIES_MAX
                if category is not None and (category in counts or len(counts) < room):
                    counts[category] = counts.get(category, 0) + 1

    def encoded(self, row: Mapping[str, Any], *, only: bool = False) -> dict[str, Any]:
        """A row with the schema's columns as numbers; with ``only`` no others."""
        out = {} if only else {name: value for name, value in row.items() if name not in self.schema}
        for name, kind in self.schema.items():
            value = row.get(name)
            if kind == "onehot":
                category = _category(value)
                out |= {f"{name}_{c}": float(c == category) for c in self.seen[name]}
            elif value is not None:
                out[name] = self._number(name, kind, value)
        return out

    def stream(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows one after another: each is learned and then encoded, and knows nothing of those after it."""
        out = []
        for row in rows:
            self.learn((row,))
            out.append(self.encoded(row))
        return out

    def _number(self, name: str, kind: str, value: object) -> float | None:
        if kind == "numeric":
            return _float(value)
        if kind == "binary":
            return _binary(value)
        category = _category(value)
        if category is None:
            return None
        if kind == "hash":
            return zlib.crc32(category.encode()) / 2**32
        counts = self.seen[name]
        if kind == "label":
            return float(list(counts).index(category)) if category in counts else -1.0
        return counts.get(category, 0) / max(1, sum(counts.values()))


def _category(value: object) -> str | None:
    return None if value is None else str(value)[:CATEGORY_CHARS_MAX]


def _float(value: object) -> float | None:
    if not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _binary(value: object) -> float | None:
    text = str(value).strip().lower()
    return 1.0 if text in _YES else 0.0 if text in _NO else None
