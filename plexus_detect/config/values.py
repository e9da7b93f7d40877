"""The kinds of value that a setting can have: durations, globs, base URLs, counts.

A validator here raises ``mistake(what, to_do)``; the sentence that the user reads is put together
in ``mistakes`` where the file and the line are known. ``{value}`` in ``what`` stands for the value,
so that one place decides whether it may be shown.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(day|week|month)", re.ASCII)
_RATE_DAYS = {"day": 1, "week": 7, "month": 30}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,255}", re.ASCII)
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# A bracket of fnmatch: "]" straight after "[" or "[!" is a member, not the end. Possessive, so that
# "[]" stays unclosed instead of matching on a second try.
_BRACKET = re.compile(r"\[!?+\]?+[^\]]*+\]")

# What an editor accepts for a duration: number and unit, or a variable that is replaced on loading.
DURATION_PATTERN = r"^\s*(\d+(\.\d+)?\s*(ms|s|m|h|d)?|.*\$\{.*)\s*$"
AUTO_PATTERN = DURATION_PATTERN.replace("(\\d", "(auto|\\d", 1)


class Section(BaseModel):
    """What all sections share: unknown keys are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def mistake(what: str, to_do: str, **where: object) -> PydanticCustomError:
    """The error of a validator: what is wrong and what to do.

    ``where`` may give ``keys``, the keys whose values disagree, and ``path``, the section they are in.
    """
    return PydanticCustomError("mistake", "{what}; {to_do}", {"what": what, "to_do": to_do, **where})


def duration_ms(value: object) -> int:
    """Milliseconds of "500ms", "30s", "5m", "2h", "14d" or of a number of seconds.

    Raises ValueError for anything else, negative and infinite values included.
    """
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if found is None:
            raise ValueError(value)
        amount, unit = float(found[1]), found[2] or "s"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        amount, unit = float(value), "s"
    else:
        raise ValueError(value)
    if not (math.isfinite(amount) and 0 <= amount < 1e15):
        raise ValueError(value)
    return round(amount * _UNIT_MS[unit])


def format_duration(ms: int | None) -> str:
    """The shortest text that ``duration_ms`` reads back as ``ms``; "auto" for None."""
    if ms is None:
        return "auto"
    unit = next(
        name for name in ("d", "h", "m", "s", "ms") if ms % _UNIT_MS[name] == 0 and (ms or name == "s")
    )
    return f"{ms // _UNIT_MS[unit]}{unit}"


@dataclass(frozen=True)
class Duration:
    """Marks an ``int`` of milliseconds that is written as a duration from ``low`` to ``high``, both allowed.

    With ``auto`` the word "auto" is allowed too and becomes None.
    """

    low: str
    high: str
    auto: bool = False

    def parse(self, value: object) -> int | None:
        """Milliseconds, or None for "auto"; raises a mistake."""
        if self.auto and (value is None or value == "auto"):
            return None
        try:
            ms = duration_ms(value)
        except (ValueError, OverflowError):
            example = "write one like 500ms, 30s, 5m, 2h or 14d" + (", or auto" if self.auto else "")
            raise mistake("{value} is not a duration", example) from None
        if not duration_ms(self.low) <= ms <= duration_ms(self.high):
            raise mistake("{value} is out of range", f"choose a duration from {self.low} to {self.high}")
        return ms

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        as_text = core_schema.plain_serializer_function_ser_schema(format_duration, when_used="json")
        return core_schema.no_info_plain_validator_function(self.parse, serialization=as_text)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        del schema, handler
        pattern = AUTO_PATTERN if self.auto else DURATION_PATTERN
        return {"anyOf": [{"type": "string", "pattern": pattern}, {"type": "number", "minimum": 0}]}


@dataclass(frozen=True)
class Span:
    """A length in time, in milliseconds, where a number would be a length in points."""

    ms: int


@dataclass(frozen=True)
class Length:
    """Marks an ``int`` of points or a ``Span``: a plain number counts points, a unit makes it a duration."""

    low: int
    high: int
    low_span: str
    high_span: str

    def parse(self, value: object) -> int | Span:
        """Points or a span; raises a mistake."""
        if isinstance(value, str) and not value.strip().isdecimal():
            return Span(Duration(self.low_span, self.high_span).parse(value) or 0)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise mistake("{value} is neither a number of points nor a duration", "write one like 300 or 2h")
        points = int(value)
        if not self.low <= points <= self.high:
            raise mistake("{value} is out of range", f"choose from {self.low} to {self.high} points")
        return points

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        written = core_schema.plain_serializer_function_ser_schema(_written_length, when_used="json")
        return core_schema.no_info_plain_validator_function(self.parse, serialization=written)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        del schema, handler
        points = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, points]}


def _written_length(value: int | Span) -> int | str:
    return format_duration(value.ms) if isinstance(value, Span) else value


def _rate(value: object) -> str:
    """A rate such as "2/week", without blanks; raises a mistake."""
    found = _RATE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if found is None or float(found[1]) <= 0:
        raise mistake("{value} is not a rate", "write one like 2/week, 1/day or 5/month")
    return f"{found[1]}/{found[2]}"


def per_day(rate: str) -> float:
    """How many times a day a rate such as "2/week" is; a month has 30 days."""
    amount, unit = rate.split("/")
    return float(amount) / _RATE_DAYS[unit]


