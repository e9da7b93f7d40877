"""The backups of what runs changed or deleted: files in a folder beside the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from plexus_detect import __version__, clock
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import Change
from plexus_detect.monitors.backup import Backup, backup_from, touched
from plexus_detect.provision.manifestfile import BYTES_MAX, utc_now, write_whole

KEPT = 20


class Backups:
    """The newest ``keep`` backups of one deployment. Methods raise ConfigError for an unusable file."""

    def __init__(self, manifest: Path, owner: str, endpoint: str, keep: int = KEPT) -> None:
        self.folder = manifest.with_name(f"{manifest.stem}.backups")
        self._owner = owner
        self._endpoint = endpoint
        self._keep = keep

    def write(self, work: Sequence[Change], command: str) -> Path:
        """Keep what ``work`` touches as it is now; returns the new file. Older ones beyond ``keep`` go."""
        backup = Backup(self._endpoint, self._owner, utc_now(), command, __version__, touched(work))
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._free(command)
            write_whole(path, backup.to_json())
            for old in self.files()[: -self._keep]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: no backup can be written there ({error.strerror}), so nothing was changed; "
                "make room, or name a file in monitors.manifest whose folder can be written"
            ) from error
        return path

    def _free(self, command: str) -> Path:
        """A name of this moment that is newer than every other."""
        now_ms = clock.now_ms()
        newest = self.files()[-1:]
        while True:
            at = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%dT%H%M%S.%f")[:-3] + "Z"
            path = self.folder / f"{at}-{command}.json"
            if not any(other.name.split("Z-")[0] >= at[:-1] for other in newest):
                return path
            # The clock went back, or two came in one millisecond: what is newest must still be the last.
            now_ms = max(now_ms + 1, _ms_of(newest[0]) + 1)

    def files(self) -> list[Path]:
        """All backups, the oldest first."""
        return sorted(path for path in self.folder.glob("*Z-*.json") if _ms_of(path) > 0)

    def newest(self) -> tuple[Path, Backup]:
        """The last backup and its file. Raises ConfigError when there is none, or none of ours."""
        found = self.files()
        if not found:
            raise ConfigError(f"{self.folder}: no backup there; no run has changed or deleted a monitor yet")
        return found[-1], self.read(found[-1])

    def read(self, path: Path) -> Backup:
        """One backup. Raises ConfigError also for one of another owner or platform."""
        try:
            if path.stat().st_size > BYTES_MAX:
                raise ConfigError(f"{path}: larger than {BYTES_MAX} bytes, so no backup of monitors")
            backup = backup_from(path.read_text("utf-8"), str(path))
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: no backup of monitors; it is damaged or another file") from None
        except OSError as error:
            raise ConfigError(f"{path}: the backup cannot be read ({error.strerror})") from error
        for what, mine, its in (
            ("owner", self._owner, backup.owner),
            ("platform", self._endpoint, backup.endpoint),
        ):
            if mine != its:
                raise ConfigError(f"{path}: this backup is of {what} {its!r}, not of {mine!r}")
        return backup


def _ms_of(path: Path) -> int:
    """The time in a backup's name; 0 where it holds none."""
    try:
        at = datetime.strptime(path.name.split("Z-")[0] + "+0000", "%Y-%m-%dT%H%M%S.%f%z")
    except ValueError:
        return 0
    return round(at.timestamp() * 1000)
