"""What commands share: the option that names configuration files, the configuration, a client."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError
from plexus_detect.redaction import visible

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.client import Client
    from plexus_detect.config import Config

log = logging.getLogger(__name__)

# Steps of a progress bar.
BAR_LENGTH = 1000

config_option = click.option(
    "-c",
    "--config",
    "config_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Configuration file (YAML, JSON or TOML); several are merged in order.",
)


def tell(text: str, *, nl: bool = True) -> None:
    """Print what holds names of devices: what a terminal would obey in them is written out."""
    click.echo(visible(text, "\n"), nl=nl)


@contextmanager
def extra(name: str, who: str = "this command") -> Iterator[None]:
    """Say which extra to install when an import fails for want of it. Raises ConfigError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{who} needs the extra '{name}' ({error.name} is not installed); "
            f"run: pip install 'plexus-detect[{name}]'"
        ) from error


def configured(config_paths: tuple[Path, ...]) -> Config:
    """The configuration, with logging set up as it says and its warnings told. Raises ConfigError."""
    from plexus_detect.config import load_config
    from plexus_detect.logs import setup_logging

    config = load_config(config_paths, os.environ)
    setup_logging(config.log.level, config.log.format)
    warn(config, config_paths)
    return config


def warn(config: Config, config_paths: Sequence[Path]) -> None:
    """Log what these settings are warned about, and which of their files give a key away."""
    from plexus_detect.config import readable_by_others
    from plexus_detect.logs import event

    for warning in (*config.warnings(), *readable_by_others(config_paths)):
        event(log, logging.WARNING, "config_warning", msg=warning)


def client_of(config: Config, *, requests_per_s: int | None = None) -> Client:
    """A client for the configured platform, at its own rate where one is given.

    Raises ConfigError when there is no key.
    """
    from plexus_detect.client import Client, Endpoints

    plexus = config.plexus
    endpoints = Endpoints(
        app=plexus.endpoint, gateway=plexus.gateway_url, api=plexus.api_url, ca_file=plexus.ca_file
    )
    return Client(
        endpoints,
        config.require_api_key(),
        timeout_s=plexus.timeout_ms / 1000,
        requests_per_s=requests_per_s or plexus.requests_per_s,
    )


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float], None]]:
    """Tell how far a command is, from 0 to 1: a bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _share: None
        return
    with click.progressbar(length=BAR_LENGTH, label=label, file=sys.stderr) as bar:
        done = 0

        def progress(share: float) -> None:
            nonlocal done
            steps = round(share * BAR_LENGTH) - done
            done += steps
            bar.update(steps)

        yield progress
