"""From the platform to a document: monitors that are nobody's, as the bodies that would make them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.documents import DEFAULTS, is_glob
from plexus_detect.monitors.manifest import Manifest
from plexus_detect.monitors.model import Existing, Plan, label
from plexus_detect.monitors.ownership import Key, Ownership
from plexus_detect.monitors.parsing import parse
from plexus_detect.monitors.planning import SAME, distance, is_ours

_ORDER = {part: i for i, part in enumerate(DEFAULTS)}


@dataclass(frozen=True)
class Adoption:
    """What an import is about.

    ``bodies`` are those of the API, one for each source and metric; ``taken`` the monitors in them; ``left``
    a sentence for each monitor that is nobody's and cannot be taken; ``others`` counts those that another
    owner marked.
    """

    bodies: tuple[Mapping[str, Any], ...]
    taken: tuple[Existing, ...]
    left: tuple[str, ...]
    others: int

    def to_json(self) -> str:
        """The text of the document."""
        return json.dumps(self.bodies, indent=2, ensure_ascii=False) + "\n"


def adoption(
    existing: Sequence[Existing],
    wanted: Mapping[Key, str],
    ours: Ownership,
    *,
    source: str = "*",
    metric: str = "*",
) -> Adoption:
    """What can be taken over of the monitors that the globs reach.

    ``wanted`` says which document is about a monitor already.
    """
    reached = [m for m in existing if fnmatchcase(m.key[0], source) and fnmatchcase(m.key[1], metric)]
    nobodys = [m for m in reached if not is_ours(m, ours) and m.mark is None and m.key not in wanted]
    claimed = {key[:2]: origin for key, origin in wanted.items()}
    groups: defaultdict[tuple[str, str], dict[str, Existing]] = defaultdict(dict)
    left: list[str] = []
    owned = {m.key[:2] for m in existing if is_ours(m, ours)}
    for monitor in sorted(nobodys, key=lambda m: (m.key[:2], _ORDER[m.key[2]])):
        why = _hindrance(monitor, groups[monitor.key[:2]], claimed, owned)
        if why:
            left.append(f"{label(monitor.key)}: {why}")
        else:
            groups[monitor.key[:2]][monitor.key[2]] = monitor
    bodies: list[dict[str, Any]] = []
    taken: list[Existing] = []
    for parts in groups.values():
        if parts:
            body = _body(list(parts.values()), left)
            bodies.append(body)
            taken += parts.values()
    others = sum(m.mark is not None and m.mark.owner != ours.owner for m in reached)
    return Adoption(tuple(bodies), tuple(taken), tuple(left), others)


def _hindrance(
    monitor: Existing,
    parts: Collection[str],
    claimed: Mapping[tuple[str, str], str],
    owned: Collection[tuple[str, str]],
) -> str:
    """Why a monitor cannot be taken; empty when it can."""
    pair = monitor.key[:2]
    if pair in claimed:
        return f"{claimed[pair]} is about the same metric; write it there: {shown_body([monitor])}"
    if pair in owned:
        return f"another one there is ours and in no document; write both into one: {shown_body([monitor])}"
    if monitor.key[2] in parts:
        return "a second one on its source, which notifies twice; delete one of them there by hand"
    if is_glob(monitor.key[0]):
        return "the name of its source reads as a glob in a document; make a document with the source's id"
    if monitor.settings.get("enabled") is False and monitor.key[2] == "offline":
        return "it is switched off, which no document can say; switch it on there, or delete it"
    try:
        parse(json.dumps(_body([monitor], [])), "document")
    except ConfigError as error:
        return f"no document can hold it: {error}"
    return ""


def shown_body(monitors: Sequence[Existing]) -> str:
    """The body that would make monitors of one source and metric, as a line of JSON."""
    return json.dumps(_body(monitors, []), ensure_ascii=False)


def _body(monitors: Sequence[Existing], left: list[str]) -> dict[str, Any]:
    source, metric, _ = monitors[0].key
    body: dict[str, Any] = {"source_id": source} | ({"metric": metric} if metric else {})
    for monitor in monitors:
        part = monitor.key[2]
        fields = {name: _number(v) for name, v in monitor.settings.items() if v is not None}
        body[part] = {k: v for k, v in fields.items() if (part, k) != ("offline", "enabled")}
    targets = {monitor.targets for monitor in monitors}
    if len(targets) > 1:
        left.append(
            f"targets of {source} {metric}: threshold and event have different ones, which one document "
            "cannot say; they stay as they are and are not watched"
        )
    elif monitors[0].targets is not None:
        body["notification_targets"] = list(monitors[0].targets)
    return body


def _number(value: object) -> object:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return int(value) if whole and isinstance(value, float) else value


def origins(plan: Plan) -> dict[Key, str]:
    """Which document is about which monitor."""
    return {wanted.key: wanted.origin for wanted in plan.expansion.wanted}


def adopted(manifest: Manifest, plan: Plan, at: str) -> Manifest:
    """The manifest with what the plan's documents want and the platform has; every other entry as it was."""
    wanted = {monitor.key for monitor in plan.expansion.wanted}
    new = [entry for entry in manifest.settled(plan, plan.seen, at).owned if entry.key in wanted]
    return replace(manifest, owned=(*(e for e in manifest.owned if e.key not in wanted), *new))


def differing(plan: Plan, *, source: str = "*", metric: str = "*") -> list[str]:
    """For each monitor that a document wants otherwise and that is a person's now: how it is there."""
    by_key: defaultdict[Key, list[Existing]] = defaultdict(list)
    for monitor in plan.seen:
        by_key[monitor.key].append(monitor)
    changed = {change.key for change in plan.changes}
    said = []
    for wanted in plan.expansion.wanted:
        found = by_key[wanted.key]
        reached = fnmatchcase(wanted.key[0], source) and fnmatchcase(wanted.key[1], metric)
        if not reached or wanted.key in changed or not found:
            continue
        nearest = min(found, key=lambda m: distance(wanted, m))
        if distance(wanted, nearest) != SAME:
            said.append(
                f"{label(wanted.key)} is not as {wanted.origin} says; to keep it as it is there, write: "
                f"{shown_body([nearest])}"
            )
    return said
