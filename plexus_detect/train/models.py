"""``plexus-detect models``: which models there are, and which of their versions is in use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import config_option, configured, tell

if TYPE_CHECKING:
    from plexus_detect.training.versions import ModelFolder


@click.group()
def models() -> None:
    """List the versions of learned models, and go back to an older one."""


@models.command("list")
@config_option
def list_models(config_paths: tuple[Path, ...]) -> None:
    """List every version of every model; * marks the one in use."""
    from plexus_detect.train.command import time_fact

    folder = _folder(config_paths)
    for name in folder.names():
        used = folder.current(name)
        for version in folder.versions(name):
            card = folder.card(name, version)
            span = " to ".join(time_fact(card.get(key)) for key in ("from_ms", "to_ms"))
            mark = "*" if version == used else " "
            tell(f"{mark} {name} {version}  {card.get('backend')}, {card.get('rows')} rows, {span}")


@models.command()
@click.argument("name")
@click.argument("version", type=int, required=False)
@config_option
def show(config_paths: tuple[Path, ...], name: str, version: int | None) -> None:
    """Print the card of a model. VERSION: by default the one in use."""
    from plexus_detect.errors import ModelError
    from plexus_detect.train.command import card_text

    folder = _folder(config_paths)
    number = folder.current(name) if version is None else version
    if number is None:
        raise ModelError(f"there is no model {name!r} in {folder.path}")
    tell(card_text(folder.card(name, number)))


@models.command("roll-back")
@click.argument("name")
@click.option("--to", "version", type=int, help="The version to use. Default: the one before that in use.")
@config_option
def roll_back(config_paths: tuple[Path, ...], name: str, version: int | None) -> None:
    """Use an older version of a model, or any other; a running worker takes it within seconds."""
    folder = _folder(config_paths)
    if version is None:
        version = folder.roll_back(name)
    else:
        folder.use(name, version)
    tell(f"{name}: version {version} is in use")


def _folder(config_paths: tuple[Path, ...]) -> ModelFolder:
    from plexus_detect.training.versions import ModelFolder

    return ModelFolder(configured(config_paths).models)
