"""The JSON Schema of the documents: the loader checks with it, editors complete with it.

``monitors/monitor.schema.json`` is a copy of ``monitor_schema()``. An ``errorMessage`` is the sentence of the
loader, and editors that know the keyword show it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plexus_detect.monitors.documents import DEFAULTS, EVENT_EXTRAS, SEVERITIES
from plexus_detect.series import SUFFIX, Kind

Schema = dict[str, Any]
Form = Literal["short", "raw"]

WATCHED = ("value", *(suffix.removeprefix(".") for suffix in SUFFIX.values()))
VARIABLE_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
DURATION_PATTERN = r"^[0-9]{1,9}(?:\.[0-9]{1,9})?\s?[smhd]$"

_VARIABLE: Schema = {"type": "string", "pattern": rf"^\$\{{{VARIABLE_NAME}\}}$"}
_GLOB_PATTERN = r"^(?:[^\[]|\[(?:[^\]!][^\]]*|![^\]]+)\])+$"
_UUID_PATTERN = r"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_BOUND = "must be a finite number or null"
_TEXT = "must be a text or null"
_TARGETS = "must be null or a list of at least one"


def monitor_schema() -> Schema:
    """The schema of a whole file, as editors need it: a value may also be a variable, ``${name}``."""
    one, several = {"$ref": "#/$defs/monitor"}, {"type": "array", "items": {"$ref": "#/$defs/monitor"}}
    table = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"$schema": {"type": "string"}, "monitors": several},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Plexus monitors",
        "description": (
            "Monitors as `plexus-detect monitors` reads them: one, a list of them, or a list under the key "
            "`monitors`. With the key `for` one is in the short form, without it it is a body of POST "
            "/api/monitors."
        ),
        "if": {"type": "array"},
        "then": several,
        "else": {"if": {"required": ["monitors"]}, "then": table, "else": one},
        "$defs": {
            "monitor": {
                "if": {"type": "object", "required": ["for"]},
                "then": {"$ref": "#/$defs/short"},
                "else": {"$ref": "#/$defs/raw"},
            },
            "short": form_schema("short", variables=True),
            "raw": form_schema("raw"),
        },
    }


def form_schema(form: Form, *, variables: bool = False) -> Schema:
    """The schema of one monitor in one form; without ``variables`` as it is once they are replaced."""
    return _raw() if form == "raw" else _short(variables=variables)


def _object(properties: Schema, **more: object) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


def _field(description: str, message: str, **more: object) -> Schema:
    return {"description": description, "errorMessage": message, **more}


def _severity(part: str, **more: object) -> Schema:
    return {"enum": list(SEVERITIES), "default": DEFAULTS[part]["severity"], **more}


# ---- raw bodies ------------------------------------------------------------------------------------------


def _raw() -> Schema:
    parts = {"threshold": _threshold(), "event": _event(), "offline": _offline()}
    properties = {
        "$schema": {"type": "string", "errorMessage": "must be a text"},
        "source_id": _field(
            "A source's slug, its id, or a glob (* ? [ab]) over the devices that the platform knows.",
            "must be a source's slug, its id or a glob such as esp32-*, with every [ closed",
            type="string",
            pattern=_GLOB_PATTERN,
        ),
        "metric": _field(
            "The metric to watch, for instance temperature.zscore. Needed by threshold and event.",
            "must be a metric's name",
            type="string",
            minLength=1,
        ),
        **parts,
        "notification_targets": _field(
            "Ids of integrations to notify; null for the platform's own choice; absent to leave what is set.",
            f"{_TARGETS} integration id (a UUID)",
            type=["array", "null"],
            minItems=1,
            items={
                "type": "string",
                "pattern": _UUID_PATTERN,
                "maxLength": 36,
                "errorMessage": "must be the id of an integration (a UUID)",
            },
        ),
    }
    given = {part: {"required": [part], "properties": {part: {"type": "object"}}} for part in parts}
    return _object(
        properties,
        required=["source_id"],
        errorMessage="source_id is missing; name a source or a glob such as esp32-*",
        allOf=[
            {
                "anyOf": list(given.values()),
                "errorMessage": "at least one of threshold, event and offline is needed",
            },
            {
                "if": {"anyOf": [given["threshold"], given["event"]]},
                "then": {
                    "required": ["metric"],
                    "errorMessage": "metric is missing; a threshold or event monitor watches one metric",
                },
            },
        ],
    )


def _part(description: str, properties: Schema) -> Schema:
    return {
        **_field(description, "must be an object"),
        **_object(properties, type=["object", "null"]),
    }


def _message(description: str) -> Schema:
    return _field(description, _TEXT, type=["string", "null"], default=None)


def _threshold() -> Schema:
    bound = {"type": ["number", "null"], "default": None, "errorMessage": _BOUND}
    said = "Kept with the monitor; the platform does not put it into Slack messages of thresholds."
    return _part(
        "Alerts when a value lies above max or below min; the bound itself is still inside.",
        {"min": bound, "max": bound, "severity": _severity("threshold"), "message": _message(said)},
    )


def _event() -> Schema:
    usual = DEFAULTS["event"]
    return _part(
        "Alerts when any new point of the metric arrives, whatever its value.",
        {
            "severity": _severity("event"),
            "message": _message("Delivered with the alert."),
            "enabled": {
                "type": "boolean",
                "default": usual["enabled"],
                "errorMessage": "must be true or false",
            },
            "delivery": {"enum": ["digest", "per_row"], "default": usual["delivery"]},
            **{extra: {} for extra in EVENT_EXTRAS},
        },
    )


def _offline() -> Schema:
    return _part(
        "Alerts when the source has sent nothing for a while. The platform cannot change one, only add.",
        {
            "timeout_seconds": {
                "type": "integer",
                "exclusiveMinimum": 0,
                "default": DEFAULTS["offline"]["timeout_seconds"],
                "errorMessage": "must be a whole number of seconds above 0",
            },
            "severity": _severity("offline"),
            "message": _message("Accepted by the platform and thrown away."),
        },
    )


# ---- the short form --------------------------------------------------------------------------------------


def _short(*, variables: bool) -> Schema:
    kinds = _Kinds(variables=variables)
    properties = {
        "$schema": {"type": "string", "errorMessage": "must be a text"},
        "for": _for(),
        "watch": kinds.choice(
            "The end of the name that is watched: which score; value: the metric itself.",
            WATCHED,
            default="zscore",
        ),
        "max": kinds.bound("Alerts above it; the bound itself is still inside. The line of our scores is 3."),
        "min": kinds.bound("Alerts below it; the bound itself is still inside."),
        "severity": kinds.choice("Default: warning; info where event is given.", SEVERITIES),
        "message": _message("May hold {source} and {metric}. Slack shows it for events only."),
        "targets": kinds.of(
            "Integrations to notify, by id or by a name of monitors.targets; null for the platform's own "
            "choice; absent to leave what is set.",
            f"{_TARGETS} integration: an id (a UUID) or a name of monitors.targets",
            type=["array", "null"],
            minItems=1,
            items={"type": "string", "minLength": 1, "errorMessage": "must be an id (a UUID) or a name"},
        ),
        "event": kinds.choice(
            "Alerts when any new point arrives; true or digest: one alert of all of them.",
            (True, "digest", "per_row"),
        ),
        "offline": kinds.of(
            "Alerts when the source has sent nothing for so long: a duration such as 5m, or seconds.",
            "must be a duration such as 90s, 5m or 2h, or a whole number of seconds above 0",
            type=["integer", "string"],
            exclusiveMinimum=0,
            pattern=DURATION_PATTERN,
        ),
        "ladder": _ladder(kinds.of("The bound.", "must be a finite number", type="number")),
    }
    return _object(properties, required=["for"], dependentSchemas=_alone(), allOf=_needed())


@dataclass(frozen=True)
class _Kinds:
    """Kinds of value, for which with ``variables`` a variable may stand."""

    variables: bool

    def of(self, description: str, message: str, **kind: object) -> Schema:
        """A value with the sentence for another one."""
        return self._or_variable({"description": description, "errorMessage": message}, kind)

    def choice(self, description: str, words: Sequence[object], **more: object) -> Schema:
        """One of some words."""
        return self._or_variable({"description": description, **more}, {"enum": list(words)})

    def bound(self, description: str) -> Schema:
        """A bound of a threshold."""
        told = {"description": description, "errorMessage": _BOUND, "default": None}
        return self._or_variable(told, {"type": ["number", "null"]})

    def _or_variable(self, told: Schema, kind: Schema) -> Schema:
        return {**told, "anyOf": [kind, _VARIABLE]} if self.variables else {**told, **kind}


def _for() -> Schema:
    def globs(description: str, message: str) -> Schema:
        one = {"type": "string", "pattern": _GLOB_PATTERN, "errorMessage": message}
        many = {"type": ["string", "array"], "minItems": 1, "items": one}
        return {**one, **many, "description": description, "errorMessage": f"{message}, or a list of such"}

    source = "must be a source's slug, its id or a glob such as esp32-*, with every [ closed"
    metric = "must be a metric's name or a glob such as temp*, with every [ closed"
    return {
        **_field("Which sources and metrics.", "must be an object such as {source: esp32-*, metric: temp*}"),
        **_object(
            {
                "source": globs("Slugs, ids or globs (* ? [ab]) over the devices that are known.", source),
                "metric": globs(
                    "Names without a suffix of ours, or globs over what a device sent or is watched for.",
                    metric,
                ),
                "exclude_source": globs("Sources that are left out.", source),
                "exclude_metric": globs("Metrics that are left out.", metric),
            },
        ),
    }


def _ladder(rung: Schema) -> Schema:
    return {
        **_field(
            "Two severities with their bounds, in place of max and severity: the milder one watches .zscore, "
            f"the harder one {SUFFIX[Kind.ZSCORE_CRITICAL]}, which the worker posts when post.series has it.",
            "must give two severities their bounds, such as {warning: 3, critical: 9}",
        ),
        **_object(dict.fromkeys(SEVERITIES, rung), minProperties=2, maxProperties=2),
    }


def _never(reason: str) -> Schema:
    return {"not": {}, "errorMessage": f"cannot stand {reason}"}


def _alone() -> Schema:
    """What may not stand beside what."""
    lost = "beside offline: the platform throws away the message of an offline monitor"
    silent = _never("beside offline, which watches all that a source sends")
    offline = {
        **dict.fromkeys(("max", "min", "event", "ladder"), _never("beside offline; give one of them")),
        "watch": silent,
        "message": _never(lost),
        "for": {"properties": dict.fromkeys(("metric", "exclude_metric"), silent)},
    }
    event = dict.fromkeys(("max", "min", "ladder"), _never("beside event, which never looks at values"))
    ladder = {
        **dict.fromkeys(("max", "min"), _never("beside ladder, whose rungs are the bounds")),
        "severity": _never("beside ladder, whose rungs are the severities"),
        "watch": {
            "const": "zscore",
            "errorMessage": "must be zscore beside ladder, the one score that has a second name",
        },
    }
    return {
        "offline": {"properties": offline},
        "event": {"properties": event},
        "ladder": {"properties": ladder},
    }


def _needed() -> list[Schema]:
    """What may not be missing."""
    bounds = [{"required": [key], "properties": {key: {"not": {"type": "null"}}}} for key in ("max", "min")]
    others = [{"required": [key]} for key in ("ladder", "event", "offline")]
    metric = "metric is missing; name one or a glob, all but offline monitors watch a metric"
    return [
        {
            "anyOf": [*bounds, *others],
            "errorMessage": "says nothing to alert on; give max, min, ladder, event or offline",
        },
        {
            "properties": {
                "for": {"required": ["source"], "errorMessage": "source is missing; name one or a glob"}
            }
        },
        {
            "if": {"not": {"required": ["offline"]}},
            "then": {"properties": {"for": {"required": ["metric"], "errorMessage": metric}}},
        },
    ]
