"""``plexus-detect monitors``: the platform's monitors as files say."""

from __future__ import annotations

import click

from plexus_detect.provision.apply import apply
from plexus_detect.provision.importing import import_
from plexus_detect.provision.lint import lint
from plexus_detect.provision.plan import plan
from plexus_detect.provision.prune import prune
from plexus_detect.provision.review import review
from plexus_detect.provision.undo import undo


@click.group()
def monitors() -> None:
    """Plan and apply the platform's monitors from files in JSON, YAML or TOML."""


for command in (plan, apply, prune, undo, import_, lint, review):
    monitors.add_command(command)
