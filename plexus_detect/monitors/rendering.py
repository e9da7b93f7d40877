"""A plan as lines for a person."""

from __future__ import annotations

from collections import Counter

from plexus_detect.monitors.documents import LEAVE, shown
from plexus_detect.monitors.model import Change, Plan, Wanted

_SIGNS = {"create": "+", "change": "~", "replace": "~", "delete": "-"}


def render(plan: Plan) -> list[str]:
    """The plan as lines: ``+`` create, ``~`` change or replace, ``-`` delete, ``!`` a person must act, ``=``
    kept, then a summary."""
    lines = [f"+ create source {plan.source}"] if plan.source else []
    for change in (*plan.changes, *plan.stale):
        lines += _change_lines(change)
    lines += [f"! {problem.kind}: {problem.sentence}" for problem in plan.problems]
    lines += [f"  note: {note}" for note in plan.notes]
    if plan.stale and not plan.prune:
        lines.append(f"  note: apply deletes nothing; plexus-detect monitors prune does ({len(plan.stale)})")
    if plan.keep:
        lines.append(f"= keep {plan.keep} as they are")
    if plan.foreign:
        lines.append(f"  not ours: {plan.foreign}, left alone")
    return [*lines, summary(plan)]


def summary(plan: Plan) -> str:
    """One line with the numbers of a plan."""
    counts = Counter("change" if change.action == "replace" else change.action for change in plan.work)
    said = f"plan: {counts['create']} to create, {counts['change']} to change, {plan.keep} to keep"
    if plan.prune:
        said += f", {counts['delete']} to delete"
    return said + (f", {len(plan.problems)} for a person" if plan.problems else "")


def _change_lines(change: Change) -> list[str]:
    why = f" ({change.why})" if change.why else ""
    line = f"{_SIGNS[change.action]} {change.action} {change.label}{why}"
    if change.action == "create" and change.wanted is not None:
        return [f"{line}: {_settings_shown(change.wanted)}"]
    return [line, *(f"    {name}: {shown(old)} -> {shown(new)}" for name, old, new in change.fields)]


def _settings_shown(wanted: Wanted) -> str:
    usual = {"enabled": True, "delivery": "digest"}
    settings = {k: v for k, v in wanted.settings.items() if v is not None and usual.get(k) != v}
    if wanted.targets != LEAVE:
        settings["targets"] = wanted.targets
    return ", ".join(f"{name} {shown(value)}" for name, value in settings.items())
