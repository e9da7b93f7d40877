"""``plexus-detect monitors plan``: what apply would change, and what it would page."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plexus_detect.options import config_option, configured
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
from plexus_detect.provision.showing import (
    Form,
    Outlook,
    full_option,
    notes_of,
    outlook_of,
    output_option,
    show,
)
from plexus_detect.redaction import visible

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.monitors import Plan
    from plexus_detect.monitors.forecast import Preview

EXIT_CHANGES_PENDING = 2


@dataclass(frozen=True)
class Asked:
    """What the options say."""

    detailed_exitcode: bool
    out: Path | None
    force: bool
    prune: bool
    days: int
    replay: bool
    everything: bool
    output: Form
    full: bool


@click.command()
@path_argument
@config_option
@var_option
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when changes are pending, 0 when none.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the plan, for apply FILE."
)
@force_option
@click.option("--prune", is_flag=True, help="Plan also to delete ours that no document wants any more.")
@click.option(
    "--days",
    type=click.IntRange(0, 365),
    default=7,
    show_default=True,
    help="Preview how often thresholds would have fired in so many days; 0: no preview.",
)
@click.option("--replay", is_flag=True, help="Make scores anew from the samples, also where some are stored.")
@click.option("--all", "everything", is_flag=True, help="Preview also what is kept.")
@output_option
@full_option
def plan(path: Path | None, config_paths: tuple[Path, ...], **options: Any) -> None:  # noqa: ANN401
    """Show what apply would change, and how often it would have fired lately; changes nothing.

    PATH is a file in JSON, YAML or TOML or a folder of them (default: monitors.path of the configuration), or
    a plan that -o saved: it is shown as it is, and nothing is asked of the platform.
    """
    config, asked = configured(config_paths), Asked(**options)
    saved = saved_plan_of(config, path)
    if saved is None:
        wanted, preview = asyncio.run(_planned(config, path, asked))
        outlook = outlook_of(wanted, preview, full=asked.full)
        wanted = replace(wanted, notes=(*wanted.notes, *notes_of(wanted, preview)))
    else:
        given = {"--force": asked.force, "--out": asked.out is not None, "--prune": asked.prune}
        refuse_with_saved(path, given)
        said = f"saved {saved.made} by version {saved.program} for {visible(saved.endpoint)}"
        click.echo(said, err=asked.output != "text")
        wanted, outlook = saved.plan(), Outlook()
    show(wanted, asked.output, full=asked.full, outlook=outlook)
    if saved is None:
        from plexus_detect.monitors.guard import require_safe

        require_safe(wanted, limits_of(config))
    if asked.out is not None:
        from plexus_detect.provision.planfile import write_plan

        write_plan(asked.out, wanted, config.plexus.endpoint)
    if wanted.problems:
        sys.exit(1)
    if asked.detailed_exitcode and wanted.work:
        sys.exit(EXIT_CHANGES_PENDING)


async def _planned(config: Config, path: Path | None, asked: Asked) -> tuple[Plan, Preview]:
    """The plan, with what lint says of the documents as notes, and what it would have fired."""
    from plexus_detect.provision.lint import lint_notes
    from plexus_detect.provision.preview import forecasts

    specs, ledger = specs_of(config, path), ledger_of(config)
    async with monitors_client(config) as client:
        wanted = await plan_of(client, config, specs, ledger, force=asked.force, prune=asked.prune)
        wanted = replace(wanted, notes=(*wanted.notes, *lint_notes(config, specs, wanted)))
        how = {"replay": asked.replay, "everything": asked.everything}
        return wanted, await forecasts(config, client, wanted, asked.days, **how)
