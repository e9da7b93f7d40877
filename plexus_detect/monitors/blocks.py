"""Changes that say the same of many sources, as one block: what a reader of a plan looks at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from plexus_detect.monitors.documents import LEAVE, shown
from plexus_detect.monitors.model import Change, Fields
from plexus_detect.monitors.ownership import Key

# Up to so many changes alike are shown one by one.
SINGLE_MAX = 3

# With more blocks than this, changes of one document and metric make one block although they differ.
BLOCKS_MAX = 50

SIGNS = {"create": "+", "change": "~", "replace": "~", "delete": "-"}
_USUAL = {"enabled": True, "delivery": "digest"}


@dataclass(frozen=True)
class Block:
    """Changes of one action, part and metric, written in one document; mostly they differ in the source only.

    ``{source}`` stands in a text where each monitor has the name of its own source.
    """

    changes: tuple[Change, ...]

    @property
    def first(self) -> Change:
        """The change that the others are like."""
        return self.changes[0]

    @property
    def keys(self) -> tuple[Key, ...]:
        """The monitors that it is about."""
        return tuple(change.key for change in self.changes)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that it is about, by name."""
        return tuple(sorted(change.key[0] for change in self.changes))

    @property
    def monitor(self) -> str:
        """The monitor in words, without its source."""
        _source, metric, part = self.first.key
        return f"{part} {metric}".rstrip()

    @property
    def document(self) -> str:
        """The file that the monitors are written in, empty where they are in none."""
        return _document(self.first)

    def settings(self) -> str:
        """What new monitors are set to; empty where there is nothing new."""
        if self.first.action != "create":
            return ""
        told = ((name, _span(new)) for name, _old, new in self._columns())
        return ", ".join(f"{name} {value}" for name, value in told)

    def fields(self) -> list[str]:
        """Each field that changes, from its old value to its new one."""
        if self.first.action == "create":
            return []
        return [f"{name}: {_span(old)} -> {_span(new)}" for name, old, new in self._columns()]

    def _columns(self) -> list[tuple[str, list[Any], list[Any]]]:
        """Each field's name with its old and its new values, one for each change that has it."""
        found: dict[str, tuple[list[Any], list[Any]]] = {}
        for change in self.changes:
            for name, old, new in _told(change, alone=len(self.changes) == 1):
                olds, news = found.setdefault(name, ([], []))
                olds.append(old)
                news.append(new)
        return [(name, olds, news) for name, (olds, news) in found.items()]


def blocks(changes: Sequence[Change], *, full: bool = False) -> list[Block]:
    """The changes in their order, alike ones together; ``full``: each by itself."""
    if full:
        return [Block((change,)) for change in changes]
    groups = _grouped(changes, _alike)
    if len(groups) > BLOCKS_MAX:
        groups = _grouped(changes, _of_one_kind)
    found: list[Block] = []
    for group in groups:
        found += [Block(tuple(group))] if len(group) > SINGLE_MAX else [Block((one,)) for one in group]
    return found


def _grouped(changes: Sequence[Change], like: Callable[[Change], object]) -> list[list[Change]]:
    groups: dict[object, list[Change]] = {}
    for change in changes:
        groups.setdefault(like(change), []).append(change)
    return list(groups.values())


def _of_one_kind(change: Change) -> tuple[str, ...]:
    _source, metric, part = change.key
    return change.action, part, metric, _document(change), change.why


def _alike(change: Change) -> tuple[str, ...]:
    return *_of_one_kind(change), _identity(_told(change))


def _document(change: Change) -> str:
    """The file of a document's place, which may be ``file#/pointer``."""
    return change.wanted.origin.partition("#/")[0] if change.wanted is not None else ""


def _told(change: Change, *, alone: bool = False) -> Fields:
    """What a plan says of a change, with ``{source}`` for its source's name unless it is ``alone``."""
    fields = change.fields
    if change.action == "create" and change.wanted is not None:
        settings = change.wanted.settings.items()
        fields = tuple((k, None, v) for k, v in settings if v is not None and _USUAL.get(k) != v)
        if change.wanted.targets != LEAVE:
            fields += (("targets", None, change.wanted.targets),)
    if alone:
        return fields
    own = re.compile(rf"(?<![\w-]){re.escape(change.key[0])}(?![\w-])")
    return tuple((name, _general(old, own), _general(new, own)) for name, old, new in fields)


def _span(values: Sequence[Any]) -> str:
    """The one value of all, or how they differ."""
    different = {_identity(value) for value in values}
    if len(different) == 1:
        return shown(values[0])
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return f"{shown(min(values))} to {shown(max(values))}"
    return f"({len(different)} different)"


def _general(value: object, own: re.Pattern[str]) -> object:
    return own.sub("{source}", value) if isinstance(value, str) else value


def _identity(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=list)
