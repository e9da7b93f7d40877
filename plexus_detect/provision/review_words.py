"""A review as lines for a person, and as JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from plexus_detect.monitors.documents import shown
from plexus_detect.monitors.verdicts import Counts
from plexus_detect.provision.findings import Finding, renamed

SOURCES_SHOWN = 3
HOW_COUNTED = (
    "An alert counts where its farthest value lies beyond the line: its peak, or while it is open the value "
    "that opened it."
)


def summary(found: Sequence[Finding], days: int, posted: Collection[str]) -> list[str]:
    """The review as lines: each document, what to change, the alerts now and then, what to know before."""
    lines: list[str] = []
    for finding in found:
        lines += _about(finding, days, posted)
    proposed = sum(finding.proposal.field != "" for finding in found)
    if proposed:
        lines.append(HOW_COUNTED)
    return [*lines, f"review: {proposed} to change, {len(found) - proposed} to leave as they are"]


def _about(finding: Finding, days: int, posted: Collection[str]) -> list[str]:
    head = f"{finding.origin}: {', '.join(finding.metrics)} of {_number(len(finding.sources), 'source')}"
    proposal = finding.proposal
    if not proposal.field:
        lines = [f"= {head}: nothing to propose: {proposal.why}", *_counts(proposal.before, None, days)]
    else:
        lines = [f"~ {head}", f"    {change(finding)}: {proposal.why}"]
        lines += _counts(proposal.before, proposal.after, days)
    if finding.replayed is not None:
        lines.append("    replayed over stored values: {} -> {} firings".format(*finding.replayed))
    return lines + [f"    note: {note}" for note in notes(finding, posted)]


def change(finding: Finding) -> str:
    """The proposed change in words; empty where there is none."""
    proposal = finding.proposal
    if proposal.field == "name":
        return ", ".join(f"watch {renamed(metric)} in place of {metric}" for metric in finding.metrics)
    if proposal.field == "consecutive":
        section = "fleet" if ".fleet_" in finding.metrics[0] else "detect"
        return f"{section}.consecutive {shown(proposal.old)} -> {shown(proposal.new)} in the configuration"
    return proposal.field and f"{proposal.field} {shown(proposal.old)} -> {shown(proposal.new)}"


def _counts(before: Counts, after: Counts | None, days: int) -> list[str]:
    if before == Counts(0, 0, 0):
        return []
    pairs = [(name, getattr(before, name), getattr(after or before, name)) for name in Counts.__annotations__]
    said = ", ".join(f"{name} {now}" + (f" -> {then}" if after else "") for name, now, then in pairs)
    return [f"    alerts in {_number(days, 'day')}: {said}"]


def notes(finding: Finding, posted: Collection[str]) -> list[str]:
    """What has to be known before the proposal is taken."""
    said = []
    proposal = finding.proposal
    if proposal.field == "name":
        if finding.claimed_by:
            who = ", ".join(finding.claimed_by)
            said.append(f"{who} watches that name already: no edit is made; remove this document instead")
        suffix = renamed(finding.metrics[0]).rpartition(".")[2]
        if suffix not in posted:
            said.append(f"the worker does not post it yet: add {suffix} to post.series")
        if finding.bounds.low is None:
            said.append("it is a magnitude: departures downwards will alert too")
    elif proposal.field == "consecutive":
        said.append("every monitor of these scores is calmed by it, and alerts come so many points later")
    if finding.other_line:
        said.append(f"{_number(finding.other_line, 'alert')} opened under another line than this document's")
    return said + _noisy(finding)


def _noisy(finding: Finding) -> list[str]:
    if not finding.noise or len(finding.sources) == 1:
        return []
    total = sum(count for _, count in finding.noise)
    first, most = finding.noise[0]
    named = ", ".join(f"{source} {count}" for source, count in finding.noise[:SOURCES_SHOWN])
    more = len(finding.noise) - SOURCES_SHOWN
    said = f"noise by source: {named}" + (f" and {more} more" if more > 0 else "")
    if 2 * most > total:
        said += f"; {first} makes more than half of it: perhaps it deserves a document of its own"
    return [said]


def as_json(found: Sequence[Finding], days: int, posted: Collection[str], patch: str) -> dict[str, Any]:
    """The review as one object."""
    return {"days": days, "documents": [_document(f, posted) for f in found], "patch": patch}


def _document(finding: Finding, posted: Collection[str]) -> dict[str, Any]:
    proposal = finding.proposal
    return {
        "document": finding.origin,
        "metrics": finding.metrics,
        "sources": finding.sources,
        "change": change(finding),
        "field": proposal.field or None,
        "old": proposal.old,
        "new": proposal.new,
        "why": proposal.why,
        "before": vars(proposal.before),
        "after": vars(proposal.after),
        "replayed": finding.replayed,
        "noise": dict(finding.noise),
        "notes": notes(finding, posted),
    }


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
