"""A plan as values for programs: what ``monitors plan --output json`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from plexus_detect.monitors.documents import LEAVE
from plexus_detect.monitors.model import Change, Existing, Plan, Wanted
from plexus_detect.monitors.ownership import Key

VERSION = 1

Objects = Mapping[Key, Mapping[str, Any]]


def values(plan: Plan, forecasts: Objects | None = None) -> dict[str, Any]:
    """The plan for JSON: ``changes`` is what is carried out, ``stale`` what only prune would delete.

    Each change has the monitor ``before`` and ``after`` it, null where there is none, and the ``fields`` that
    differ. ``forecasts`` are objects that stand at their change; those of monitors that are kept come last.
    """
    told = forecasts or {}
    counts = Counter(change.action for change in plan.work)
    changed = {change.key for change in (*plan.changes, *plan.stale)}
    return {
        "version": VERSION,
        "owner": plan.ownership.owner,
        "prune": plan.prune,
        "creates_source": plan.source or None,
        "counts": {
            **{action: counts[action] for action in ("create", "change", "replace", "delete")},
            "keep": plan.keep,
            "stale": len(plan.stale),
            "not_ours": plan.foreign,
            "problems": len(plan.problems),
        },
        "changes": [_change(change, told) for change in plan.work],
        "stale": [] if plan.prune else [_change(change, told) for change in plan.stale],
        "problems": [{"kind": problem.kind, "sentence": problem.sentence} for problem in plan.problems],
        "notes": list(plan.notes),
        "forecasts_of_kept": [
            {**_key(key), "forecast": dict(told[key])} for key in told if key not in changed
        ],
    }


def _key(key: Key) -> dict[str, Any]:
    source, metric, part = key
    return {"source": source, "metric": metric or None, "part": part}


def _change(change: Change, told: Objects) -> dict[str, Any]:
    forecast = told.get(change.key)
    return {
        "action": change.action,
        **_key(change.key),
        "document": change.wanted.origin if change.wanted is not None else None,
        "why": change.why or None,
        "before": _before(change.found),
        "after": _after(change.wanted, change.found),
        "fields": [{"name": name, "old": old, "new": new} for name, old, new in change.fields],
        "forecast": None if forecast is None else dict(forecast),
    }


def _before(found: Existing | None) -> dict[str, Any] | None:
    return None if found is None else {**found.settings, "targets": found.targets}


def _after(wanted: Wanted | None, found: Existing | None) -> dict[str, Any] | None:
    """What is then set; targets that a document leaves alone stay as they are."""
    if wanted is None:
        return None
    left = found.targets if found is not None else None
    return {**wanted.settings, "targets": left if wanted.targets == LEAVE else wanted.targets}
