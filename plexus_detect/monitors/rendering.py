"""A plan as lines for a person."""

from __future__ import annotations

from collections import Counter

from plexus_detect.monitors.documents import LEAVE, shown
from plexus_detect.monitors.planning import Plan, Wanted


def render(plan: Plan) -> list[str]:
    """The plan as lines: ``+`` create, ``~`` change, ``!`` a person must act, ``=`` kept, then a summary."""
    lines = [f"+ create source {plan.source}"] if plan.source else []
    for change in plan.changes:
        if change.action == "create":
            lines.append(f"+ create {change.label}: {_settings_shown(change.wanted)}")
        else:
            lines.append(f"~ change {change.label}")
            lines += [f"    {name}: {shown(old)} -> {shown(new)}" for name, old, new in change.fields]
    lines += [f"! {problem.kind}: {problem.sentence}" for problem in plan.problems]
    lines += [f"  note: {note}" for note in plan.notes]
    if plan.keep:
        lines.append(f"= keep {plan.keep} as they are")
    if plan.foreign:
        lines.append(f"  not ours: {plan.foreign}, left alone")
    counts = Counter(change.action for change in plan.changes)
    summary = f"plan: {counts['create']} to create, {counts['change']} to change, {plan.keep} to keep"
    return [*lines, summary + (f", {len(plan.problems)} for a person" if plan.problems else "")]


def _settings_shown(wanted: Wanted) -> str:
    usual = {"enabled": True, "delivery": "digest"}
    settings = {k: v for k, v in wanted.settings.items() if v is not None and usual.get(k) != v}
    if wanted.targets != LEAVE:
        settings["targets"] = wanted.targets
    return ", ".join(f"{name} {shown(value)}" for name, value in settings.items())
