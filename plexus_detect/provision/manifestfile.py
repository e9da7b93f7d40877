"""The file of the manifest: beside the worker's state, written whole or not at all."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from plexus_detect import clock
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import Manifest
from plexus_detect.monitors.manifest import manifests_from, text_of
from plexus_detect.store.database import make_private

if TYPE_CHECKING:
    from plexus_detect.config import Config

BYTES_MAX = 64 << 20


class ManifestFile:
    """The manifest of one owner on one platform, in a file that may hold those of others.

    Every method raises ConfigError for a file that cannot be used.
    """

    def __init__(self, path: Path, owner: str, endpoint: str) -> None:
        self.path = path
        self._empty = Manifest(owner, endpoint)

    def load(self) -> Manifest:
        """What the file holds of ours; an empty manifest where there is none."""
        return next((manifest for manifest in self._all() if self._is_ours(manifest)), self._empty)

    def save(self, manifest: Manifest) -> None:
        """Replace what the file holds of ours, unless it says the same already."""
        others = [other for other in self._all() if not self._is_ours(other)]
        text = text_of([*others, manifest])
        try:
            if self.path.exists() and self.path.read_text("utf-8", "replace") == text:
                return
            write_whole(self.path, text)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: the manifest of monitors cannot be written ({error.strerror}); "
                "name a file in monitors.manifest whose folder can be written"
            ) from error

    def _is_ours(self, manifest: Manifest) -> bool:
        return (manifest.owner, manifest.endpoint) == (self._empty.owner, self._empty.endpoint)

    def _all(self) -> tuple[Manifest, ...]:
        try:
            if self.path.stat().st_size > BYTES_MAX:
                raise ConfigError(f"{self.path}: larger than {BYTES_MAX} bytes, so no manifest; move it away")
            text = self.path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(
                f"{self.path}: the manifest of monitors cannot be read ({error.strerror}); check its rights"
            ) from error
        return manifests_from(text, str(self.path))


def manifest_file(config: Config) -> ManifestFile:
    """The manifest of a deployment."""
    return ManifestFile(config.manifest(), config.monitors.owner, config.plexus.endpoint)


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
