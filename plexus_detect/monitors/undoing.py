"""From a backup back: which requests make the monitors of a run what they were before it.

Only what still is as the run left it is set back. What a person edited since is named and left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plexus_detect.monitors.backup import Backup, Touched
from plexus_detect.monitors.documents import LEAVE, Targets
from plexus_detect.monitors.manifest import Manifest
from plexus_detect.monitors.marks import Mark, digest, signed
from plexus_detect.monitors.model import Change, Existing, Expansion, Plan, Problem, Wanted, label
from plexus_detect.monitors.ownership import Key, Owned, Ownership
from plexus_detect.monitors.planning import SAME, distance, is_ours, patch_body, post_body

_LOST = {
    "threshold": "an alert that was open on it stays closed, and later ones have another rule id",
    "event": "it watches from now on: what came since it was deleted is not told, nor what comes within 30 s",
    "offline": "it comes back with another id, and always switched on",
}


@dataclass(frozen=True)
class Undo:
    """What undoing one backup goes by.

    ``name`` is the backup's file. ``former`` are the ids of the offline monitors that were listed when the
    first attempt began: others are what an attempt that was cut short has made. ``restored`` are the ids of
    those that the undo of another run has brought back, with new ids.
    """

    backup: Backup
    name: str
    former: frozenset[str]
    restored: frozenset[str] = frozenset()

    def plan(self, existing: Sequence[Existing], ours: Ownership) -> Plan:
        """What is to be done, and what is left for a person."""
        steps = _Steps(self, existing, ours)
        for touched in self.backup.monitors:
            steps.add(touched)
        return steps.plan()

    def kept(self, manifest: Manifest, seen: Sequence[Existing], at: str) -> Manifest:
        """The manifest after it, by what the platform lists now.

        A deleted monitor that is back is ours. A changed one that was set back keeps what the documents made
        of it last, so that the next plan names it instead of changing it again.
        """
        by_key = _by_key(seen)
        entries = {(entry.key, entry.id): replace(entry, sent=None) for entry in manifest.owned}
        for touched in self.backup.monitors:
            key = touched.key
            found = by_key[key]
            listed = {monitor.id for monitor in found}
            own = [place for place in entries if place[0] == key]
            if key[2] == "offline" or not found:
                for place in own:
                    if place[1] not in listed:
                        del entries[place]
            back = self._back(touched, found, {place[1] for place in entries if place[0] == key})
            if back is not None and touched.before is not None:
                if key[2] != "offline":
                    for place in own:
                        entries.pop(place, None)
                entries[key, back.id] = self._entry(touched, touched.before, back, at)
        return replace(manifest, owned=tuple(entries.values()))

    def _back(self, touched: Touched, found: Sequence[Existing], known: Collection[str]) -> Existing | None:
        """The monitor that was made anew and is ours, None where there is none."""
        before = touched.before
        if before is None or (touched.key[2] != "offline" and touched.wanted is not None):
            return None
        if before.mark is not None and before.mark.digest != digest(before.settings):
            return None  # It was edited before it was deleted, and its mark says so.
        wish = _wish(touched, before, self.name)
        new = touched.key[2] == "offline"
        return next(
            (
                m
                for m in found
                if distance(wish, m) == SAME and not (new and (m.id in self.former or m.id in known))
            ),
            None,
        )

    def _entry(self, touched: Touched, before: Existing, back: Existing, at: str) -> Owned:
        wanted = touched.wanted
        if wanted is None:
            return Owned(touched.key, back.settings, before.targets, back.id, self.name, at)
        return Owned(touched.key, wanted.settings, wanted.targets, back.id, wanted.origin, at)


class _Steps:
    """The steps back, one monitor after the other."""

    def __init__(self, undo: Undo, existing: Sequence[Existing], ours: Ownership) -> None:
        self._undo = undo
        self._existing = existing
        self._ours = ours
        self._by_key = _by_key(existing)
        self._taken: set[str] = set()
        self._changes: list[Change] = []
        self._problems: list[Problem] = []
        self._back = 0

    def add(self, touched: Touched) -> None:
        """Take in one monitor of the backup."""
        done, left = len(self._changes), len(self._problems)
        if touched.key[2] == "offline":
            self._offline(touched)
        else:
            self._pair(touched)
        self._back += (done, left) == (len(self._changes), len(self._problems))

    def plan(self) -> Plan:
        """The plan of all of them."""
        doomed = {change.key for change in self._changes if change.action == "delete"}
        possible = []
        for change in self._changes:
            pair = [m.key for m in self._existing if m.key[:2] == change.key[:2]]
            hanging = [key for key in pair if key not in doomed] if change.key[2] != "offline" else []
            if change.action == "delete" and hanging:
                self._leave(
                    change.key,
                    f"the platform deletes it only together with the {hanging[0][2]} monitor of the same "
                    "metric, which stays; delete it there by hand",
                )
            else:
                possible.append(change)
        return Plan(
            Expansion((), (), ()),
            tuple(possible),
            (),
            tuple(self._problems),
            tuple(_notes(possible)),
            keep=self._back,
            foreign=0,
            seen=tuple(self._existing),
            ownership=replace(self._ours, overwrite=True),
        )

    # -- thresholds and events

    def _pair(self, touched: Touched) -> None:
        found = next(iter(self._by_key[touched.key]), None)
        before, wanted = touched.before, touched.wanted
        if before is None:
            if found is not None:
                self._unless_edited(touched, found, _deletion(found))
            return
        wish = _wish(touched, before, self._undo.name)
        if found is None:
            if wanted is None or self._ours.overwrite:
                self._changes.append(self._made(touched, wish))
            else:
                self._leave(touched.key, "it is gone from the platform since; bring it back with --force")
        elif distance(wish, found) != SAME:
            self._unless_edited(touched, found, self._set_back(touched, wish, found))

    def _unless_edited(self, touched: Touched, found: Existing, change: Change) -> None:
        if self._ours.overwrite or self._is_as_left(touched, found):
            self._changes.append(change)
        elif touched.wanted is None:
            self._leave(touched.key, "somebody made another one since; set it back with --force")
        else:
            self._leave(touched.key, "it was edited on the platform since; set it back with --force")

    def _is_as_left(self, touched: Touched, found: Existing) -> bool:
        wanted = touched.wanted
        theirs = found.mark_owner not in (None, self._ours.owner)
        return wanted is not None and distance(wanted, found) == SAME and not theirs

    def _set_back(self, touched: Touched, wish: Wanted, found: Existing) -> Change:
        old = [(name, found.settings.get(name), value) for name, value in wish.settings.items()]
        fields = [field for field in old if field[1] != field[2]]
        if wish.targets not in (LEAVE, found.targets):
            fields.append(("targets", found.targets, wish.targets))
        made = self._made(touched, wish)
        return replace(made, action="change", found=found, fields=tuple(fields))

    def _made(self, touched: Touched, wish: Wanted, *, another: bool = False) -> Change:
        body = post_body(wish, replace(self._ours, mark=False))
        mark = self._mark(touched)
        if touched.key[2] == "threshold" and mark is not None:
            body["threshold"]["message"] = signed(wish.settings["message"], mark)
        return Change("create", touched.key, wish, None, (), "POST", body, "", another)

    def _mark(self, touched: Touched) -> Mark | None:
        """The mark that it had.

        One that a run of ours changed gets the mark of that run, which its settings belie: an edit.
        """
        mark = touched.before.mark if touched.before is not None else None
        if mark is None or mark.owner != self._ours.owner or touched.wanted is None:
            return mark
        return Mark(mark.owner, digest(touched.wanted.settings))

    # -- offline monitors, of which a source may have several

    def _offline(self, touched: Touched) -> None:
        before, wanted = touched.before, touched.wanted
        left = None if wanted is None else self._left(touched, wanted)
        if before is None:
            self._uncreate(touched, left)
            return
        wish = _wish(touched, before, self._undo.name)
        if touched.action == "change":
            self._retarget(touched, wish, before)
            return
        back = self._again(before, wish)
        if left is not None:
            self._taken.add(left.id)
            if back:
                self._changes.append(_deletion(left))
            else:
                fields = self._set_back(touched, wish, left).fields
                made = self._made(touched, wish, another=True)
                self._changes.append(replace(made, action="replace", found=left, fields=fields))
        elif not back:
            if wanted is None or self._ours.overwrite:
                self._changes.append(self._made(touched, wish, another=True))
            elif not any(distance(wish, found) == SAME for found in self._by_key[touched.key]):
                self._leave(
                    touched.key, "its successor is gone or was edited since; bring it back with --force"
                )

    def _left(self, touched: Touched, wanted: Wanted) -> Existing | None:
        """The one that the run made."""
        for found in self._by_key[touched.key]:
            old = touched.before is not None and touched.before.id == found.id
            free = found.id in self._undo.former and found.id not in self._taken and not old
            if (
                free
                and distance(wanted, found) == SAME
                and (is_ours(found, self._ours) or self._ours.overwrite)
            ):
                return found
        return None

    def _again(self, before: Existing, wish: Wanted) -> bool:
        """Whether the former one is there: it never went, or it was brought back."""
        if before.id in self._undo.restored:
            return True
        for found in self._by_key[before.key]:
            new = found.id not in self._undo.former and found.id not in self._taken
            if found.id == before.id or (new and distance(wish, found) == SAME):
                self._taken.add(found.id)
                return True
        return False

    def _uncreate(self, touched: Touched, left: Existing | None) -> None:
        if left is not None:
            self._taken.add(left.id)
            self._changes.append(_deletion(left))
        elif any(is_ours(found, self._ours) for found in self._by_key[touched.key]):
            self._leave(touched.key, "it was edited on the platform since; delete it there by hand")

    def _retarget(self, touched: Touched, wish: Wanted, before: Existing) -> None:
        found = next((m for m in self._by_key[touched.key] if m.id == before.id), None)
        if found is None:
            self._leave(touched.key, "it is gone from the platform since")
        elif distance(wish, found) != SAME:
            change = self._set_back(touched, wish, found)
            patch = replace(change, method="PATCH", body=patch_body(wish, found))
            self._unless_edited(touched, found, patch)

    def _leave(self, key: Key, why: str) -> None:
        self._problems.append(Problem("drift", f"{label(key)}: {why}"))


def _by_key(existing: Sequence[Existing]) -> defaultdict[Key, list[Existing]]:
    by_key: defaultdict[Key, list[Existing]] = defaultdict(list)
    for monitor in existing:
        by_key[monitor.key].append(monitor)
    return by_key


def _wish(touched: Touched, before: Existing, name: str) -> Wanted:
    """What a monitor was before the run: targets that the run left alone are nobody's business."""
    untouched = touched.wanted is not None and touched.wanted.targets == LEAVE
    targets: Targets = LEAVE if untouched and touched.action == "change" else before.targets
    settings: dict[str, Any] = dict(before.settings)
    if touched.key[2] == "offline":
        settings["enabled"] = True  # The API cannot switch one off.
    return Wanted(name, touched.key, settings, targets)


def _deletion(found: Existing) -> Change:
    source, metric, part = found.key
    address = {"offline_id": found.id} if part == "offline" else {"source_id": source, "metric": metric}
    return Change("delete", found.key, None, found, (), "DELETE", address, "the run made it")


def _notes(changes: Sequence[Change]) -> list[str]:
    made = [change for change in changes if change.action in ("create", "replace")]
    notes = [f"{part}: {_LOST[part]}" for part in _LOST if any(change.key[2] == part for change in made)]
    if any(change.action in ("change", "replace") for change in changes):
        notes.append("what is set back differs from the documents: the next plan names it as edited")
    if any(change.action == "delete" for change in changes):
        notes.append(
            "what is deleted is still in the documents: take it out, or the next apply makes it again"
        )
    if any(change.action == "create" for change in changes):
        notes.append(
            "what comes back is ours and in no document: write it into one, or the next prune takes it"
        )
    return notes
