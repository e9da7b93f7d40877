"""The files that say which monitors are wanted."""

from __future__ import annotations

from pathlib import Path

from plexus_detect import monitors
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import MonitorSpec
from plexus_detect.provision.planfile import is_plan_file

SCHEMA_SUFFIX = ".schema.json"


def load_specs(path: Path, *, size_bytes_max: int = 1 << 20) -> tuple[MonitorSpec, ...]:
    """The documents of one JSON file, or of every ``*.json`` of a directory in name order.

    Files named ``*.schema.json`` are schemas, not monitors, and neither is a saved plan. Raises
    ConfigError, one sentence each: a path that does not exist, a file that cannot be read or is larger than
    ``size_bytes_max``, a document that is wrong, and nothing to load at all, since an empty directory is more
    often a wrong path than a wish.
    """
    specs = [
        spec
        for file in _files(path)
        if not is_plan_file(file)
        for spec in monitors.parse(_read(file, size_bytes_max), str(file))
    ]
    if not specs:
        raise ConfigError(
            f"{path}: no monitor in it; put at least one *.json file there or name another path"
        )
    return tuple(specs)


def _files(path: Path) -> list[Path]:
    try:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or directory; it should hold the monitors' JSON files")
        if not path.is_dir():
            return [path]
        return [f for f in sorted(path.glob("*.json")) if not f.name.endswith(SCHEMA_SUFFIX)]
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
