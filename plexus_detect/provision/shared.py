"""What the ``monitors`` commands share: arguments, and what the configuration says of ownership."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import client_of

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.client import Client
    from plexus_detect.config import Config
    from plexus_detect.monitors.savedplan import SavedPlan
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


def monitors_client(config: Config) -> Client:
    """A client at the rate of the monitors commands. Raises ConfigError when there is no key."""
    return client_of(config, requests_per_s=config.monitors.requests_per_s)


def ledger_of(config: Config, command: str = "apply") -> FileLedger:
    """The manifest of this deployment, with backups named for ``command``. Raises ConfigError."""
    from plexus_detect.provision.ledger import FileLedger
    from plexus_detect.provision.manifestfile import ManifestFile

    file = ManifestFile(config.manifest(), config.monitors.owner, config.plexus.endpoint)
    return FileLedger(file, backups_of(config), command)


def backups_of(config: Config) -> Backups:
    """The backups of this deployment."""
    from plexus_detect.provision.backups import Backups

    return Backups(config.manifest(), config.monitors.owner, config.plexus.endpoint)


def saved_plan_of(config: Config, path: Path | None) -> SavedPlan | None:
    """The saved plan at a path, None where something else is. Raises ConfigError for one that will not do."""
    from plexus_detect.provision.planfile import read_plan

    return None if path is None else read_plan(path, config.monitors.owner, config.plexus.endpoint)
