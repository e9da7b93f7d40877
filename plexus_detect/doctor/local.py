"""The checks of this machine: files, key, state, models, versions. None of them changes anything."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from plexus_detect import __version__, clock
from plexus_detect.config import Config, KeyPath, Origin
from plexus_detect.doctor.findings import Finding, fail, failed, ok, warn
from plexus_detect.errors import AuthError, ConfigError, ModelError, StoreError
from plexus_detect.onlooker import Onlooker, presence_of

# The platform's keys have so many characters; others are refused (contract section 1).
KEY_CHARS = 36

# A full disk loses nothing but stops everything; the state of 10,000 series is about 200 MB.
FREE_BYTES_LEAST, FREE_BYTES_GOOD = 50 << 20, 1 << 30

_KEY = re.compile(r"plx_[A-Za-z0-9+/=_-]+")
EXTRAS = {"sandbox": "starlette", "fast": "isal", "learn": "pyod", "serve": "fastapi", "deep": "torch"}
PACKAGES = ("numpy", "httpx", "pydantic", "msgspec")


def configuration(paths: Sequence[Path], config: Config) -> Iterator[Finding]:
    """Which files were merged, and settings that were probably not meant."""
    names = ", ".join(map(str, paths))
    if len(paths) > 1:
        yield ok("configuration", f"{len(paths)} files, later over earlier: {names}")
    else:
        yield ok("configuration", names or "no file: defaults and environment")
    for sentence in config.warnings():
        yield warn("configuration", sentence)


def key(config: Config, origins: Mapping[KeyPath, Origin]) -> Iterator[Finding]:
    """Whether there is a key, of which form, from where, and who may read it."""
    if config.plexus.api_key is None:
        to_do = "set PLEXUS_API_KEY, or PLEXUS_API_KEY_FILE to a file with it"
        yield fail("key", "there is none", to_do, exit_code=AuthError.exit_code)
        return
    text = config.plexus.api_key.get_secret_value()
    origin = origins.get(("plexus", "api_key")) or origins.get(("plexus", "api_key_file")) or Origin("?")
    file = config.plexus.api_key_file if ("plexus", "api_key") not in origins else None
    where = f"{origin.where}: {file}" if file is not None else origin.where
    if not _KEY.fullmatch(text):
        found = f"what {where} gives is no key: one begins with plx_ and goes on with letters and digits"
        yield fail("key", found, "look for quotes and spaces", exit_code=AuthError.exit_code)
    elif len(text) != KEY_CHARS:
        found = f"from {where}, with {len(text)} characters; the platform's have {KEY_CHARS}"
        yield warn("key", found, "look whether it is whole")
    else:
        yield ok("key", f"from {where}, of the right form")
    yield from _readable_by_all(file or Path(re.sub(r":\d+$", "", origin.where)))


def _readable_by_all(file: Path) -> Iterator[Finding]:
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        yield warn("key", f"{file} holds it and everybody may read that", f"chmod 600 {file}")


def state(config: Config) -> Iterator[Finding]:
    """Whether the state file can be written and is whole, and which worker has it."""
    path = config.state.path
    folder = path.resolve().parent
    code = StoreError.exit_code
    if not folder.is_dir():
        yield fail("state folder", f"{folder} does not exist", "make it, or set state.path", exit_code=code)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield fail("state folder", f"{folder} may not be written", "change its rights", exit_code=code)
    else:
        yield ok("state folder", f"{folder} may be written")
    yield _free(folder)
    yield from _state_file(path)
    if path.exists():
        yield ok("worker", str(presence_of(path)))


def free_bytes(folder: Path) -> int:
    """The space that is left on a folder's disk."""
    return shutil.disk_usage(folder).free


def _free(folder: Path) -> Finding:
    free = free_bytes(folder)
    found = f"{size(free)} free for the state file"
    if free < FREE_BYTES_LEAST:
        return fail("disk", found, "free some space", exit_code=StoreError.exit_code)
    return warn("disk", found, "free some space") if free < FREE_BYTES_GOOD else ok("disk", found)


def _state_file(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield ok("state file", f"{path} does not exist yet; the first run makes it")
        return
    try:
        with closing(Onlooker(path)) as store:
            damage, schema, series = store.damage(), store.schema(), len(store.series())
            bytes_held = store.bytes_held()
    except StoreError as error:
        yield failed("state file", error)
        return
    if damage is not None:
        found = f"{path} is damaged ({damage})"
        yield fail("state file", found, "restore a copy, or move it away", exit_code=StoreError.exit_code)
    elif not os.access(path, os.W_OK):
        yield fail("state file", f"{path} may not be written", "change its rights", exit_code=4)
    else:
        told = f"{path}: schema {schema}, {series:,} series, {size(bytes_held)}, whole"
        yield ok("state file", told)


def size(n: int) -> str:
    """A number of bytes as people read it."""
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if n >= factor:
            return f"{n / factor:.3g} {unit}"
    return f"{n} bytes"


def learned(config: Config) -> Iterator[Finding]:
    """Whether the groups of ``detectors`` have what they need."""
    from plexus_detect.policy import policy_of
    from plexus_detect.training.trainer import require
    from plexus_detect.training.versions import ModelFolder

    if not config.detectors:
        return
    try:
        require()
        policy_of(config)
        kept = ModelFolder(config.models).names()
    except (ConfigError, ModelError) as error:
        yield failed("learned", error)
        return
    for group in config.detectors:
        models = [name for name in kept if name == group.name or name.startswith(f"{group.name}@")]
        how = {"learned": group.backend, "onnx": str(group.model), "autoencoder": "autoencoder"}[group.kind]
        have = f"{len(models)} kept in {config.models}" if models else "none kept yet"
        yield ok("learned", f"{group.name} by {how}, models: {have}")


def manifest(config: Config) -> Iterator[Finding]:
    """What is ours of the platform's monitors, since when, and whether that can be written down."""
    from plexus_detect.provision.manifestfile import manifest_file

    path = config.manifest()
    folder = path.resolve().parent
    try:
        held = manifest_file(config).load()
    except ConfigError as error:
        yield warn("manifest", str(error))
        return
    if held.last_run is None and not held.owned:
        told = f"{path}: none yet; the first apply writes it"
    else:
        since = held.last_run.at if held.last_run else "never"
        told = f"{path}: monitors of {held.owner}: {len(held.owned):,}, last applied {since}"
    if not os.access(folder, os.W_OK | os.X_OK):
        found = f"{told}; {folder} may not be written" if folder.is_dir() else f"{folder} does not exist"
        yield warn("manifest", found, "where monitors are applied, change that or set monitors.manifest")
    else:
        yield ok("manifest", told)


def machine(config: Config) -> Iterator[Finding]:
    """Time zones and versions, for whoever reads the report elsewhere."""
    now = datetime.fromtimestamp(clock.now_ms() / 1000).astimezone()
    zones = {config.detect_for(i).timezone for i in range(len(config.series))}
    seasons = ", ".join(sorted(zones))
    yield ok("time zone", f"this machine's is {now.tzname()} ({now:%z}); seasons follow {seasons}")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    extras = ", ".join(extra for extra, name in EXTRAS.items() if importlib.util.find_spec(name)) or "none"
    python = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    yield ok("versions", f"plexus-detect {__version__}, {python}, {versions}; extras: {extras}")
