"""What the verdicts on its alerts say of each document, and the edit of its file that follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from plexus_detect.monitors import Key, Wanted, scored_metric
from plexus_detect.monitors.editing import Place, edited, read, unified, value_at
from plexus_detect.monitors.verdicts import Alert, Bounds, Debounce, Proposal, by_source, propose
from plexus_detect.policy import AT_ONCE

if TYPE_CHECKING:
    from plexus_detect.config import Config

CRITICAL = "_critical"
RAW = "_raw"


@dataclass(frozen=True)
class Finding:
    """One line that a document draws: its monitors, their alerts, and the proposal.

    ``noise`` holds the counts of the sources with noise, the most first; ``other_line`` the alerts that
    opened under another line than the document's; ``claimed_by`` the documents that watch the proposed
    name already. ``replayed`` holds firings counted over stored values, now and with the proposal; None
    where nobody counted.
    """

    origin: str
    keys: tuple[Key, ...]
    bounds: Bounds
    proposal: Proposal
    noise: tuple[tuple[str, int], ...] = ()
    other_line: int = 0
    claimed_by: tuple[str, ...] = ()
    replayed: tuple[int, int] | None = None

    @property
    def metrics(self) -> list[str]:
        """The metrics that it watches."""
        return sorted({key[1] for key in self.keys})

    @property
    def sources(self) -> list[str]:
        """The sources that it reaches now."""
        return sorted({key[0] for key in self.keys})


def findings(
    wanted: Sequence[Wanted], alerts: Sequence[Alert], config: Config, verdicts_min: int
) -> list[Finding]:
    """One finding for each threshold of each document, over all the sources that it reaches."""
    groups: defaultdict[tuple[str, bool], list[Wanted]] = defaultdict(list)
    for monitor in wanted:
        if monitor.key[2] == "threshold":
            groups[monitor.origin, monitor.key[1].endswith(CRITICAL)].append(monitor)
    by_pair: defaultdict[tuple[str, str], list[Alert]] = defaultdict(list)
    for alert in alerts:
        by_pair[alert.source, alert.metric].append(alert)
    found = []
    for (origin, _), monitors in groups.items():
        mine = [alert for monitor in monitors for alert in by_pair[monitor.key[:2]]]
        found.append(_finding(origin, monitors, mine, config, verdicts_min))
    claimed = {monitor.key[:2]: monitor.origin for monitor in wanted}
    return [_with_claims(finding, claimed) for finding in found]


def _finding(
    origin: str, monitors: Sequence[Wanted], alerts: Sequence[Alert], config: Config, verdicts_min: int
) -> Finding:
    settings = monitors[0].settings
    bounds = Bounds(settings["min"], settings["max"])
    keys = tuple(monitor.key for monitor in monitors)
    proposal = propose(alerts, bounds, verdicts_min=verdicts_min, debounce=debounce_of(config, keys))
    noise = tuple((source, counts.noise) for source, counts in by_source(alerts) if counts.noise)
    lines = {"max": bounds.high, "min": bounds.low}
    other = sum(alert.line != lines[alert.side] for alert in alerts)
    return Finding(origin, keys, bounds, proposal, noise, other)


def debounce_of(config: Config, keys: Sequence[Key]) -> Debounce | None:
    """How the worker calms the score that all these monitors watch; None where not all alike, or no score."""
    found = {_debounce(config, source, metric) for source, metric, _ in keys}
    return found.pop() if len(found) == 1 else None


def _debounce(config: Config, source: str, metric: str) -> Debounce | None:
    base = scored_metric(metric) or ""
    score, raw = metric.removeprefix(base).removesuffix(RAW), metric.endswith(RAW)
    if score == ".fleet_zscore":
        return Debounce(raw, config.fleet.threshold, config.fleet.consecutive)
    rule = config.rule_for(source, base) if score == ".zscore" else None
    if rule is None:
        return None
    detect = config.detect_for(rule)
    times = AT_ONCE.get(detect.detector, 0.0) if detect.at_once == "auto" else detect.at_once
    at_once = {"at_once": times * detect.threshold} if times else {}
    return Debounce(raw, detect.threshold, detect.consecutive, **at_once)


def _with_claims(finding: Finding, claimed: Mapping[tuple[str, str], str]) -> Finding:
    """The finding with the documents that watch the proposed name: no two may claim the same."""
    if finding.proposal.field != "name":
        return finding
    pairs = [(source, renamed(metric)) for source, metric, _ in finding.keys]
    return replace(finding, claimed_by=tuple(sorted({claimed[pair] for pair in pairs if pair in claimed})))


def renamed(metric: str) -> str:
    """The debounced name of a raw score."""
    return metric.removesuffix(RAW)


# --- the files --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patch:
    """The edits of all files as one unified diff, and the findings whose edit could not be placed."""

    text: str
    unplaced: tuple[Finding, ...]


def patch(found: Sequence[Finding], names: Mapping[Path, str]) -> Patch:
    """The proposals as edits of the documents' files; ``names`` are the paths that the diff shows."""
    before: dict[Path, str] = {}
    after: dict[Path, str] = {}
    unplaced = []
    for finding in found:
        if finding.proposal.field not in ("max", "min", "name") or finding.claimed_by:
            continue
        file, pointer = place_of(finding.origin)
        if file in names and file not in before:
            before[file] = after[file] = file.read_bytes().decode()
        changed = _edited(after.get(file, ""), file.suffix, pointer, finding)
        if changed is None:
            unplaced.append(finding)
        else:
            after[file] = changed
    diffs = [unified(names[file], before[file], after[file]) for file in before]
    return Patch("".join(diffs), tuple(unplaced))


def place_of(origin: str) -> tuple[Path, Place]:
    """The file of a document and where in it the document stands."""
    name, found, pointer = origin.rpartition("#/")
    if not found:
        return Path(origin), ()
    return Path(name), tuple(int(step) if step.isdecimal() else step for step in pointer.split("/"))


def _edited(text: str, suffix: str, pointer: Place, finding: Finding) -> str | None:
    document = read(text, suffix)
    if isinstance(document, dict) and pointer and isinstance(pointer[0], int):
        pointer = ("monitors", *pointer)
    entry = value_at(document, pointer)
    if not isinstance(entry, dict):
        return None
    proposal = finding.proposal
    if proposal.field == "name":
        field = "watch" if "for" in entry else "metric"
        name = entry.get(field)
        return edited(text, suffix, (*pointer, field), renamed(name)) if isinstance(name, str) else None
    if proposal.new is None:
        return None
    return edited(text, suffix, (*pointer, *_line_of(entry, finding)), proposal.new)


def _line_of(entry: Mapping[str, object], finding: Finding) -> Place:
    """Where in a document its line stands."""
    side = finding.proposal.field
    if "for" not in entry:
        return ("threshold", side)
    ladder = entry.get("ladder")
    if not isinstance(ladder, dict):
        return (side,)
    # The milder rung is the lower line.
    rungs = sorted(
        ladder, key=lambda rung: float(ladder[rung]) if isinstance(ladder[rung], int | float) else 0
    )
    return ("ladder", rungs[-1 if finding.keys[0][1].endswith(CRITICAL) else 0])
