"""The manifest: which monitors are ours, what we made of each, and how the last run ended.

It is written before the first request of a run, with what is about to be sent, and after the last one, with
what the platform then lists. A run that is killed in between loses nothing that it owns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.documents import LEAVE, filled
from plexus_detect.monitors.marks import OWNER
from plexus_detect.monitors.model import Existing, Plan, Wanted
from plexus_detect.monitors.ownership import Key, Owned
from plexus_detect.monitors.planning import SAME, distance

VERSION = 1


@dataclass(frozen=True)
class LastRun:
    """How the last apply or prune ended: the time (UTC) and numbers of monitors."""

    at: str
    planned: int
    applied: int
    drifted: int
    failed: int


@dataclass(frozen=True)
class Manifest:
    """What is ours on one platform (its app's address); empty before the first run."""

    owner: str = OWNER
    endpoint: str = ""
    owned: tuple[Owned, ...] = ()
    last_run: LastRun | None = None

    def expecting(self, plan: Plan) -> Manifest:
        """The manifest before the requests of ``plan``: what it makes is ours, whenever the run ends."""
        entries = {(entry.key, entry.id): entry for entry in self.owned}
        for change in plan.changes:
            wanted = change.wanted
            if wanted is None or change.method == "DELETE":
                continue
            new = change.action == "create" or (change.key[2] == "offline" and change.action == "replace")
            found_id = "" if new or change.found is None else change.found.id
            at = (change.key, found_id)
            if at not in entries and change.key[2] != "offline":
                at = next((place for place in entries if place[0] == change.key), at)
            prior = entries.get(at) or Owned(change.key, None, wanted.targets, found_id, wanted.origin, "")
            entries[at] = replace(prior, sent=wanted.settings)
            if change.action == "replace" and change.found is not None:
                # Whichever run finds both from now on knows that the old one is to go.
                old = change.found
                at = (change.key, old.id)
                prior = entries.get(at) or Owned(
                    *at[:1], old.settings, old.targets, old.id, wanted.origin, ""
                )
                entries[at] = replace(prior, sent=wanted.settings)
        return replace(self, owned=tuple(entries.values()))

    def ended(self, run: LastRun) -> Manifest:
        """The manifest with how the last run ended."""
        return replace(self, last_run=run)

    def settled(self, plan: Plan, seen: Sequence[Existing], at: str) -> Manifest:
        """The manifest after the requests of ``plan``, by what the platform lists now (``seen``).

        What is as wanted is ours from ``at`` on. What is not keeps its entry. An entry that no document wants
        goes with its monitor.
        """
        by_key: dict[Key, list[Existing]] = {}
        for monitor in seen:
            by_key.setdefault(monitor.key, []).append(monitor)
        prior: dict[Key, list[Owned]] = {}
        for entry in self.owned:
            prior.setdefault(entry.key, []).append(entry)
        kept: list[Owned] = []
        for wanted in plan.expansion.wanted:
            entries = prior.pop(wanted.key, [])
            kept += self._of_wanted(wanted, entries, by_key.get(wanted.key, []), at)
        deleted = {(c.key, c.found.id) for c in plan.work if c.found and c.action in ("delete", "replace")}
        listed = {(m.key, m.id) for m in (*seen, *plan.seen)}
        now = {(m.key, m.id) for m in seen}
        for entries in prior.values():
            kept += [e for e in entries if _stays((e.key, e.id), now, listed, deleted)]
        return replace(self, owned=tuple(kept))

    def _of_wanted(self, wanted: Wanted, entries: list[Owned], found: list[Existing], at: str) -> list[Owned]:
        """The entries for a wanted monitor: what is as wanted, and further offline ones of ours."""
        exact = [m for m in found if distance(wanted, m) == SAME and m.mark_owner in (None, self.owner)]
        if not exact:
            return entries
        known = {entry.id: entry for entry in entries}
        best = next((m for m in exact if m.id in known), exact[0])
        offline = wanted.key[2] == "offline"
        before = known.get(best.id) or next(iter(entries if not offline else ()), None)
        same = before is not None and before.settings == best.settings and before.sent is None
        mine = Owned(
            wanted.key,
            best.settings,
            LEAVE if wanted.targets == LEAVE else best.targets,
            best.id,
            wanted.origin,
            before.applied if before is not None and same else at,
        )
        others = {m.id for m in found} - {best.id} if offline else ()
        return [mine, *(entry for entry in entries if entry.id in others)]


def _stays(
    place: tuple[Key, str],
    now: set[tuple[Key, str]],
    listed: set[tuple[Key, str]],
    deleted: set[tuple[Key, str]],
) -> bool:
    """Whether an entry that nobody wants goes on: not when two readings lack it, or one after its delete."""
    return place in now or (place in listed and place not in deleted)


def text_of(manifests: Sequence[Manifest]) -> str:
    """The text of a manifest file: one manifest for each owner on each platform."""
    told = [
        {
            "owner": manifest.owner,
            "endpoint": manifest.endpoint,
            "last_run": asdict(manifest.last_run) if manifest.last_run else None,
            "monitors": [_entry_json(e) for e in sorted(manifest.owned, key=lambda e: (e.key, e.id))],
        }
        for manifest in sorted(manifests, key=lambda m: (m.endpoint, m.owner))
    ]
    return json.dumps({"version": VERSION, "manifests": told}, indent=1, ensure_ascii=False) + "\n"


def manifests_from(text: str, name: str) -> tuple[Manifest, ...]:
    """The manifests in a file's text; raises ConfigError with one sentence for one that cannot be used."""
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            raise ConfigError(
                f"{name}: a manifest of version {document['version']}, which this program does not know; "
                "use the program that wrote it, or move the file away"
            )
        return tuple(_manifest_from(told) for told in document["manifests"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{name}: no manifest of monitors ({type(error).__name__}: {error}); restore it or "
            "move it away: then only marked thresholds are known as ours"
        ) from None


def _manifest_from(told: Mapping[str, Any]) -> Manifest:
    run = told["last_run"]
    return Manifest(
        str(told["owner"]),
        str(told["endpoint"]),
        tuple(_entry_from(entry) for entry in told["monitors"]),
        LastRun(**run) if run else None,
    )


def _entry_json(entry: Owned) -> dict[str, Any]:
    source, metric, part = entry.key
    told: dict[str, Any] = {"source": source, "metric": metric, "part": part, "id": entry.id}
    told |= {"settings": entry.settings, "targets": entry.targets, "origin": entry.origin}
    told |= {"applied": entry.applied}
    return told if entry.sent is None else told | {"sent": entry.sent}


def _entry_from(entry: Mapping[str, Any]) -> Owned:
    key = str(entry["source"]), str(entry["metric"]), str(entry["part"])
    targets = entry["targets"]
    return Owned(
        key,
        None if entry["settings"] is None else filled(key[2], entry["settings"]),
        tuple(targets) if isinstance(targets, list) else targets,
        str(entry["id"]),
        str(entry["origin"]),
        str(entry["applied"]),
        None if entry.get("sent") is None else filled(key[2], entry["sent"]),
    )
