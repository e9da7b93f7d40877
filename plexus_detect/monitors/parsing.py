"""From the text of one file to the monitors that it wants, in either form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from plexus_detect import positions
from plexus_detect.monitors.checking import beginning, check_form, check_plain
from plexus_detect.monitors.documents import DEFAULTS, LEAVE, MonitorSpec, near, shown, target_ids
from plexus_detect.monitors.shortform import Names, Variable, short_specs
from plexus_detect.positions import SUFFIXES, KeyPath, Positioned

TABLE = "monitors"
_TABLE_KEYS = ("$schema", TABLE)


def parse(
    text: str,
    name: str,
    *,
    variables: Mapping[str, Variable] | None = None,
    targets: Mapping[str, str] | None = None,
) -> tuple[MonitorSpec, ...]:
    """The monitors of one text: one, a list of them, or a list under the key ``monitors``.

    ``name`` is the file's, for messages; its end says the kind, JSON where it says none. ``variables`` and
    ``targets`` are what the short form may refer to. Raises ConfigError with one sentence: file, line, key,
    what is wrong, a near match.
    """
    suffix = PurePath(name).suffix.lower()
    document = positions.parse(text, name, suffix if suffix in SUFFIXES else ".json")
    check_plain(document)
    names = Names(variables or {}, targets or {})
    entries = list(_entries(document))
    return tuple(
        spec
        for (path, entry), where in zip(entries, _places(document, entries), strict=True)
        for spec in _specs(document, path, entry, where, names)
    )


def _entries(document: Positioned) -> Iterator[tuple[KeyPath, Any]]:
    """Each monitor of a document with its path."""
    values = document.values
    base: KeyPath = ()
    if isinstance(values, dict) and TABLE in values:
        for key in values:
            if key not in _TABLE_KEYS:
                sentence = f"unknown key beside {TABLE}{near(key, _TABLE_KEYS)}; put it into one of the list"
                raise document.error((key,), sentence)
        values, base = values[TABLE], (TABLE,)
        if not isinstance(values, list):
            raise document.error(base, f"must be a list of monitors, not {shown(values)}")
    if isinstance(values, list):
        yield from (((*base, i), entry) for i, entry in enumerate(values))
    else:
        yield (), values


def _places(document: Positioned, entries: list[tuple[KeyPath, Any]]) -> list[str]:
    """Of each monitor file and line, and its place in the list where another begins on the same line."""
    begins = [beginning(document, path, entry) for path, entry in entries]
    shared = Counter(begins)
    return [
        where if shared[where] == 1 else f"{where}: {positions.key_text(path)}"
        for where, (path, _) in zip(begins, entries, strict=True)
    ]


def _specs(
    document: Positioned, path: KeyPath, entry: object, where: str, names: Names
) -> tuple[MonitorSpec, ...]:
    origin = "#/".join(filter(None, (document.name, "/".join(map(str, path)))))
    if not isinstance(entry, dict):
        raise document.error(path, f"a monitor must be an object, not {shown(entry)}")
    if "for" in entry:
        return tuple(replace(spec, origin=origin, where=where) for spec in short_specs(document, path, names))
    check_form(document, path, entry, "raw")
    parts = {part: entry[part] for part in DEFAULTS if entry.get(part) is not None}
    targets = entry.get("notification_targets", LEAVE)
    if isinstance(targets, list):
        targets = target_ids(targets)
    return (MonitorSpec(origin, entry["source_id"], entry.get("metric", ""), parts, targets, where),)
