"""From the first error of a validation to the one sentence that a person reads."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from plexus_detect.config.document import Origin
from plexus_detect.config.models import Config
from plexus_detect.errors import ConfigError
from plexus_detect.positions import KeyPath, config_error

_SECRET: KeyPath = ("plexus", "api_key")

# What is wrong and what to do, by pydantic's name of the error; its context fills the braces.
_SENTENCES = {
    "missing": "is missing; add it",
    "greater_than": "{value} is too small; choose a number greater than {gt}",
    "greater_than_equal": "{value} is too small; the least is {ge}",
    "less_than_equal": "{value} is too large; the most is {le}",
    "too_short": "is an empty list; list at least {min_length}, or leave the key out",
    "int_from_float": "{value} is not a whole number; write one such as 10",
    "int_parsing": "{value} is not a whole number; write one such as 10",
    "int_parsing_size": "{value} is too large; choose a smaller number",
    "int_type": "{value} is not a whole number; write one such as 10",
    "float_parsing": "{value} is not a number; write one such as 2.5",
    "float_type": "{value} is not a number; write one such as 2.5",
    "finite_number": "{value} is not a finite number; write one such as 10",
    "bool_parsing": "{value} is neither true nor false; write one of them",
    "bool_type": "{value} is neither true nor false; write one of them",
    "string_type": "{value} is not text; put it in quotes",
    "string_unicode": "{value} is not text; put it in quotes",
    "path_type": "{value} is not a path; write one in quotes",
    "tuple_type": '{value} is not a list; write one in brackets, like ["a", "b"]',
    "dict_type": "{value} is not a section; write its keys below it",
    "model_type": "{value} is not a section; write its keys below it",
}


def first_mistake(error: ValidationError, origins: Mapping[KeyPath, Origin]) -> ConfigError:
    """The sentence for the first thing that is wrong, with the place where it was written."""
    first = error.errors(include_url=False)[0]
    kind, context = str(first["type"]), dict(first.get("ctx", {}))
    # "[key]" is pydantic's way to say that the key of a mapping is wrong, not its value.
    path: KeyPath = (*(part for part in first["loc"] if part != "[key]"), *context.pop("path", ()))
    keys: tuple[str, ...] = context.pop("keys", ())
    if keys:
        path = (*path, next((key for key in keys if (*path, key) in origins), keys[0]))
    origin = origin_of(path, origins)
    value = shown(first["input"]) if origin.showable and path != _SECRET else "the value"
    if kind == "extra_forbidden":
        sentence = f"unknown key; {_near_key(path)}"
    elif kind == "literal_error":
        sentence = _choice(value, first["input"], context["expected"])
    elif kind == "mistake":
        sentence = f"{context['what']}; {context['to_do']}".replace("{value}", value)
    else:
        template = _SENTENCES.get(
            kind, str(first["msg"]).replace("{", "{{").replace("}", "}}") + "; correct it"
        )
        sentence = template.format(value=value, **context)
    return config_error(origin.where, path, sentence)


def shown(value: object) -> str:
    """A value as an error repeats it: short, on one line, and nothing of a list or a mapping."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else "the number"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"


def near_match(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, if one is near."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return found[0] if found else None


def origin_of(path: KeyPath, origins: Mapping[KeyPath, Origin]) -> Origin:
    """Where a value was written: it, or the nearest section that it is in."""
    for end in range(len(path), -1, -1):
        if path[:end] in origins:
            return origins[path[:end]]
    return Origin("")


def _choice(value: str, given: object, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    near = near_match(given, choices) if isinstance(given, str) else None
    hint = f"did you mean '{near}'?" if near and value != "the value" else "choose one of them"
    return f"{value} is not one of {', '.join(choices)}; {hint}"


def _near_key(path: KeyPath) -> str:
    """The hint for an unknown key: a near match beside it, the same key elsewhere, or all that are known."""
    unknown = str(path[-1])
    section: type[BaseModel] = Config
    for part in path[:-1]:
        if isinstance(part, str):
            # The name of a metric is no key of the section that it is in.
            section = _model_in(section_keys(section).get(part)) or section
    known = section_keys(section)
    near = near_match(unknown, known)
    if near is None:
        everywhere = sorted([*_key_paths(section), *_key_paths(Config)], key=lambda text: "[" in text)
        near = next((text for text in everywhere if text.rsplit(".", 1)[-1] == unknown), None)
    return f"did you mean '{near}'?" if near else f"known keys are {', '.join(known)}"


def section_keys(section: type[BaseModel]) -> dict[str, Any]:
    """The keys that a section has in a file, each with its annotation."""
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _key_paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key, annotation in section_keys(section).items():
        yield f"{prefix}{key}"
        below = _model_in(annotation)
        if below is not None:
            many = "" if annotation is below else ".<pattern>" if get_origin(annotation) is dict else "[]"
            yield from _key_paths(below, f"{prefix}{key}{many}.")
