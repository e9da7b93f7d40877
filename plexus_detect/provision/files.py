"""The files that say which monitors are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plexus_detect import monitors
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import MonitorSpec, Variable
from plexus_detect.positions import BYTES_MAX, SUFFIXES
from plexus_detect.provision.planfile import is_plan_file

SCHEMA_SUFFIX = ".schema.json"


def load_specs(
    path: Path,
    *,
    variables: Mapping[str, Variable] | None = None,
    targets: Mapping[str, str] | None = None,
    size_bytes_max: int = BYTES_MAX,
) -> tuple[MonitorSpec, ...]:
    """The monitors of one file, or of every ``*.json``, ``.yaml``, ``.yml`` and ``.toml`` of a directory in
    name order; ``variables`` and ``targets`` are what their short form may refer to.

    Files named ``*.schema.json`` are schemas, not monitors, and neither is a saved plan. Raises
    ConfigError, one sentence each: a path that does not exist, a file that cannot be read or is larger than
    ``size_bytes_max``, a document that is wrong, and nothing to load at all, since an empty directory is more
    often a wrong path than a wish.
    """
    specs = [
        spec
        for file in _files(path)
        if not is_plan_file(file)
        for spec in monitors.parse(
            _read(file, size_bytes_max), str(file), variables=variables, targets=targets
        )
    ]
    if not specs:
        raise ConfigError(
            f"{path}: no monitor in it; put at least one JSON, YAML or TOML file there or name another path"
        )
    return tuple(specs)


def _files(path: Path) -> list[Path]:
    try:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or directory; it should hold the monitors' files")
        if not path.is_dir():
            return [path]
        return sorted(
            f for f in path.iterdir() if f.suffix in SUFFIXES and not f.name.endswith(SCHEMA_SUFFIX)
        )
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; check the path and its rights"
        ) from error


def _read(file: Path, size_bytes_max: int) -> str:
    try:
        if file.stat().st_size > size_bytes_max:
            raise ConfigError(f"{file}: larger than {size_bytes_max} bytes; split it into several files")
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text: {error.reason} at byte {error.start}") from error
