"""The file of the manifest: beside the worker's state, written whole or not at all."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from plexus_detect import clock
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import Manifest
from plexus_detect.monitors.manifest import manifest_from
from plexus_detect.store.database import make_private

BYTES_MAX = 64 << 20


class ManifestFile:
    """One manifest on disk. Every method raises ConfigError for a file that cannot be used."""

    def __init__(self, path: Path, owner: str, endpoint: str) -> None:
        self.path = path
        self._owner = owner
        self._endpoint = endpoint

    def load(self) -> Manifest:
        """What the file holds; an empty manifest where there is none."""
        try:
            if self.path.stat().st_size > BYTES_MAX:
                raise ConfigError(f"{self.path}: larger than {BYTES_MAX} bytes, so no manifest; move it away")
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return Manifest(self._owner, self._endpoint)
        except UnicodeDecodeError:
            text = ""
        except OSError as error:
            raise ConfigError(
                f"{self.path}: the manifest of monitors cannot be read ({error.strerror}); check its rights"
            ) from error
        manifest = manifest_from(text, str(self.path))
        for what, mine, its in (
            ("owner", self._owner, manifest.owner),
            ("platform", self._endpoint, manifest.endpoint),
        ):
            if mine != its:
                raise ConfigError(
                    f"{self.path}: this manifest is of {what} {its!r}, not of {mine!r}; "
                    "name another file in monitors.manifest"
                )
        return manifest

    def save(self, manifest: Manifest) -> None:
        """Replace the file, unless it says the same already."""
        text = manifest.to_json()
        try:
            if self.path.exists() and self.path.read_text("utf-8", "replace") == text:
                return
            write_whole(self.path, text)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: the manifest of monitors cannot be written ({error.strerror}); "
                "name a file in monitors.manifest whose folder can be written"
            ) from error


def write_whole(path: Path, text: str) -> None:
    """Write a file that only its owner reads, so that a crash leaves the old one or the new one.

    Raises OSError.
    """
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.unlink(missing_ok=True)
    make_private(str(unfinished))
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def utc_now() -> str:
    """The time as the manifest writes it: UTC, to the second."""
    return datetime.fromtimestamp(clock.now_ms() // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
