"""Every setting with its value and the place where it was written; the key is never among the values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from plexus_detect.config import Config, KeyPath, Origin, key_text
from plexus_detect.config.connect import is_plain
from plexus_detect.config.load import leaves
from plexus_detect.doctor.findings import MASK

# Variables of the environment that our libraries read; of the proxies either case.
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
OTHER_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NO_COLOR")
DEFAULT = "default"
HIDDEN = "***"
_KEY: KeyPath = ("plexus", "api_key")
_KEY_FILE: KeyPath = ("plexus", "api_key_file")


@dataclass(frozen=True)
class Setting:
    """One setting as it holds, and where it was written: "default", file:line or a variable."""

    key: str
    value: str
    origin: str

    @property
    def is_default(self) -> bool:
        """Whether nobody wrote it."""
        return self.origin == DEFAULT


def settings_of(config: Config, origins: Mapping[KeyPath, Origin], env: Mapping[str, str]) -> list[Setting]:
    """All settings that hold, in the order of the sections, and the variables that change how we connect.

    What a rule takes over from elsewhere is left out.
    """
    found = [
        Setting(key_text(path), _text(path, value), _origin(path, origins))
        for path, value in leaves(config.model_dump(mode="json", by_alias=True))
        if value is not None or path in origins
    ]
    names = [*PROXY_VARIABLES, *(name.lower() for name in PROXY_VARIABLES), *OTHER_VARIABLES]
    found += [Setting(name, env[name], "the environment") for name in names if env.get(name)]
    return found


def _text(path: KeyPath, value: object) -> str:
    if path == _KEY:
        return MASK
    if path[1:2] == ("options",) and not is_plain(str(path[-1]), value):
        return HIDDEN
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _origin(path: KeyPath, origins: Mapping[KeyPath, Origin]) -> str:
    if path == _KEY and path not in origins:
        path = _KEY_FILE
    for end in range(len(path), 0, -1):
        # A list of sections that came from one variable has no places of its own.
        if path[:end] in origins:
            return origins[path[:end]].where
    return DEFAULT
