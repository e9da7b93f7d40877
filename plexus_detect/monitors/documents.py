"""One wanted monitor as its document has it, and the platform's defaults for what a document leaves out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from plexus_detect.monitors.marks import unmarked

LEAVE: Final = "leave"
Targets = tuple[str, ...] | None | Literal["leave"]
"""Ids of integrations, None for the platform's own fan-out, LEAVE for whatever is set there."""

SEVERITIES = ("info", "warning", "critical")
# What the platform assumes for a field that a body omits, and what it answers for it. An offline monitor
# cannot be switched on or off through the API, and its message is thrown away.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "threshold": {"min": None, "max": None, "severity": "warning", "message": None},
    "event": {"severity": "info", "message": None, "enabled": True, "delivery": "digest"},
    "offline": {"timeout_seconds": 300, "severity": "warning", "enabled": True},
}
# Further event fields that the platform shows; compared only where a document gives them.
EVENT_EXTRAS = ("visualization", "context_columns", "filters", "time_column")


@dataclass(frozen=True)
class MonitorSpec:
    """One monitor of a document: ``source`` is a slug, id or glob; ``parts`` holds the given fields only.

    ``origin`` is the file with the place in it (JSON Pointer, RFC 6901), ``where`` the file and the line. A
    document in the short form may be several specs of one origin. For those ``measured`` is the metric
    without the suffix that is watched, which may be a glob, and messages may hold ``{source}`` and
    ``{metric}``; for a raw body it is None, and ``metric`` is one name.
    """

    origin: str
    source: str
    metric: str
    parts: Mapping[str, Mapping[str, Any]]
    targets: Targets
    where: str = field(default="", compare=False)
    measured: str | None = None
    exclude_sources: tuple[str, ...] = ()
    exclude_metrics: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        """What stands behind ``measured`` in the name that is watched."""
        return self.metric[len(self.measured or "") :]


def is_glob(text: str) -> bool:
    """True for a text that can match more than itself."""
    return any(sign in text for sign in "*?[")


def near(value: object, known: Collection[str]) -> str:
    """The end of a sentence that offers the known word nearest to ``value``, empty when none is near."""
    lowered = {word.lower(): word for word in known}
    found = difflib.get_close_matches(value.lower(), lowered, n=1) if isinstance(value, str) else []
    return f"; did you mean {lowered[found[0]]!r}?" if found else ""


def shown(value: object) -> str:
    """A value as a person reads it: whole numbers without a point, texts quoted, at most 120 characters."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    try:
        text = "none" if value is None else json.dumps(value, ensure_ascii=False, default=list)
    except ValueError:  # a number of more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text) <= 120 else text[:117] + "..."


def target_ids(ids: Sequence[object]) -> tuple[str, ...]:
    """Integration ids in one order and one case, so that equal sets compare equal."""
    return tuple(sorted({str(i).lower() for i in ids}))


def filled(part: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """All fields that count, absent ones at the platform's default; numbers as the doubles it keeps.

    A threshold's message is without our mark.
    """
    settings: dict[str, Any] = {}
    for name, default in DEFAULTS[part].items():
        value = fields.get(name)
        value = default if value is None or value == "" else value
        settings[name] = float(value) if name in ("min", "max") and value is not None else value
    if part == "threshold":
        settings["message"] = unmarked(settings["message"])[0]
    if part == "event":
        settings |= {name: fields[name] for name in EVENT_EXTRAS if fields.get(name) is not None}
    return settings
