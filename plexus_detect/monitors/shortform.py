"""The short form of a document: variables, then the schema, then one raw part for each source and metric.

What may stand beside what is the schema's business; here is what a schema cannot say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.checking import check_form, check_plain
from plexus_detect.monitors.documents import (
    LEAVE,
    SEVERITIES,
    MonitorSpec,
    Targets,
    is_glob,
    near,
    shown,
    target_ids,
)
from plexus_detect.monitors.schema import VARIABLE_NAME
from plexus_detect.positions import KeyPath, Positioned
from plexus_detect.series import SUFFIX, Kind, is_own_metric

Variable = str | int | float | bool | None

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(VARIABLE_NAME)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_PLACEHOLDERS = ("source", "metric")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Names:
    """What the documents of a fleet may refer to: ``variables`` by ``${name}``, ``targets`` by name."""

    variables: Mapping[str, Variable] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)


def short_specs(document: Positioned, path: KeyPath, names: Names) -> tuple[MonitorSpec, ...]:
    """The monitors of the short form at ``path``, still without origin: one for each source, metric and rung.

    Raises ConfigError with file, line, key, what is wrong and a near match.
    """
    entry = document.values
    for part in path:
        entry = entry[part]
    return _Short(document, path, names, entry).specs()


@dataclass
class _Short:
    """One document in the short form on its way."""

    document: Positioned
    path: KeyPath
    names: Names
    entry: Any

    def specs(self) -> tuple[MonitorSpec, ...]:
        self.entry = {
            key: value if key == "$schema" else self._replaced(value, (key,))
            for key, value in self.entry.items()
        }
        check_form(self.document, self.path, self.entry, "short")
        reach = self.entry["for"]
        sources, excluded = _listed(reach["source"]), _listed(reach.get("exclude_source"))
        targets = self._targets()
        if "offline" in self.entry:
            parts = {"offline": self._severity({"timeout_seconds": self._seconds()})}
            return tuple(
                MonitorSpec("", source, "", parts, targets, measured="", exclude_sources=excluded)
                for source in sources
            )
        metrics = _listed(reach["metric"])
        watched = self._watched(metrics)
        left_out = _listed(reach.get("exclude_metric"))
        return tuple(
            MonitorSpec("", source, metric + suffix, parts, targets, "", metric, excluded, left_out)
            for source, metric, (suffix, parts) in product(sources, metrics, watched)
        )

    def _error(self, path: KeyPath, sentence: str) -> ConfigError:
        return self.document.error((*self.path, *path), sentence)

    def _watched(self, metrics: tuple[str, ...]) -> list[tuple[str, dict[str, dict[str, Any]]]]:
        """The suffixes that are watched, each with the part of a raw body."""
        watch = self.entry.get("watch", "zscore")
        suffix = "" if watch == "value" else f".{watch}"
        for metric in metrics:
            if suffix and not is_glob(metric) and is_own_metric(metric):
                sentence = f"{metric!r} is a score already; name the metric itself, or write watch: value"
                raise self._error(("for", "metric"), sentence)
        said = self._message()
        if "ladder" in self.entry:
            return [
                (end, {"threshold": {"max": bound, "severity": severity} | said})
                for end, (severity, bound) in zip(
                    (SUFFIX[Kind.ZSCORE], SUFFIX[Kind.ZSCORE_CRITICAL]), self._rungs(), strict=True
                )
            ]
        if "event" in self.entry:
            delivery = "per_row" if self.entry["event"] == "per_row" else "digest"
            return [(suffix, {"event": self._severity({"delivery": delivery}) | said})]
        bounds = {key: self.entry[key] for key in ("min", "max") if self.entry.get(key) is not None}
        return [(suffix, {"threshold": self._severity(bounds) | said})]

    def _severity(self, fields: dict[str, Any]) -> dict[str, Any]:
        return fields | ({"severity": self.entry["severity"]} if "severity" in self.entry else {})

    def _message(self) -> dict[str, Any]:
        message = self.entry.get("message")
        if message is None:
            return {}
        for found in _PLACEHOLDER.finditer(message):
            if found[0] not in ("{{", "}}") and found[1] not in _PLACEHOLDERS:
                hint = near(found[1], _PLACEHOLDERS) or "; write {{ and }} for the characters themselves"
                raise self._error(("message",), f"{found[0]!r} is neither {{source}} nor {{metric}}{hint}")
        return {"message": message}

    def _rungs(self) -> list[tuple[str, float]]:
        """The two rungs, the milder one first."""
        ladder = self.entry["ladder"]
        mild, hard = [(severity, ladder[severity]) for severity in SEVERITIES if severity in ladder]
        if mild[1] >= hard[1]:
            raise self._error(
                ("ladder", hard[0]),
                f"must lie above that of {mild[0]}, which is {shown(mild[1])}, not {shown(hard[1])}",
            )
        return [mild, hard]

    def _seconds(self) -> int:
        given = self.entry["offline"]
        if isinstance(given, str):
            amount = Fraction(given[:-1].strip()) * _SECONDS[given[-1]]
            if amount <= 0 or amount.denominator != 1:
                raise self._error(
                    ("offline",), f"must be a whole number of seconds above 0, not {shown(given)}"
                )
            return int(amount)
        return int(given)

    def _targets(self) -> Targets:
        targets = self.entry.get("targets", LEAVE)
        if not isinstance(targets, list):
            return None if targets is None else LEAVE
        ids = []
        for i, name in enumerate(targets):
            if _UUID.fullmatch(name):
                ids.append(name)
            elif name in self.names.targets:
                ids.append(self.names.targets[name])
            else:
                known = "; name it in monitors.targets, or give its id (a UUID)"
                raise self._error(
                    ("targets", i),
                    f"{shown(name)} is no known target{near(name, self.names.targets) or known}",
                )
        return target_ids(ids)

    # ---- variables ---------------------------------------------------------------------------------------

    def _replaced(self, value: object, path: KeyPath) -> object:
        """The value with its variables replaced; a text that is one variable takes the variable's type."""
        if isinstance(value, dict):
            return {key: self._replaced(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._replaced(item, (*path, i)) for i, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        whole = _REFERENCE.fullmatch(value)
        if whole is not None and whole[1] is not None:
            return self._variable(whole[1], path)
        return _REFERENCE.sub(partial(self._text, path), value)

    def _text(self, path: KeyPath, found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        value = self._variable(found[1], path)
        if value is None:
            raise self._error(path, f"{found[1]} is null and cannot be a part of a text")
        return value if isinstance(value, str) else json.dumps(value)

    def _variable(self, name: str | None, path: KeyPath) -> Variable:
        if name is None or not _NAME.fullmatch(name):
            raise self._error(
                path,
                "holds a '${' that begins no variable; write ${name}, or $${ for the characters themselves",
            )
        if name not in self.names.variables:
            raise self._error(
                path,
                f"the variable {name} is not set; set it in monitors.vars or with --var {name}=..."
                f"{near(name, self.names.variables)}",
            )
        value = self.names.variables[name]
        check_plain(Positioned(f"variable {name}", value, {}))
        return value


def _listed(value: str | list[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))


def filled_message(fields: Mapping[str, Any], source: str, metric: str) -> dict[str, Any]:
    """The fields with ``{source}`` and ``{metric}`` of their message replaced."""
    message = fields.get("message")
    if message is None:
        return dict(fields)
    words = {"{{": "{", "}}": "}", "{source}": source, "{metric}": metric}
    return {**fields, "message": _PLACEHOLDER.sub(lambda found: words[found[0]], message)}