def _timezone(value: str) -> str:
    """The name of a time zone that is known here; raises a mistake."""
    if value == "UTC":
        return value
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):  # KeyError: ZoneInfoNotFoundError
        near = difflib.get_close_matches(value, available_timezones(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "write one like Europe/Berlin"
        raise mistake("{value} is not a time zone", hint) from None
    return value


def _far(value: object) -> object:
    """0, a number from 1, or the word auto; raises a mistake."""
    if value == "auto":
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not (number == 0 or 1 <= number <= 1e6):
        raise mistake("{value} is neither 0, nor a number from 1, nor auto", "write one such as 2")
    return number


def _glob(value: str) -> str:
    """A pattern with ``*``, ``?`` and ``[..]`` as ``fnmatch`` reads it; raises a mistake for a bad one."""
    if not value:
        raise mistake("bad glob: an empty pattern matches nothing", 'write "*" to match everything')
    if value.startswith("re:"):
        raise mistake(
            "bad glob: {value} is a regular expression, which is not supported", "use *, ? and [..] instead"
        )
    if "[" in _BRACKET.sub("", value):
        raise mistake("bad glob: '[' is never closed in {value}", "add a ']', or write [[] to match a '['")
    return value


def is_literal(pattern: str) -> bool:
    """True when the pattern can only match itself."""
    return not any(mark in pattern for mark in "*?[")


def _usable_path(value: Path) -> Path:
    """A path that a file system can have; raises a mistake."""
    if "\0" in str(value):
        raise mistake("{value} is not a path", "remove the character with the code 0")
    return value


def _base_url(value: str) -> str:
    """A base URL without its trailing slash; raises a mistake."""
    example = "write one like https://app.plexus.company"
    text = value.strip()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise mistake("{value} is not a URL", example) from None
    if "@" in text:
        raise mistake("a URL with a user name or a password is refused", example)
    if not usable or parts.query or parts.fragment or any(c.isspace() for c in text):
        raise mistake("{value} is not a base URL beginning with http:// or https://", example)
    return text.rstrip("/")


def _name(value: str) -> str:
    """A name that stands unquoted in a log line; raises a mistake."""
    if not _NAME.fullmatch(value):
        raise mistake("{value} is not a name", "use up to 64 letters, digits, dots, dashes and underscores")
    return value


def _unique(values: Sequence[str]) -> Sequence[str]:
    """The values, none given twice; raises a mistake."""
    for value in values:
        if list(values).count(value) > 1:
            raise mistake(f"'{value}' is listed twice", "remove one of them")
    return values


def _not_a_switch(value: object) -> object:
    """Refuse true and false where a number belongs: Python would take them for 1 and 0."""
    if isinstance(value, bool):
        raise mistake("{value} is not a number", "write a number such as 3")
    return value


def one_of(name: str, known: Sequence[str]) -> str:
    """The name, if it is known; raises a mistake with the near one."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "choose one of them"
        raise mistake(f"{{value}} is not one of {', '.join(known)}", hint)
    return name


def _is_slug(text: str) -> str:
    """A slug as the platform takes it (contract section 3)."""
    if not _SLUG.fullmatch(text):
        raise mistake("{value} cannot be a source", "use lower-case letters, digits, dots and dashes")
    return text


def _variable_name(value: str) -> str:
    """A name that ``${name}`` can refer to; raises a mistake."""
    if not _VARIABLE_NAME.fullmatch(value):
        raise mistake("{value} is not the name of a variable", "use letters, digits, dashes and underscores")
    return value


def _scalar(value: object) -> object:
    """A single value; raises a mistake."""
    if isinstance(value, float) and not math.isfinite(value):
        raise mistake("{value} is not a finite number", "write one such as 10")
    if value is not None and not isinstance(value, str | int | float):
        raise mistake("{value} is not a text, a number, true, false or null", "write one of these")
    return value


def _target_id(value: str) -> str:
    """The id of an integration; raises a mistake."""
    if not _UUID.fullmatch(value):
        raise mistake(
            "{value} is not the id of an integration", "copy it (a UUID) from the platform's settings"
        )
    return value


def _lower(value: object) -> object:
    """Words in capitals are the same words."""
    return value.lower() if isinstance(value, str) else value


Number = BeforeValidator(_not_a_switch)
Word = BeforeValidator(_lower)
Unique = AfterValidator(_unique)
Glob = Annotated[str, AfterValidator(_glob)]
Globs = Annotated[tuple[Glob, ...], Field(min_length=1)]
FilePath = Annotated[Path, AfterValidator(_usable_path)]
Url = Annotated[str, AfterValidator(_base_url)]
Name = Annotated[str, AfterValidator(_name)]
Rate = Annotated[str, BeforeValidator(_rate)]
Timezone = Annotated[str, AfterValidator(_timezone)]
Slug = Annotated[str, AfterValidator(_is_slug)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
Scalar = Annotated[
    str | int | float | bool | None,
    PlainValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]
TargetId = Annotated[str, AfterValidator(_target_id)]
TimesLine = Annotated[
    float | Literal["auto"],
    PlainValidator(_far),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^auto$|\$\{"}]}),
]
