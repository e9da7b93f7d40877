"""Whether a document may stand as it is: what its schema finds, told in one sentence."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from plexus_detect.monitors.documents import near, shown
from plexus_detect.monitors.schema import Form, form_schema
from plexus_detect.positions import KeyPath, Positioned, config_error

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator


def check_plain(document: Positioned) -> None:
    """Raise ConfigError for what JSON cannot carry: dates, numbers without end, half characters, odd keys."""
    waiting: list[tuple[KeyPath, Any]] = [((), document.values)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise document.error(path, f"{shown(str(key))} is not a text key; put it in quotes")
                if _half(key):
                    raise document.error(path, f"{key!r} holds half a character; write its other half too")
            waiting += [((*path, key), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [((*path, i), item) for i, item in reversed(list(enumerate(value)))]
        else:
            wrong = _unfit(value)
            if wrong:
                raise document.error(path, wrong)


def _unfit(value: object) -> str:
    if isinstance(value, str):
        return f"{value!r} holds half a character; write its other half too" if _half(value) else ""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        fits = math.isfinite(value) if isinstance(value, float) else abs(value) <= sys.float_info.max
        return "" if fits else f"must be a finite number, not {shown(value)}"
    return f"must be a text, not a {type(value).__name__}; put it in quotes"


def _half(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def check_form(document: Positioned, path: KeyPath, entry: object, form: Form) -> None:
    """Raise ConfigError for the first thing that is wrong with ``entry``, the monitor at ``path``.

    A misspelt key comes first, since it makes others seem missing; then wrong values; then what is missing.
    """
    errors = [_Finding(error, path) for error in _validator(form).iter_errors(entry)]
    if errors:
        first = min(errors, key=lambda one: (one.rank, document.lines.get(one.path, 0)))
        where = document.where(first.path) if first.path != path else beginning(document, path, entry)
        raise config_error(where, first.path, first.sentence(form))


def beginning(document: Positioned, path: KeyPath, entry: object) -> str:
    """File and line of the first key of the monitor ``entry`` that is not the editor's ``$schema``."""
    keys = [key for key in entry if key != "$schema"] if isinstance(entry, dict) else []
    return document.where((*path, *keys[:1]))


@cache
def _validator(form: Form) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(form_schema(form))


class _Finding:
    """One error of the schema; ``path`` is that of the value in its file, or of the unknown key."""

    def __init__(self, error: Any, base: KeyPath) -> None:  # noqa: ANN401  its types are unions of anything
        self.error = error
        self.path: KeyPath = (*base, *error.absolute_path)
        self.unknown = error.validator == "additionalProperties"
        self.known: Mapping[str, Any] = self.error.schema.get("properties", {})
        if self.unknown:
            self.path = (*self.path, next(key for key in self.error.instance if key not in self.known))
        about_the_whole = error.validator in ("required", "anyOf", "minProperties", "maxProperties")
        self.rank = 0 if self.unknown else 2 if about_the_whole else 1

    def sentence(self, form: Form) -> str:
        """What is wrong and what is meant."""
        error = self.error
        if self.unknown:
            # A body without the key that makes it a short form may have it misspelt.
            known = [*self.known, "for"] if form == "raw" and "source_id" in self.known else [*self.known]
            return f"unknown key{near(self.path[-1], known) or '; known are ' + ', '.join(known)}"
        if error.validator == "enum":
            words = [word if isinstance(word, str) else shown(word) for word in error.validator_value]
            choice = f"must be one of {', '.join(words)}"
            return f"{choice}, not {shown(error.instance)}{near(error.instance, words)}"
        message = str(error.schema["errorMessage"])
        return f"{message}, not {shown(error.instance)}" if message.startswith("must ") else message
