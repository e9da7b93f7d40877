"""Where the API key could be read by others: on the way to the platform, and in a file."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from plexus_detect.positions import BYTES_MAX

_KEY = re.compile(rb"plx_[A-Za-z0-9+/=_-]{8,}")


def unprotected(addresses: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each setting whose address sends the key in the clear to another machine."""
    return tuple(
        f"{name} is {url}: whoever is on the way there can read the API key; use https://"
        for name, url in addresses.items()
        if urlsplit(url).scheme == "http" and not is_loopback(urlsplit(url).hostname or "")
    )


def is_loopback(host: str) -> bool:
    """Whether an address of this host stays within the machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def readable_by_others(paths: Sequence[Path]) -> tuple[str, ...]:
    """A sentence for each file that holds a key and that other users may read. Windows has no such rights."""
    if os.name != "posix":
        return ()
    return tuple(
        f"{path} holds an API key and others may read it; run chmod 600 {path}, or use PLEXUS_API_KEY_FILE"
        for path in paths
        if _is_open(path) and _holds_a_key(path)
    )


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def _holds_a_key(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _KEY.search(file.read(BYTES_MAX)) is not None
    except OSError:
        return False
