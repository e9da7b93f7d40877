"""The documents of the monitors we want: what one may hold, and one sentence for what it may not."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.marks import unmarked

LEAVE: Final = "leave"
Targets = tuple[str, ...] | None | Literal["leave"]
"""Ids of integrations, None for the platform's own fan-out, LEAVE for whatever is set there."""

# A document is three levels deep, and what stands in an event's filters is the platform's business.
DEPTH_MAX = 32

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

_GLOB = re.compile(r"(?:[^\[]|\[(?:[^\]!][^\]]*|![^\]]+)\])+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class MonitorSpec:
    """One document as written: ``source`` is a slug, id or glob; ``parts`` holds the given fields only."""

    origin: str
    source: str
    metric: str
    parts: Mapping[str, Mapping[str, Any]]
    targets: Targets


def parse(text: str, name: str) -> tuple[MonitorSpec, ...]:
    """The monitors of one JSON text, an object or a list of them; ``name`` is the file's, for messages.

    Raises ConfigError with one sentence: file, place (JSON Pointer, RFC 6901), what is wrong, a near match.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}:{error.lineno}: not valid JSON: {error.msg}") from error
    except RecursionError:
        raise _too_deep(name) from None
    except ValueError as error:
        # Python refuses to convert so many digits, with advice that is none for a person.
        reason = "a number is too long; shorten it" if "digits" in str(error) else error
        raise ConfigError(f"{name}: not valid JSON: {reason}") from error
    _check_texts(document, name)
    if isinstance(document, list):
        return tuple(_spec(entry, name, f"/{i}") for i, entry in enumerate(document))
    return (_spec(document, name, ""),)


def _too_deep(name: str) -> ConfigError:
    return ConfigError(f"{name}: not valid JSON: nested more than {DEPTH_MAX} levels deep; make it flatter")


def _check_texts(document: object, name: str) -> None:
    """Raise ConfigError for what the platform could not be sent: half characters, or a bottomless depth."""
    level, waiting = 0, [document]
    while waiting:
        level += 1
        if level > DEPTH_MAX:
            raise _too_deep(name)
        below: list[object] = []
        for value in waiting:
            if isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
                raise ConfigError(
                    f"{name}: not valid JSON: {value!r} holds half a character; write its other half too"
                )
        waiting = below


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} stands twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _text_or_null(value: object) -> bool:
    return value is None or isinstance(value, str)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _seconds(value: Any) -> bool:  # noqa: ANN401
    return _number(value) and value > 0 and float(value).is_integer()


def _target_list(value: object) -> bool:
    if not isinstance(value, list):
        return value is None
    return value != [] and all(isinstance(i, str) and _UUID.fullmatch(i) for i in value)


def _one_of(*words: str) -> _Check:
    return (lambda v: isinstance(v, str) and v in words, f"one of {', '.join(words)}", words)


# Whether a value will do, what it must be, and the words that a typing error may have meant.
_Check = tuple[Callable[[object], bool], str, tuple[str, ...]]
_SEVERITY = _one_of(*SEVERITIES)
_TEXT: _Check = (_text_or_null, "a text or null", ())
_BOUND: _Check = (lambda v: v is None or _number(v), "a finite number or null", ())
_FIELDS: Mapping[str, Mapping[str, _Check]] = {
    "threshold": {"min": _BOUND, "max": _BOUND, "severity": _SEVERITY, "message": _TEXT},
    "event": {
        "severity": _SEVERITY,
        "message": _TEXT,
        "enabled": (lambda v: isinstance(v, bool), "true or false", ()),
        "delivery": _one_of("digest", "per_row"),
        **dict.fromkeys(EVENT_EXTRAS, (lambda _: True, "", ())),
    },
    "offline": {
        "timeout_seconds": (_seconds, "a whole number of seconds above 0", ()),
        "severity": _SEVERITY,
        "message": _TEXT,
    },
}
_TOP: Mapping[str, _Check] = {
    "$schema": (lambda v: isinstance(v, str), "a text", ()),
    "source_id": (
        lambda v: isinstance(v, str) and _GLOB.fullmatch(v) is not None,
        "a source's slug, its id or a glob such as esp32-*, with every [ closed",
        (),
    ),
    "metric": (lambda v: isinstance(v, str) and v != "", "a metric's name", ()),
    **dict.fromkeys(_FIELDS, (lambda v: v is None or isinstance(v, dict), "an object", ())),
    "notification_targets": (_target_list, "null or a list of integration ids (UUIDs), at least one", ()),
}


def _spec(entry: object, name: str, pointer: str) -> MonitorSpec:
    origin = f"{name}#{pointer}" if pointer else name
    if not isinstance(entry, dict):
        raise ConfigError(f"{origin}: a monitor must be an object, not {shown(entry)}")
    _check(entry, _TOP, name, pointer)
    parts = {part: entry[part] for part in _FIELDS if entry.get(part) is not None}
    for part, fields in parts.items():
        _check(fields, _FIELDS[part], name, f"{pointer}/{part}")
    if "source_id" not in entry:
        raise ConfigError(f"{origin}: source_id is missing; name a source or a glob such as esp32-*")
    if not parts:
        raise ConfigError(f"{origin}: at least one of threshold, event and offline is needed")
    if "metric" not in entry and parts.keys() != {"offline"}:
        raise ConfigError(f"{origin}: metric is missing; a threshold or event monitor watches one metric")
    targets = entry.get("notification_targets", LEAVE)
    if isinstance(targets, list):
        targets = target_ids(targets)
    return MonitorSpec(origin, entry["source_id"], entry.get("metric", ""), parts, targets)


def _check(fields: Mapping[str, Any], checks: Mapping[str, _Check], name: str, pointer: str) -> None:
    for key, value in fields.items():
        place = f"{name}: {pointer}/{key}"
        if key not in checks:
            raise ConfigError(
                f"{place}: unknown key{near(key, checks) or '; known are ' + ', '.join(checks)}"
            )
        holds, expected, words = checks[key]
        if not holds(value):
            raise ConfigError(f"{place}: must be {expected}, not {shown(value)}{near(value, words)}")


def near(value: object, known: Collection[str]) -> str:
    """The end of a sentence that offers the known word nearest to ``value``, empty when none is near."""
    lowered = {word.lower(): word for word in known}
    found = difflib.get_close_matches(value.lower(), lowered, n=1) if isinstance(value, str) else []
    return f"; did you mean {lowered[found[0]]!r}?" if found else ""


def shown(value: object) -> str:
    """A value as a person reads it: whole numbers without a point, texts quoted, at most 120 characters."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = "none" if value is None else json.dumps(value, ensure_ascii=False, default=list)
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
