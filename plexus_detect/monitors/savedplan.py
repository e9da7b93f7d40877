"""A plan as a file that a later run carries out: exactly what was shown, or nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.asjson import body_of, check, document, opened
from plexus_detect.monitors.model import Change, Existing, Expansion, Plan, Problem
from plexus_detect.monitors.ownership import Ownership

KIND = "plexus_detect_plan"
VERSION = 1
_START = re.compile(r'\ufeff?\s*\{\s*"' + KIND + '"')


@dataclass(frozen=True)
class SavedPlan:
    """A plan with where and for whom it was made; ``made`` is the time (UTC), ``program`` the version.

    ``mark`` and ``overwrite`` are as of ``Ownership``. What was ours is not kept: the manifest says it.
    """

    program: str
    made: str
    endpoint: str
    owner: str
    mark: bool
    overwrite: bool
    prune: bool
    source: str
    expansion: Expansion
    changes: tuple[Change, ...]
    stale: tuple[Change, ...]
    conflicts: tuple[Problem, ...]
    notes: tuple[str, ...]
    keep: int
    foreign: int
    seen: tuple[Existing, ...]

    def plan(self) -> Plan:
        """The plan, with nothing known as ours."""
        return Plan(
            self.expansion,
            self.changes,
            self.stale,
            self.conflicts,
            self.notes,
            self.keep,
            self.foreign,
            self.seen,
            Ownership(self.owner, mark=self.mark, overwrite=self.overwrite),
            self.prune,
            self.source,
        )

    def to_json(self) -> str:
        """The text of the plan's file."""
        return document({KIND: VERSION}, self)


def saved(plan: Plan, endpoint: str, *, made: str, program: str) -> SavedPlan:
    """A plan as it is kept; ``endpoint`` is the address of the platform's app."""
    ours = plan.ownership
    return SavedPlan(
        program=program,
        made=made,
        endpoint=endpoint,
        owner=ours.owner,
        mark=ours.mark,
        overwrite=ours.overwrite,
        prune=plan.prune,
        source=plan.source,
        expansion=plan.expansion,
        changes=plan.changes,
        stale=plan.stale,
        conflicts=plan.conflicts,
        notes=plan.notes,
        keep=plan.keep,
        foreign=plan.foreign,
        seen=plan.seen,
    )


def is_saved_plan(text: str) -> bool:
    """Whether a text is, by its start, a saved plan, sound or not."""
    return _START.match(text) is not None


def saved_from(text: str, name: str, *, owner: str, endpoint: str) -> SavedPlan:
    """The plan in a file's text, for this owner and platform.

    Raises ConfigError with one sentence for one that is damaged, edited, of a newer program or of another
    owner or platform.
    """
    found = body_of(opened(text, KIND, VERSION, name), SavedPlan, name)
    for what, mine, its in (("owner", owner, found.owner), ("platform", endpoint, found.endpoint)):
        if mine != its:
            raise ConfigError(f"{name}: this plan is for {what} {its!r}, not for {mine!r}; make a new one")
    work = (*found.changes, *found.stale)
    there = [change.found for change in work if change.found is not None]
    wanted = [change.wanted for change in work if change.wanted is not None]
    check([*found.seen, *there, *found.expansion.wanted, *wanted], name)
    return replace(
        found, changes=tuple(map(_restored, found.changes)), stale=tuple(map(_restored, found.stale))
    )


def _restored(change: Change) -> Change:
    """A change whose targets are the tuples they were."""
    fields = ((n, _ids(old), _ids(new)) if n == "targets" else (n, old, new) for n, old, new in change.fields)
    return replace(change, fields=tuple(fields))


def _ids(targets: Any) -> Any:  # noqa: ANN401
    return tuple(targets) if isinstance(targets, list) else targets
