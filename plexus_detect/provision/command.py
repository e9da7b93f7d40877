"""``plexus-detect monitors``: the platform's monitors as files say."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import client_of, config_option, configured
from plexus_detect.provision.lint import lint
from plexus_detect.provision.review import review
from plexus_detect.provision.shared import force_option, ledger_of, overwrites, own_source, path_argument
from plexus_detect.redaction import visible

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.monitors import Plan
    from plexus_detect.monitors.forecast import Preview

EXIT_CHANGES_PENDING = 2

DAYS_HELP = "Preview how often thresholds would have fired in so many days; 0: no preview."


@click.group()
def monitors() -> None:
    """Plan and apply the platform's monitors from JSON files."""


@monitors.command()
@path_argument
@config_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when changes are pending, 0 when none.")
@force_option
@click.option("--days", type=click.IntRange(0, 365), default=7, show_default=True, help=DAYS_HELP)
@click.option("--replay", is_flag=True, help="Make scores anew from the samples, also where some are stored.")
@click.option("--all", "everything", is_flag=True, help="Preview also what is kept.")
def plan(
    path: Path | None,
    config_paths: tuple[Path, ...],
    *,
    detailed_exitcode: bool,
    days: int,
    replay: bool,
    everything: bool,
    force: bool,
) -> None:
    """Show what apply would change, and how often it would have fired lately; writes nothing.

    PATH is a JSON file or a folder of them (default: monitors.path of the configuration).
    """
    from plexus_detect.monitors import render

    config = configured(config_paths)
    wanted = asyncio.run(_plan(config, path, force=force))
    preview = asyncio.run(_preview(config, wanted, days, replay=replay, everything=everything))
    click.echo("\n".join(map(visible, [*render(wanted), *preview.lines()])))
    if wanted.problems:
        sys.exit(1)
    if detailed_exitcode and wanted.work:
        sys.exit(EXIT_CHANGES_PENDING)


async def _plan(config: Config, path: Path | None, *, force: bool) -> Plan:
    from plexus_detect.provision.files import load_specs
    from plexus_detect.provision.reading import make_plan

    specs = load_specs(path or config.monitors.path)
    ours = ledger_of(config).ownership(mark=config.monitors.mark, overwrite=overwrites(config, force=force))
    async with client_of(config) as client:
        return await make_plan(client, specs, own_source(config), ownership=ours)


async def _preview(config: Config, wanted: Plan, days: int, *, replay: bool, everything: bool) -> Preview:
    from plexus_detect.provision.preview import forecasts

    async with client_of(config) as client:
        return await forecasts(config, client, wanted, days, replay=replay, everything=everything)


@monitors.command()
@path_argument
@config_option
@click.option("--yes", is_flag=True, help="Do not ask, also on a terminal.")
@force_option
def apply(path: Path | None, config_paths: tuple[Path, ...], *, yes: bool, force: bool) -> None:
    """Make the platform's monitors as the JSON files say; silent when nothing is to be done.

    PATH is a JSON file or a folder of them (default: monitors.path of the configuration).
    """
    from plexus_detect.monitors import render

    config = configured(config_paths)
    if sys.stdin.isatty() and not yes:
        wanted = asyncio.run(_plan(config, path, force=force))
        if wanted.work:
            click.echo("\n".join(map(visible, render(wanted))))
            click.confirm("Apply these changes?", abort=True)
    sys.exit(0 if asyncio.run(_apply(config, path, force=force)) else 1)


async def _apply(config: Config, path: Path | None, *, force: bool) -> bool:
    from plexus_detect.provision.applying import apply_plan
    from plexus_detect.provision.files import load_specs
    from plexus_detect.provision.reading import make_plan

    specs = load_specs(path or config.monitors.path)
    ledger = ledger_of(config)
    ours = ledger.ownership(mark=config.monitors.mark, overwrite=overwrites(config, force=force))
    async with client_of(config) as client:
        wanted = await make_plan(client, specs, own_source(config), ownership=ours)
        if wanted.empty:
            ledger.adopt(wanted)
            return True
        result = await apply_plan(client, wanted, lambda line: click.echo(visible(line)), ledger=ledger)
    return result.ok


for command in (review, lint):
    monitors.add_command(command)
