"""What the ``monitors`` commands share: arguments, and what the configuration says of ownership."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.provision.backups import Backups
    from plexus_detect.provision.ledger import FileLedger

path_argument = click.argument("path", required=False, type=click.Path(path_type=Path))
force_option = click.option(
    "--force", is_flag=True, help="Overwrite also what a person edited or somebody else made."
)


def own_source(config: Config) -> str:
    """The source of the worker's sign of life, empty when there is none."""
    return config.heartbeat.source if config.heartbeat.enabled else ""


def overwrites(config: Config, *, force: bool) -> bool:
    """Whether what a person edited, or somebody else made, is overwritten."""
    return force or config.monitors.drift == "overwrite"


def ledger_of(config: Config) -> FileLedger:
    """The manifest of this deployment. Raises ConfigError."""
    from plexus_detect.provision.ledger import FileLedger
    from plexus_detect.provision.manifestfile import ManifestFile

    return FileLedger(ManifestFile(config.manifest(), config.monitors.owner, config.plexus.endpoint))


def backups_of(config: Config) -> Backups:
    """The backups of this deployment."""
    from plexus_detect.provision.backups import Backups

    return Backups(config.manifest(), config.monitors.owner, config.plexus.endpoint)
