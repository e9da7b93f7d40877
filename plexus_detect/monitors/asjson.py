"""Values of provisioning as JSON documents and back, strictly: for the files that a later run relies on.

A document carries a digest of all that it says, so that one which was damaged or edited is refused instead
of carried out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.documents import DEFAULTS, filled
from plexus_detect.monitors.model import Existing, Wanted

T = TypeVar("T")

DIGEST = "digest"


def document(head: Mapping[str, Any], body: Any) -> str:  # noqa: ANN401  any dataclass of plain values
    """The text of a file: ``head``, the fields of ``body`` and a digest of both."""
    told = {**head, **msgspec.to_builtins(body)}
    return json.dumps(told | {DIGEST: _digest(told)}, indent=1, ensure_ascii=False) + "\n"


def opened(text: str, kind: str, version: int, name: str) -> dict[str, Any]:
    """The fields of a document of this kind, for ``body_of``.

    ``kind`` is the key that holds the version, and its words are what the file is called. Raises ConfigError
    with one sentence for a file that cannot be used.
    """
    what = kind.removeprefix("plexus_detect_")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not isinstance(told.get(kind), int):
        raise ConfigError(f"{name}: no {what} of monitors; it is damaged or another file")
    if told[kind] != version:
        raise ConfigError(
            f"{name}: a {what} of version {told[kind]}, which this program does not know; use the program "
            "that wrote it"
        )
    if told.pop(DIGEST, None) != _digest(told):
        raise ConfigError(f"{name}: this {what} was damaged or edited since it was written; make a new one")
    return told


def body_of(told: Mapping[str, Any], shape: type[T], name: str) -> T:
    """A value of ``shape`` from the fields of a document. Raises ConfigError."""
    try:
        return msgspec.convert(told, shape)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: not of a form that this program knows: {error}; make a new one") from None


def check(monitors: Sequence[Existing | Wanted], name: str) -> None:
    """Raise ConfigError for a monitor whose settings are not all there."""
    for monitor in monitors:
        part = monitor.key[2]
        if part not in DEFAULTS or dict(monitor.settings) != filled(part, monitor.settings):
            raise ConfigError(f"{name}: the settings of {' '.join(monitor.key)} are none; make a new one")


def _digest(told: Mapping[str, Any]) -> str:
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(text.encode()).hexdigest()
