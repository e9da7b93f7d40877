"""What the tests of the deployment files share: the commands and settings in them, as it reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from plexus_detect.cli import cli

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def options(words: list[str]) -> dict[str, Any]:
    """The options of `plexus-detect <words>`, which is not run; raises click.UsageError where it is none."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    return command.make_context(command.name, rest).params


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]
