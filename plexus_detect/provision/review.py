"""``plexus-detect monitors review``: what the verdicts on alerts say of the documents."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError
from plexus_detect.options import client_of, config_option, configured, tell
from plexus_detect.provision.shared import own_source, specs_of, var_option

# What takes long to import is imported when the command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.client import Client
    from plexus_detect.config import Config
    from plexus_detect.provision.findings import Finding, Patch

DAY_MS = 86_400_000


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@config_option
@var_option
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="The period.")
@click.option(
    "--min-verdicts",
    "verdicts_min",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Verdicts on a document's alerts below which nothing is proposed.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "-o", "patch_file", type=click.Path(path_type=Path), metavar="FILE.patch", help="Write the patch here."
)
def review(
    path: Path | None,
    config_paths: tuple[Path, ...],
    days: int,
    verdicts_min: int,
    output: str,
    patch_file: Path | None,
) -> None:
    """Propose changes of the documents from the verdicts on their alerts; changes nothing.

    Reads which alerts people called helpful or noise, and shows for each document the edit after which the
    least noise fires and every helpful alert still does, as a patch.
    """
    from plexus_detect.provision.review_words import as_json

    config = configured(config_paths)
    found = asyncio.run(_found(config, path, days, verdicts_min))
    edits = _patch(found)
    if output == "json":
        text = json.dumps(as_json(found, days, config.post.series, edits.text), ensure_ascii=False, indent=2)
        click.echo(text)
    else:
        _tell(found, edits, days, config, shown=patch_file is None)
    if patch_file is not None:
        _write(patch_file, edits.text)


async def _found(config: Config, path: Path | None, days: int, verdicts_min: int) -> list[Finding]:
    from plexus_detect import clock
    from plexus_detect.provision.alerts import read_alerts
    from plexus_detect.provision.findings import findings
    from plexus_detect.provision.reading import make_plan

    specs = specs_of(config, path)
    async with client_of(config) as client:
        plan = await make_plan(client, specs, own_source(config))
        alerts = await read_alerts(client, clock.now_ms() - days * DAY_MS)
        found = await _replayed(
            config, client, findings(plan.expansion.wanted, alerts, config, verdicts_min), days
        )
    for said in (*(problem.sentence for problem in plan.expansion.problems), *plan.expansion.notes):
        tell_aside(said)
    return found


async def _replayed(config: Config, client: Client, found: list[Finding], days: int) -> list[Finding]:
    """The findings, those with a moved line with the firings of the platform's rules over the values there
    are, now and then: under a stricter line one long alert can become two, which no alert tells."""
    from plexus_detect.provision.preview import Question, answered

    moved, asked = [], []
    for finding in found:
        side, line = finding.proposal.field, finding.proposal.new
        if side in ("max", "min") and line is not None:
            now = {"min": finding.bounds.low, "max": finding.bounds.high}
            asked += [Question(key, finding.origin, now, now | {side: line}) for key in finding.keys]
            moved.append(finding)
    preview = await answered(config, client, asked, days)
    if preview.missing:
        tell_aside(f"no replay over stored values: {preview.missing}")
        return found
    counted = {}
    for finding in moved:
        seen = [preview.forecasts[key] for key in finding.keys if preview.forecasts[key].points]
        if seen:
            counted[id(finding)] = (
                sum(len(one.now or ()) for one in seen),
                sum(len(one.then or ()) for one in seen),
            )
    return [replace(finding, replayed=counted.get(id(finding))) for finding in found]


def tell_aside(text: str) -> None:
    """One line on standard error, where talk goes."""
    from plexus_detect.redaction import visible

    click.echo(f"plexus-detect: {visible(text)}", err=True)


def _patch(found: list[Finding]) -> Patch:
    """The edits of the files, which the patch names as they are seen from the current folder."""
    from plexus_detect.provision.findings import patch, place_of

    files = {place_of(finding.origin)[0] for finding in found}
    here = Path.cwd()
    names = {}
    for file in files:
        whole = here / file
        inside = whole.is_relative_to(here)
        names[file] = (whole.relative_to(here) if inside else whole.relative_to(whole.anchor)).as_posix()
    return patch(found, names)


def _tell(found: list[Finding], edits: Patch, days: int, config: Config, *, shown: bool) -> None:
    from plexus_detect.provision.review_words import change, summary

    tell("\n".join(summary(found, days, config.post.series)))
    for finding in edits.unplaced:
        tell(
            f"{finding.origin}: edit this by hand, its text does not hold the value itself: {change(finding)}"
        )
    if shown and edits.text:
        # As it is, so that it can be piped; names in it are of files here, not of devices.
        click.echo(f"\n{edits.text}", nl=False)


def _write(file: Path, text: str) -> None:
    if not text:
        tell_aside(f"nothing to patch: {file} not written")
        return
    try:
        file.write_bytes(text.encode())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}; choose another place") from error
    tell_aside(f"patch written; to take it: git apply {file}")
