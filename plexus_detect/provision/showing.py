"""How the ``monitors`` commands show a plan."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import click

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.monitors import Cost, Key, Plan

Form = Literal["text", "json", "markdown"]

output_option = click.option(
    "--output",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="For people, for programs, or for a comment on a pull request.",
)
full_option = click.option("--full", is_flag=True, help="List every monitor, also where many are alike.")


@dataclass(frozen=True)
class Outlook:
    """How often monitors would have fired in the last ``days``, as each form shows it: ``lines`` below the
    changes of the text, ``objects`` in JSON, ``costs`` in a column of the Markdown; empty where unknown."""

    days: float = 0
    lines: Mapping[Key, Sequence[str]] = field(default_factory=dict)
    objects: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)
    costs: Mapping[Key, Cost] = field(default_factory=dict)


def show(plan: Plan, output: Form = "text", *, full: bool = False, outlook: Outlook | None = None) -> None:
    """Print a plan; with colours on a terminal only, and there not when NO_COLOR is set."""
    from plexus_detect.monitors import markdown, painted, render, values

    known = outlook or Outlook()
    if output == "json":
        click.echo(json.dumps(values(plan, known.objects), indent=2, ensure_ascii=False))
    elif output == "markdown":
        click.echo(markdown(plan, known.costs, known.days), nl=False)
    else:
        lines = render(plan, known.lines, full=full)
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        click.echo("\n".join(painted(lines) if color else lines))
