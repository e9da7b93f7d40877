"""``plexus-detect monitors prune``: delete what is ours and no document wants any more."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plexus_detect.errors import ConfigError, UnsafePlanError
from plexus_detect.options import config_option, configured, tell
from plexus_detect.provision.locking import lock_timeout_option, locked
from plexus_detect.provision.shared import (
    backups_of,
    force_option,
    ledger_of,
    limits_of,
    monitors_client,
    path_argument,
    plan_of,
    specs_of,
    var_option,
)
from plexus_detect.provision.showing import show

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.monitors import Plan
    from plexus_detect.monitors.guard import Limits
    from plexus_detect.provision.api import MonitorApi
    from plexus_detect.provision.applying import Ledger, Say
    from plexus_detect.provision.backups import Backups


@click.command()
@path_argument
@config_option
@var_option
@click.option("--dry-run", is_flag=True, help="Show what would be deleted; writes nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; without a terminal it deletes only with this.")
@click.option(
    "--max-deletes",
    type=click.IntRange(min=0),
    metavar="N",
    help="Delete at most so many at once (monitors.prune_max).",
)
@click.option(
    "--max-share",
    type=click.FloatRange(0, 1),
    metavar="S",
    help="Delete at most this share of ours, where more than 3 go (monitors.prune_share).",
)
@force_option
@lock_timeout_option
def prune(
    path: Path | None,
    config_paths: tuple[Path, ...],
    *,
    dry_run: bool,
    yes: bool,
    force: bool,
    lock_timeout_s: float,
    **limits: Any,  # noqa: ANN401  max_deletes and max_share
) -> None:
    """Delete the monitors that are ours and that no document wants any more.

    PATH is a file or a folder of them (default: monitors.path of the configuration). A backup comes first:
    plexus-detect monitors undo brings them back.
    """
    config = configured(config_paths)
    run = _Run(config, path, limits_of(config, **limits), force=force)
    if dry_run:
        found = asyncio.run(run.planned())
        problems = run.shown(found).problems
        run.require_safe(found)
        sys.exit(1 if problems else 0)
    shown: Plan | None = None
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(
                "monitors prune deletes: without a terminal it needs --yes, or --dry-run to look"
            )
        found = asyncio.run(run.planned())
        run.require_safe(found)
        if found.stale:
            shown = run.shown(found)
            click.confirm("Delete these monitors?", abort=True)
    with locked(config, lock_timeout_s):
        sys.exit(0 if asyncio.run(run.carried_out(shown)) else 1)


class _Run:
    """One run of the command: what it reads, and what it carries out."""

    def __init__(self, config: Config, path: Path | None, limits: Limits, *, force: bool) -> None:
        self._config = config
        self._path = path
        self._limits = limits
        self._force = force

    def require_safe(self, plan: Plan) -> None:
        """Raise UnsafePlanError for a plan beyond the limits."""
        from plexus_detect.monitors.guard import require_safe

        require_safe(plan, self._limits)

    def shown(self, plan: Plan) -> Plan:
        """Print the deletes of a plan, and return it with nothing but them."""
        from plexus_detect.monitors.guard import only_deletes

        found = only_deletes(plan)
        show(found)
        return found

    async def planned(self) -> Plan:
        """What differs, and what there is to delete; reads only."""
        async with monitors_client(self._config) as client:
            return await self._plan(client)

    async def carried_out(self, shown: Plan | None) -> bool:
        """Delete what is to be deleted, if it still is what was ``shown``; whether all of it is gone."""
        from plexus_detect.monitors.guard import only_deletes

        async with monitors_client(self._config) as client:
            found = await self._plan(client)
            self.require_safe(found)
            if shown is not None and found.stale != shown.stale:
                raise UnsafePlanError(
                    "the monitors changed while you were asked, so nothing is deleted; run it again"
                )
            ledger, backups = ledger_of(self._config), backups_of(self._config)
            return await pruned(client, only_deletes(found), tell, ledger=ledger, backups=backups)

    async def _plan(self, api: MonitorApi) -> Plan:
        specs, ledger = specs_of(self._config, self._path), ledger_of(self._config)
        return await plan_of(api, self._config, specs, ledger, force=self._force, prune=True)


async def pruned(api: MonitorApi, plan: Plan, say: Say, *, ledger: Ledger, backups: Backups) -> bool:
    """Carry out the deletes of a plan of nothing else; whether all went and nothing was in the way.

    A backup is written first. Afterwards the platform's list is read twice: what either reading shows is
    still there, and stays ours. ``say`` gets a line for each monitor.
    """
    from plexus_detect.monitors import merged
    from plexus_detect.provision.applying import apply_plan
    from plexus_detect.provision.reading import existing_monitors

    if not plan.work:
        for problem in plan.problems:
            say(f"failed: {problem.kind}: {problem.sentence}")
        return not plan.problems
    backups.write(plan.work, "prune")
    said: list[str] = []

    def heard(line: str) -> None:
        said.append(line)
        say(line)

    result = await apply_plan(api, plan, heard)
    seen = merged(result.seen, await existing_monitors(api))
    ledger.settle(plan, replace(result, seen=seen))
    listed = {(monitor.key, monitor.id) for monitor in seen}
    left = [c for c in plan.work if c.found is not None and (c.key, c.found.id) in listed]
    for change in left:
        if not any(line.startswith(f"failed: delete {change.label}: ") for line in said):
            say(f"failed: delete {change.label}: the platform says that it is done, and still lists it")
    return result.failed == 0 and not left
