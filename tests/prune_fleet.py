"""A fleet with monitors of ours and of others, and what prune and undo are run with: for their tests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from fakes import FakeMonitorApi
from hypothesis import strategies as st

from plexus_detect import monitors
from plexus_detect.monitors import MonitorSpec, Plan
from plexus_detect.monitors.documents import filled
from plexus_detect.monitors.guard import Limits, only_deletes, require_safe
from plexus_detect.provision.applying import ApplyResult, apply_plan
from plexus_detect.provision.backups import Backups
from plexus_detect.provision.ledger import FileLedger
from plexus_detect.provision.manifestfile import ManifestFile
from plexus_detect.provision.prune import pruned
from plexus_detect.provision.reading import make_plan
from plexus_detect.provision.undo import Undoing

OWNER, ENDPOINT = "plexus-detect", "https://app"
FLEET = {"dev-1": ("t", "humidity"), "dev-2": ("t",), "dev-3": ("humidity",)}
NO_LIMITS = Limits(10_000, 1.0)

SLACK = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"
TARGETED = 3

Listed = dict[tuple[str, str, str], list[str]]


def parsed(documents: list[dict[str, Any]]) -> tuple[MonitorSpec, ...]:
    """The documents of one file."""
    return monitors.parse(json.dumps(documents), "m.json")


def listed(api: FakeMonitorApi, *, marks: bool = True) -> Listed:
    """What the platform has, up to ids (and ``marks``): by key, the settings with targets, in one order."""
    shown: Listed = {}
    for (slug, metric, part), fields in api.pairs.items():
        shown.setdefault((slug, metric, part), []).append(_settings(part, fields, marks=marks))
    for slug, fields in api.offline:
        shown.setdefault((slug, "", "offline"), []).append(_settings("offline", fields, marks=marks))
    return {key: sorted(values) for key, values in shown.items()}


def _settings(part: str, fields: dict[str, Any], *, marks: bool) -> str:
    told = filled(part, fields) | {"targets": fields["notification_target_ids"]}
    return json.dumps(told | ({"text": fields.get("message")} if marks else {}), sort_keys=True)


_part = st.sampled_from(["threshold", "event", "both", "offline"])
places = st.tuples(
    st.sampled_from(["dev-1", "dev-2"]), st.sampled_from(["t.zscore", "humidity"]), _part, st.integers(1, 3)
)


def body_of(place: tuple[str, str, str, int]) -> dict[str, Any]:
    """A monitor at a place."""
    source, metric, part, number = place
    if part == "offline":
        return {"source_id": source, "offline": {"timeout_seconds": 60 * number}} | (
            {"notification_targets": [SLACK]} if number == TARGETED else {}
        )
    body: dict[str, Any] = {"source_id": source, "metric": metric}
    if part != "event":
        body["threshold"] = {"max": number}
    if part != "threshold":
        body["event"] = {"severity": ["info", "warning", "critical"][number - 1]}
    if part == "both" and number == TARGETED:
        body["notification_targets"] = [SLACK]
    return body


def documents_of(places: list[tuple[str, str, str, int]]) -> list[dict[str, Any]]:
    """Documents that do not claim anything twice."""
    bodies = [body_of(place) for place in places]
    return list({(b["source_id"], b.get("metric")): b for b in bodies}.values())


class Deployment:
    """One platform with one manifest and its backups."""

    def __init__(self, folder: Path, api: FakeMonitorApi) -> None:
        self.api = api
        self.file = ManifestFile(folder / "s.monitors.json", OWNER, ENDPOINT)
        self.backups = Backups(self.file.path, OWNER, ENDPOINT)
        self.said: list[str] = []

    def apply(self, documents: list[dict[str, Any]], *, force: bool = False) -> ApplyResult:
        """Apply with a backup, as the command does."""

        async def run() -> ApplyResult:
            ledger = FileLedger(self.file, self.backups, "apply")
            ours = ledger.ownership(mark=True, overwrite=force)
            plan = await make_plan(self.api, parsed(documents), ownership=ours)
            return await apply_plan(self.api, plan, self.said.append, ledger=ledger)

        return asyncio.run(run())

    def plan(self, documents: list[dict[str, Any]], *, force: bool = False, prune: bool = True) -> Plan:
        """What differs now."""
        ours = FileLedger(self.file, self.backups, "apply").ownership(mark=True, overwrite=force)
        return asyncio.run(make_plan(self.api, parsed(documents), ownership=ours, prune=prune))

    def prune(
        self, documents: list[dict[str, Any]], limits: Limits = NO_LIMITS, *, force: bool = False
    ) -> bool:
        """Prune as the command does."""
        plan = self.plan(documents, force=force)
        require_safe(plan, limits)
        ledger = FileLedger(self.file, self.backups, "apply")
        return asyncio.run(
            pruned(self.api, only_deletes(plan), self.said.append, ledger=ledger, backups=self.backups)
        )

    def undo(self, *, force: bool = False) -> bool:
        """Undo the newest backup as the command does."""
        path, backup = self.backups.newest()
        undoing = Undoing(path, backup, self.file, self.backups, overwrite=force)

        async def run() -> bool:
            return await undoing.carried_out(self.api, await undoing.planned(self.api), self.said.append)

        return asyncio.run(run())

    def post(self, body: dict[str, Any]) -> None:
        """Make a monitor as somebody else."""
        asyncio.run(self.api.create_monitor(body))
