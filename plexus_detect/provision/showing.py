"""How the ``monitors`` commands show a plan."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Literal

import click

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.monitors import Plan

Form = Literal["text", "json", "markdown"]

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="For people, for programs, or for a comment on a pull request.",
)
full_option = click.option("--full", is_flag=True, help="List every monitor, also where many are alike.")


def show(plan: Plan, output: Form = "text", *, full: bool = False) -> None:
    """Print a plan; with colours on a terminal only, and there not when NO_COLOR is set."""
    from plexus_detect.monitors import markdown, painted, render, values

    if output == "json":
        click.echo(json.dumps(values(plan), indent=2, ensure_ascii=False))
    elif output == "markdown":
        click.echo(markdown(plan), nl=False)
    else:
        lines = render(plan, full=full)
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        click.echo("\n".join(painted(lines) if color else lines))
