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
    from plexus_detect.monitors.forecast import Preview

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


def outlook_of(plan: Plan, preview: Preview, *, full: bool = False) -> Outlook:
    """What a preview says of a plan's changes, in each form in which a plan is shown."""
    from plexus_detect.monitors import Cost
    from plexus_detect.monitors.blocks import blocks
    from plexus_detect.monitors.forecast import forecast_json, forecast_sentence

    known = preview.forecasts
    lines: dict[Key, Sequence[str]] = {}
    for block in blocks(plan.changes, full=full):
        mine = {key: known[key] for key in block.keys if key in known}
        lines[block.keys[0]] = [forecast_sentence(mine, preview.days)] if mine else []

    def count(firings: Sequence[object] | None) -> int | None:
        return None if firings is None else len(firings)

    objects = forecast_json(known, preview.documents)
    return Outlook(
        preview.days,
        lines,
        {(told["source"], told["metric"], told["part"]): told for told in objects},
        {key: Cost(count(forecast.now), count(forecast.then)) for key, forecast in known.items()},
    )


def notes_of(plan: Plan, preview: Preview) -> tuple[str, ...]:
    """What a preview says that belongs to no change: of what is kept, and why there is none."""
    from plexus_detect.monitors.forecast import forecast_lines

    changed = {change.key for change in plan.changes}
    kept = {key: forecast for key, forecast in preview.forecasts.items() if key not in changed}
    missing = [f"no preview of firings: {preview.missing}"] if preview.missing else []
    return (*forecast_lines(kept, preview.documents, preview.days), *missing)


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
