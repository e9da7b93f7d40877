"""``plexus-detect monitors``: the platform's monitors as files say."""

from __future__ import annotations

import click

from plexus_detect.provision.apply import apply
from plexus_detect.provision.lint import lint
from plexus_detect.provision.plan import plan
from plexus_detect.provision.review import review


@click.group()
def monitors() -> None:
    """Plan and apply the platform's monitors from files in JSON, YAML or TOML."""


for command in (plan, apply, lint, review):
    monitors.add_command(command)
