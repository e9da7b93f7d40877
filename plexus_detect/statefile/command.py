"""``plexus-detect state``: look at the state file, copy it while the worker runs, move it away."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import config_option, configured

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.store.look import Look


@click.group()
def state() -> None:
    """Look at the worker's state file, copy it, move it away."""


@state.command()
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def show(config_paths: tuple[Path, ...], output: str) -> None:
    """Print what the state file holds, also while a worker runs; changes nothing."""
    from plexus_detect import clock
    from plexus_detect.statefile import words
    from plexus_detect.store.look import look

    config = configured(config_paths)
    found, now_ms = look(str(config.state.path)), clock.now_ms()
    fits = _fits(config, found)
    if output == "json":
        click.echo(json.dumps(words.json_of(found, fits, now_ms), indent=2, allow_nan=False))
    else:
        click.echo("\n".join(words.lines_of(found, fits, now_ms)))


def _fits(config: Config, found: Look) -> bool | None:
    """Whether a start with these settings goes on from the newest intact snapshot; None: not known."""
    from plexus_detect.errors import PlexusDetectError
    from plexus_detect.policy import policy_of

    newest = next((snapshot for snapshot in found.snapshots if snapshot.intact), None)
    if newest is None:
        return None
    try:
        return newest.fingerprint == policy_of(config).fingerprint()
    except PlexusDetectError:  # a model that the settings name cannot be used
        return None


@state.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
def backup(config_paths: tuple[Path, ...], file: Path | None) -> None:
    """Copy the state file as it is at one moment, also while a worker runs, and check the copy.

    FILE must not exist. Default: beside the state file, with the time in its name.
    """
    from plexus_detect.statefile.words import size
    from plexus_detect.store.database import size_of
    from plexus_detect.store.moving import copy, free_name

    path = str(configured(config_paths).state.path)
    target = free_name(path) if file is None else str(file)
    snapshots = copy(path, target)
    click.echo(f"{target}: {size(size_of(target))}, {len(snapshots)} snapshots, checked")
    if broken := sum(not snapshot.intact for snapshot in snapshots):
        click.echo(f"{broken} of the snapshots fail their checksum, in {path} as in the copy", err=True)


@state.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def reset(config_paths: tuple[Path, ...], *, yes: bool) -> None:
    """Move the state file away, so that the next start begins anew; deletes nothing.

    Refused while a worker runs. The next start warms up from the platform's history.
    """
    from plexus_detect.errors import ConfigError, StoreError
    from plexus_detect.statefile import words
    from plexus_detect.store.look import look
    from plexus_detect.store.moving import move_away, require_movable

    config = configured(config_paths)
    path = str(config.state.path)
    require_movable(path)
    try:
        lost = words.lost_lines(look(path))
    except StoreError as error:  # what cannot be read is the best reason for a reset
        lost = [str(error)]
    click.echo("\n".join(lost), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("state reset: there is no terminal to ask on; add --yes to move the file away")
        click.confirm(f"Move {path} away?", abort=True, err=True)
    name = move_away(path)
    click.echo("\n".join(words.after_reset(path, name, str(config.models))))
