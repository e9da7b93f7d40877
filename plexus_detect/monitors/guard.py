"""What a plan that deletes must hold to before its first request: limits, and no conclusions from nothing.

A wrong path, a source's typing error or an empty answer make every monitor look unwanted. So deletes are
refused where the documents want nothing, where one names a source that nobody knows, and beyond a number and
a share of all that is ours.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from plexus_detect.errors import UnsafePlanError
from plexus_detect.monitors.model import Change, Plan, Problem
from plexus_detect.monitors.planning import is_ours, plan

# A small fleet may lose this many at once, whatever the share of them.
FEW = 3


@dataclass(frozen=True)
class Limits:
    """How many monitors one run may delete, and which share of all that is ours once it is more than FEW."""

    deletes_max: int = 25
    share_max: float = 0.5


def deletes(of: Plan) -> tuple[Change, ...]:
    """The monitors that carrying out a plan deletes, without those that are replaced."""
    return tuple(change for change in of.work if change.action == "delete")


def require_safe(of: Plan, limits: Limits) -> None:
    """Raise UnsafePlanError, one sentence with the numbers, for a plan that deletes more than it should.

    A plan without a delete is safe.
    """
    doomed = len(deletes(of))
    if not doomed:
        return
    if not of.expansion.wanted:
        raise UnsafePlanError(
            f"the documents want no monitor on any source, so all {doomed} of ours would go; nothing is "
            "deleted: check monitors.path and the list of sources, or delete the last ones by hand"
        )
    unknown = [problem for problem in of.expansion.problems if problem.kind == "unknown source"]
    if unknown:
        raise UnsafePlanError(
            f"{unknown[0].sentence}; while a document's source is unknown nothing is deleted ({doomed} would)"
        )
    if doomed > limits.deletes_max:
        raise UnsafePlanError(
            f"{doomed} monitors would be deleted, more than the {limits.deletes_max} allowed at once, so "
            f"nothing is deleted; if all shall go, --max-deletes {doomed} (monitors.prune_max) says so"
        )
    total = max(doomed, sum(is_ours(monitor, of.ownership) for monitor in of.seen))
    if doomed > FEW and doomed / total > limits.share_max:
        # Rounded up, so that the share that the sentence names is enough.
        share = -(-doomed * 100 // total) / 100
        raise UnsafePlanError(
            f"{doomed} of our {total} monitors would be deleted, more than the share of {limits.share_max:g} "
            f"allowed at once, so nothing is deleted; if all shall go, --max-share {share:g} "
            "(monitors.prune_share) says so"
        )


def only_deletes(of: Plan) -> Plan:
    """The deletes of a plan and what stands in their way; everything else is apply's business."""
    others = {problem.sentence for problem in plan(of.expansion, of.seen, of.ownership).conflicts}
    conflicts = tuple(problem for problem in of.conflicts if problem.sentence not in others)
    return replace(
        of,
        expansion=replace(of.expansion, problems=()),
        changes=(),
        conflicts=conflicts,
        notes=(),
        source="",
        prune=True,
    )


def without_unlisted(of: Plan, slugs: Collection[str]) -> Plan:
    """A plan that deletes nothing on a source that the platform's list lacks, and says so.

    Raises UnsafePlanError where that list is empty: no glob reaches a device then.
    """
    if not (of.prune and of.stale):
        return of
    if not slugs:
        raise UnsafePlanError(
            f"the platform lists no source at all, so no document reaches a device; nothing is deleted "
            f"({len(of.stale)} would): see whether the platform is in order"
        )
    kept = tuple(change for change in of.stale if change.key[0] in slugs)
    left = tuple(_unlisted(change) for change in of.stale if change.key[0] not in slugs)
    return replace(of, stale=kept, conflicts=(*of.conflicts, *left))


def _unlisted(change: Change) -> Problem:
    return Problem(
        "conflict",
        f"{change.label}: {change.why}, but the platform does not list the source now, so its monitors are "
        "left; they go once it is listed again, or delete them there by hand",
    )
