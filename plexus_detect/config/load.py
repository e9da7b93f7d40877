"""Files and environment to one validated Config.

Precedence, highest first: ``PLEXUS_DETECT_<SECTION>__<KEY>``, the platform's own variables
(``PLEXUS_API_KEY`` and so on), the files from the last to the first, the defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from plexus_detect.config.document import Document, Origin, read_document
from plexus_detect.config.mistakes import first_mistake, near_match, origin_of, section_keys
from plexus_detect.config.models import Config
from plexus_detect.positions import DEPTH_MAX, KeyPath, config_error

ENV_PREFIX = "PLEXUS_DETECT_"
ENV_DELIMITER = "__"
KEY_FILE_BYTES_MAX = 4096

_NULLS_COUNT: KeyPath = ("monitors", "vars")
_KEY_SETTINGS = {"api_key", "api_key_file"}
_PLATFORM_VARIABLES = {
    "PLEXUS_API_KEY": "api_key",
    "PLEXUS_API_KEY_FILE": "api_key_file",
    "PLEXUS_ENDPOINT": "endpoint",
    "PLEXUS_GATEWAY_URL": "gateway_url",
    "PLEXUS_API_URL": "api_url",
}
# Kubernetes puts these into every pod of a namespace that has a Service named plexus-detect or
# plexus-detect-<anything>; nobody wrote them, so nobody can have mistyped them.
_SERVICE_LINK = re.compile(
    r"PLEXUS_DETECT_([A-Z0-9]+_)*(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def load_config(paths: Sequence[Path], env: Mapping[str, str]) -> Config:
    """The settings of ``paths``, later files over earlier ones, and of ``env`` over all of them.

    No path at all is fine: defaults and environment are a valid config. An empty variable counts
    as not set. Raises ConfigError with one sentence for the first thing that is wrong.
    """
    return load_config_with_origins(paths, env)[0]


def load_config_with_origins(
    paths: Sequence[Path], env: Mapping[str, str]
) -> tuple[Config, Mapping[KeyPath, Origin]]:
    """The settings as of ``load_config``, and where each value that was given at all was written."""
    env = {name: value for name, value in env.items() if value}
    merged = Document({}, {})
    for path in paths:
        merged = _merge(merged, read_document(path, env))
    merged = _merge(_merge(merged, _platform_variables(env)), _own_variables(env))
    values = _without_nulls(merged.values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        # Without the cause: pydantic's own text would repeat the input.
        raise first_mistake(error, merged.origins) from None
    given = {path: origin_of(path, merged.origins) for path, _value in leaves(values)}
    return _with_api_key(config, merged.origins), given


def leaves(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """All values that are no section and no list of sections, with their paths."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from leaves(item, (*path, i))
    else:
        yield path, value


def variable_names() -> list[str]:
    """Every ``PLEXUS_DETECT_*`` variable there is, sections (as JSON) before their keys."""
    names = []
    for section, annotation in section_keys(Config).items():
        names.append(f"{ENV_PREFIX}{section.upper()}")
        if hasattr(annotation, "model_fields"):
            names += [
                f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}".upper() for key in section_keys(annotation)
            ]
    return names


def _merge(lower: Document, upper: Document) -> Document:
    """``upper`` over ``lower``: mappings key by key, anything else as a whole.

    A key and a key file are two ways to say one thing, so that either of them displaces both.
    """
    origins = dict(lower.origins)
    values = lower.values
    above = upper.values.get("plexus")
    if isinstance(above, dict) and isinstance(values.get("plexus"), dict) and above.keys() & _KEY_SETTINGS:
        kept = {key: value for key, value in values["plexus"].items() if key not in _KEY_SETTINGS}
        values = {**values, "plexus": kept}
    return Document(_merge_mappings(values, upper.values, (), origins), origins | upper.origins)


def _merge_mappings(
    lower: dict[str, Any], upper: dict[str, Any], path: KeyPath, origins: dict[KeyPath, Origin]
) -> dict[str, Any]:
    both = dict(lower)
    for key, value in upper.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(both.get(key), dict):
            both[key] = _merge_mappings(both[key], value, here, origins)
            continue
        if key not in both:
            both[key] = value
            continue
        both[key] = value
        for replaced in [known for known in origins if known[: len(here)] == here]:
            del origins[replaced]  # what was written below a value that is replaced is not there any more
    return both


