"""``plexus-detect monitors``: the platform's monitors as files say."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import config_option, configured
from plexus_detect.provision.locking import jitter_option, lock_timeout_option, locked, wait_a_while
from plexus_detect.provision.shared import (
    force_option,
    ledger_of,
    monitors_client,
    overwrites,
    own_source,
    path_argument,
    saved_plan_of,
)
from plexus_detect.redaction import visible

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.client import Client
    from plexus_detect.config import Config
    from plexus_detect.monitors import Plan
    from plexus_detect.provision.ledger import FileLedger

EXIT_CHANGES_PENDING = 2


@click.group()
def monitors() -> None:
    """Plan and apply the platform's monitors from JSON files."""


@monitors.command()
@path_argument
@config_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when changes are pending, 0 when none.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the plan, for apply FILE."
)
@force_option
def plan(
    path: Path | None,
    config_paths: tuple[Path, ...],
    *,
    detailed_exitcode: bool,
    out: Path | None,
    force: bool,
) -> None:
    """Show what apply would change; writes nothing to the platform.

    PATH is a JSON file or a folder of them (default: monitors.path of the configuration), or a plan that -o
    saved: it is shown as it is, and nothing is asked of the platform.
    """
    config = configured(config_paths)
    saved = saved_plan_of(config, path)
    if saved is not None:
        _refuse_with_saved(path, {"--force": force, "--out": out is not None})
        click.echo(f"saved {saved.made} by version {saved.program} for {visible(saved.endpoint)}")
    wanted = asyncio.run(_plan(config, path, force=force)) if saved is None else saved.plan()
    _show(wanted)
    if out is not None:
        from plexus_detect.provision.planfile import write_plan

        write_plan(out, wanted, config.plexus.endpoint)
    if wanted.problems:
        sys.exit(1)
    if detailed_exitcode and wanted.work:
        sys.exit(EXIT_CHANGES_PENDING)


def _show(wanted: Plan) -> None:
    from plexus_detect.monitors import render

    click.echo("\n".join(map(visible, render(wanted))))


def _refuse_with_saved(path: Path | None, given: dict[str, bool]) -> None:
    for option, is_given in given.items():
        if is_given:
            raise click.UsageError(f"{option} cannot be given with the saved plan {path}: it holds one plan")


async def _plan(config: Config, path: Path | None, *, force: bool) -> Plan:
    from plexus_detect.provision.files import load_specs
    from plexus_detect.provision.reading import make_plan

    specs = load_specs(path or config.monitors.path)
    ours = ledger_of(config).ownership(mark=config.monitors.mark, overwrite=overwrites(config, force=force))
    async with monitors_client(config) as client:
        return await make_plan(client, specs, own_source(config), ownership=ours)


@monitors.command()
@path_argument
@config_option
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
    """Make the platform's monitors as the JSON files say; silent when nothing is to be done.

    PATH is a JSON file or a folder of them (default: monitors.path of the configuration), or a plan that
    plan -o saved: then just that is done, or nothing, exit 5, where the platform has changed since. On a
    terminal the plan is shown and confirmed first; without one, as under cron, apply goes on.
    """
    config = configured(config_paths)
    saved = saved_plan_of(config, path)
    if saved is not None:
        _refuse_with_saved(path, {"--force": force})
    terminal = sys.stdin.isatty()
    if not terminal:
        wait_a_while(jitter_s)
    with locked(config, lock_timeout_s):
        if saved is None and (yes or not terminal):
            sys.exit(0 if asyncio.run(_apply(config, path, force=force)) else 1)
        shown = asyncio.run(_plan(config, path, force=force)) if saved is None else saved.plan()
        if shown.work and terminal and not yes:
            _show(shown)
            click.confirm("Apply these changes?", abort=True)
        sys.exit(0 if asyncio.run(_carry_out(config, shown)) else 1)


async def _apply(config: Config, path: Path | None, *, force: bool) -> bool:
    from plexus_detect.provision.files import load_specs
    from plexus_detect.provision.reading import make_plan

    specs = load_specs(path or config.monitors.path)
    ledger = ledger_of(config)
    ours = ledger.ownership(mark=config.monitors.mark, overwrite=overwrites(config, force=force))
    async with monitors_client(config) as client:
        wanted = await make_plan(client, specs, own_source(config), ownership=ours)
        return await _done(client, wanted, ledger)


async def _carry_out(config: Config, shown: Plan) -> bool:
    """Do just what was shown, where it still fits. Raises UnsafePlanError."""
    from plexus_detect.provision.reading import rechecked

    ledger = ledger_of(config)
    ours = ledger.ownership(mark=shown.ownership.mark, overwrite=shown.ownership.overwrite)
    async with monitors_client(config) as client:
        left = await rechecked(client, shown, ours)
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
