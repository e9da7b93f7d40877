"""``plexus-detect monitors undo``: make the monitors of a run what they were before it, from its backup."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError, UnsafePlanError
from plexus_detect.options import config_option, configured, tell
from plexus_detect.provision.locking import lock_timeout_option, locked
from plexus_detect.provision.shared import backups_of, monitors_client
from plexus_detect.provision.showing import show

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.monitors import Existing, Ownership, Plan
    from plexus_detect.monitors.backup import Backup
    from plexus_detect.monitors.undoing import Undo
    from plexus_detect.provision.api import MonitorApi
    from plexus_detect.provision.applying import Say
    from plexus_detect.provision.backups import Backups
    from plexus_detect.provision.manifestfile import ManifestFile

UNDONE = ".undone"
STARTED = ".undoing"


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
@click.option("--yes", is_flag=True, help="Do not ask; without a terminal it changes only with this.")
@click.option("--force", is_flag=True, help="Set back also what was edited on the platform since.")
@lock_timeout_option
def undo(
    file: Path | None, config_paths: tuple[Path, ...], *, yes: bool, force: bool, lock_timeout_s: float
) -> None:
    """Make the monitors that a run changed or deleted what they were before it.

    FILE is a backup (default: the newest). What it says is done, and the backup is put aside.
    """
    config = configured(config_paths)
    if not yes and not sys.stdin.isatty():
        raise ConfigError("monitors undo changes and deletes: without a terminal it needs --yes")
    backups = backups_of(config)
    path, backup = backups.newest() if file is None else (file, backups.read(file))
    run = _Run(config, path, backup, force=force)
    tell(f"undo {backup.command} of {backup.made} ({len(backup.monitors)} monitors)")
    shown: Plan | None = None
    if not yes:
        shown = asyncio.run(run.planned())
        if shown.work:
            show(shown)
            click.confirm("Set these monitors back?", abort=True)
    with locked(config, lock_timeout_s):
        sys.exit(0 if asyncio.run(run.carried_out(shown)) else 1)


class _Run:
    """One run of the command."""

    def __init__(self, config: Config, path: Path, backup: Backup, *, force: bool) -> None:
        self._config = config
        self._path = path
        self._backup = backup
        self._force = force

    async def planned(self) -> Plan:
        """What would be set back; reads only."""
        async with monitors_client(self._config) as client:
            return await self._undoing().planned(client)

    async def carried_out(self, shown: Plan | None) -> bool:
        """Set back what is to be set back, if it still is what was ``shown``; whether all is."""
        undoing = self._undoing()
        async with monitors_client(self._config) as client:
            plan = await undoing.planned(client)
            if shown is not None and plan.changes != shown.changes:
                raise UnsafePlanError(
                    "the monitors changed while you were asked, so nothing is set back; run it again"
                )
            for note in plan.notes if shown is None else ():
                tell(f"note: {note}")
            return await undoing.carried_out(client, plan, tell)

    def _undoing(self) -> Undoing:
        from plexus_detect.provision.manifestfile import ManifestFile

        config = self._config
        file = ManifestFile(config.manifest(), config.monitors.owner, config.plexus.endpoint)
        return Undoing(self._path, self._backup, file, backups_of(config), overwrite=self._force)


class Undoing:
    """The way back from one run, which may take several attempts."""

    def __init__(
        self, path: Path, backup: Backup, manifest: ManifestFile, backups: Backups, *, overwrite: bool
    ) -> None:
        self._path = path
        self._backup = backup
        self._file = manifest
        self._manifest = manifest.load()
        self._backups = backups
        self._overwrite = overwrite

    async def planned(self, api: MonitorApi) -> Plan:
        """What is to be set back, by two readings of the platform's list."""
        seen = await _read_twice(api)
        return self._undo(seen).plan(seen, self._ours())

    async def carried_out(self, api: MonitorApi, plan: Plan, say: Say) -> bool:
        """Make the requests of ``plan``, read back, and put the backup aside when all is as it was.

        Raises ConfigError, before the first request, where a file cannot be written.
        """
        from plexus_detect.provision.applying import apply_plan
        from plexus_detect.provision.manifestfile import utc_now

        undo = self._undo(plan.seen)
        failed = 0
        seen = plan.seen
        if plan.work:
            self._begin(undo, plan)
            failed = (await apply_plan(api, plan, say)).failed - len(plan.problems)
            seen = await _read_twice(api)
        else:
            for problem in plan.problems:
                say(f"failed: {problem.kind}: {problem.sentence}")
        self._file.save(undo.kept(self._manifest, seen, utc_now()))
        left = undo.plan(seen, self._ours())
        if left.changes and not failed:
            for change in left.changes:
                say(
                    f"failed: {change.action} {change.label}: it is done, but the platform lists it otherwise"
                )
        if failed or left.changes or plan.problems:
            say(f"not all is as it was, so {self._path.name} stays: repair what is named, and undo again")
            return False
        self._put_aside()
        say(f"all is as it was before {self._backup.command} of {self._backup.made}")
        return True

    def _undo(self, seen: tuple[Existing, ...]) -> Undo:
        from plexus_detect.monitors.undoing import Undo

        former = self._former()
        if former is None:
            former = frozenset(monitor.id for monitor in seen if monitor.key[2] == "offline")
        return Undo(self._backup, self._path.name, former, self._restored())

    def _ours(self) -> Ownership:
        from plexus_detect.monitors import Ownership

        manifest = self._manifest
        return Ownership(manifest.owner, manifest.owned, overwrite=self._overwrite)

    def _restored(self) -> frozenset[str]:
        """The offline monitors that other undos have brought back: two runs may have tried to delete one."""
        from plexus_detect.monitors.backup import offline_ids

        ids: frozenset[str] = frozenset()
        for path in self._backups.folder.glob(f"*-*{UNDONE}"):
            with suppress(ConfigError):
                backup = self._backups.read(path)
                if backup.command != "undo" and path != self._path:
                    ids |= offline_ids(backup)
        return ids

    def _former(self) -> frozenset[str] | None:
        """The offline monitors that were there when the first attempt began; None before it."""
        try:
            return frozenset(map(str, json.loads(self._beside(STARTED).read_text("utf-8"))))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self._beside(STARTED)}: what an attempt to undo wrote there cannot be read ({error}); "
                "see by hand which offline monitors are back, and delete the file"
            ) from None

    def _begin(self, undo: Undo, plan: Plan) -> None:
        """Write what a further attempt needs, and what this one replaces, before the first request."""
        from plexus_detect.provision.manifestfile import write_whole

        aside = self._backups.write(plan.work, "undo")
        try:
            # Not the newest backup: a second undo is not to do again what the first undid.
            aside.rename(_with(aside, UNDONE))
            write_whole(self._beside(STARTED), json.dumps(sorted(undo.former)))
        except OSError as error:
            raise ConfigError(
                f"{self._path.parent}: cannot be written ({error.strerror}), so nothing was set back"
            ) from error
        self._file.save(self._manifest.expecting(plan))

    def _put_aside(self) -> None:
        self._beside(STARTED).unlink(missing_ok=True)
        if self._path.suffix != UNDONE:
            with suppress(FileNotFoundError):
                self._path.rename(_with(self._path, UNDONE))

    def _beside(self, suffix: str) -> Path:
        return _with(self._path, suffix)


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


async def _read_twice(api: MonitorApi) -> tuple[Existing, ...]:
    """The platform's list by two readings: one can be partial and does not say so."""
    from plexus_detect.monitors import merged
    from plexus_detect.provision.reading import existing_monitors

    return merged(await existing_monitors(api), await existing_monitors(api))