def _without_nulls(value: object, path: KeyPath = ()) -> object:
    """A key without a value (``poll:`` with every line below it commented out) is a key not given.

    But for a variable of the monitors, for which null is a value.

    Raises RecursionError for JSON of a variable that is nested deeper than a file may be.
    """
    if len(path) > DEPTH_MAX + 1:
        raise RecursionError
    if isinstance(value, dict):
        return {
            key: _without_nulls(item, (*path, key))
            for key, item in value.items()
            if item is not None or path == _NULLS_COUNT
        }
    return [_without_nulls(item, (*path, 0)) for item in value] if isinstance(value, list) else value


def _platform_variables(env: Mapping[str, str]) -> Document:
    given = {name: key for name, key in _PLATFORM_VARIABLES.items() if name in env}
    if not given:
        return Document({}, {})
    return Document(
        {"plexus": {key: env[name] for name, key in given.items()}},
        {("plexus", key): Origin(name) for name, key in given.items()},
    )


class _OneVariable(EnvSettingsSource):
    """pydantic-settings' reader of the environment, shown one variable, so that an error can name it."""

    def __init__(self, name: str, value: str) -> None:
        self._only = {name.lower(): value}
        # The reader looks only at the fields and the options of the class, which any model has.
        settings = cast("type[BaseSettings]", Config)
        super().__init__(settings, env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._only


def _own_variables(env: Mapping[str, str]) -> Document:
    """All ``PLEXUS_DETECT_*`` variables; that of a key is over that of its whole section."""
    own = Document({}, {})
    for name in sorted(env, key=lambda name: (name.count(ENV_DELIMITER), name)):
        if name.upper().startswith(ENV_PREFIX):
            one = _own_variable(name, env[name])
            origins = dict(own.origins)
            own = Document(_merge_mappings(own.values, one.values, (), origins), origins | one.origins)
    return own


def _own_variable(name: str, value: str) -> Document:
    known = variable_names()
    if name.upper() not in known:
        if _SERVICE_LINK.fullmatch(name) and ENV_DELIMITER not in name:
            return Document({}, {})
        near = near_match(name.upper()[len(ENV_PREFIX) :], [other[len(ENV_PREFIX) :] for other in known])
        hint = (
            f"did you mean '{ENV_PREFIX}{near}'?"
            if near
            else f"use {ENV_PREFIX}<SECTION>{ENV_DELIMITER}<KEY>"
        )
        raise config_error(name, (), f"unknown environment variable; {hint}")
    section, _, key = name.lower()[len(ENV_PREFIX) :].partition(ENV_DELIMITER)
    path: KeyPath = (section, key) if key else (section,)
    try:
        values = {key: _without_nulls(item, (key,)) for key, item in _OneVariable(name, value)().items()}
    except (SettingsError, RecursionError):
        sentence = 'the value is not usable JSON; write a list as ["a", "b"] and a section as {"key": 1}'
        raise config_error(name, path, sentence) from None
    return Document(values, {path: Origin(name)})


def _with_api_key(config: Config, origins: Mapping[KeyPath, Origin]) -> Config:
    """The config with the key read from its file, and an empty key taken as none."""
    path: KeyPath = ("plexus", "api_key_file")
    key = config.plexus.api_key.get_secret_value().strip() if config.plexus.api_key else ""
    file = config.plexus.api_key_file
    if not key and file is not None:
        where = origins.get(path, Origin("")).where
        try:
            with file.open("rb") as opened:
                key = opened.read(KEY_FILE_BYTES_MAX).decode().strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            sentence = f"{file} cannot be read ({reason}); check the path and its rights"
            raise config_error(where, path, sentence) from None
        if not key:
            raise config_error(where, path, f"{file} is empty; write the API key into it")
    secret = SecretStr(key) if key else None
    return config.model_copy(update={"plexus": config.plexus.model_copy(update={"api_key": secret})})
