"""``plexus-detect monitors apply``: the platform's monitors as the documents, or a saved plan, say."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import config_option, configured
from plexus_detect.provision.locking import jitter_option, lock_timeout_option, locked, wait_a_while
from plexus_detect.provision.shared import (
    force_option,
    ledger_of,
    limits_of,
    monitors_client,
    path_argument,
    plan_of,
    refuse_with_saved,
    saved_plan_of,
    specs_of,
    var_option,
)
from plexus_detect.provision.showing import show
from plexus_detect.redaction import visible

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.client import Client
    from plexus_detect.config import Config
    from plexus_detect.monitors import MonitorSpec, Plan
    from plexus_detect.provision.ledger import FileLedger


@click.command()
@path_argument
@config_option
@var_option
@click.option("--yes", is_flag=True, help="Do not ask, also on a terminal.")
@force_option
@lock_timeout_option
@jitter_option
def apply(
    path: Path | None,
    config_paths: tuple[Path, ...],
    *,
    yes: bool,
    force: bool,
    lock_timeout_s: float,
    jitter_s: float,
) -> None:
    """Make the platform's monitors as the files say; silent when nothing is to be done.

    PATH is a file in JSON, YAML or TOML or a folder of them (default: monitors.path of the configuration), or
    a plan that plan -o saved: then just that is done, or nothing, exit 5, where the platform has changed
    since. On a terminal the plan is shown and confirmed first; without one, as under cron, apply goes on.
    """
    config = configured(config_paths)
    saved = saved_plan_of(config, path)
    if saved is not None:
        refuse_with_saved(path, {"--force": force})
    # A document that is wrong is said before a lock is taken for it.
    specs = specs_of(config, path) if saved is None else ()
    terminal = sys.stdin.isatty()
    if not terminal:
        wait_a_while(jitter_s)
    with locked(config, lock_timeout_s):
        if saved is None and (yes or not terminal):
            sys.exit(0 if asyncio.run(_apply(config, specs, force=force)) else 1)
        shown = asyncio.run(_plan(config, specs, force=force)) if saved is None else saved.plan()
        if shown.work and terminal and not yes:
            show(shown)
            click.confirm("Apply these changes?", abort=True)
        sys.exit(0 if asyncio.run(_carry_out(config, shown)) else 1)


async def _plan(config: Config, specs: Sequence[MonitorSpec], *, force: bool) -> Plan:
    ledger = ledger_of(config)
    async with monitors_client(config) as client:
        return await plan_of(client, config, specs, ledger, force=force)


async def _apply(config: Config, specs: Sequence[MonitorSpec], *, force: bool) -> bool:
    ledger = ledger_of(config)
    async with monitors_client(config) as client:
        return await _done(client, await plan_of(client, config, specs, ledger, force=force), ledger)


async def _carry_out(config: Config, shown: Plan) -> bool:
    """Do just what was shown, where it still fits. Raises UnsafePlanError."""
    from plexus_detect.monitors.guard import require_safe
    from plexus_detect.provision.reading import rechecked

    ledger = ledger_of(config)
    ours = ledger.ownership(mark=shown.ownership.mark, overwrite=shown.ownership.overwrite)
    async with monitors_client(config) as client:
        left = await rechecked(client, shown, ours)
        require_safe(left, limits_of(config))
        if shown.work and left.empty:
            click.echo("nothing to do: the plan was carried out already")
        return await _done(client, left, ledger)


async def _done(client: Client, wanted: Plan, ledger: FileLedger) -> bool:
    """Whether all is as wanted in the end."""
    from plexus_detect.provision.applying import apply_plan

    if wanted.empty:
        ledger.adopt(wanted)
        return True
    result = await apply_plan(client, wanted, lambda line: click.echo(visible(line)), ledger=ledger)
    return result.ok
