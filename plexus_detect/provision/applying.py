"""Carries out a plan and checks what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from plexus_detect import monitors
from plexus_detect.errors import ApiError, AuthError, ContractError, TransientError
from plexus_detect.heartbeat import NAME as OWN_NAME
from plexus_detect.monitors import Change, Existing, Key, Plan
from plexus_detect.provision.api import MonitorApi
from plexus_detect.provision.reading import existing_monitors
from plexus_detect.retry import retried

CONCURRENCY = 8

Say = Callable[[str], None]


@dataclass(frozen=True)
class ApplyResult:
    """What an apply did: monitors ``applied`` and ``failed``, and the plan that ``remaining`` work makes.

    ``seen`` is what the platform listed at the end.
    """

    applied: int
    failed: int
    remaining: Plan
    seen: tuple[Existing, ...]

    @property
    def ok(self) -> bool:
        """True when every monitor is as wanted and the platform's own list says so."""
        return self.failed == 0 and self.remaining.empty


class Ledger(Protocol):
    """Who keeps in mind what is ours."""

    def expect(self, plan: Plan) -> None:
        """Before the first request: what the plan makes will be ours."""

    def settle(self, plan: Plan, result: ApplyResult) -> None:
        """After the last one: what the platform lists now."""


async def apply_plan(
    api: MonitorApi,
    plan: Plan,
    on_result: Say,
    *,
    ledger: Ledger | None = None,
    concurrency: int = CONCURRENCY,
    unanswered_max: int = 3,
) -> ApplyResult:
    """Make the requests of the plan, ``concurrency`` at a time, then read back and plan again.

    ``on_result`` gets one line for each monitor, in the order of the plan. A monitor that fails is named and
    the others go on, but ``unanswered_max`` monitors in a row without an answer end the run, since the
    platform is then away. Raises AuthError at once, and the errors of the reads before and after; rerunning
    is safe at any point.
    """
    for problem in plan.problems:
        on_result(f"failed: {problem.kind}: {problem.sentence}")
    if ledger is not None:
        ledger.expect(plan)
    if plan.source:
        await retried(partial(api.create_source, plan.source, OWN_NAME))
        on_result(f"created source {plan.source}")
    work = await _still_missing(api, plan, on_result)
    applied, failed = await _Run(api, work, on_result, unanswered_max).all(concurrency)
    remaining, seen = await _read_back(api, plan)
    result = ApplyResult(applied, failed + len(plan.problems), remaining, seen)
    if ledger is not None:
        ledger.settle(plan, result)
    return result


class _Run:
    """The requests of a plan, some at a time; what came of each is told in their order."""

    def __init__(self, api: MonitorApi, work: Sequence[Change], say: Say, unanswered_max: int) -> None:
        self._api = api
        self._work = work
        self._say = say
        self._unanswered_max = unanswered_max
        self.unanswered = 0

    async def all(self, concurrency: int) -> tuple[int, int]:
        """How many were applied and how many failed. Deletes are done before anything is made."""
        applied = failed = 0
        done = 0
        for group in self._groups(concurrency):
            outcomes = await asyncio.gather(*(self._one(change) for change in group), return_exceptions=True)
            for change, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    failed += self._tell_failure(change, outcome)
                else:
                    applied, self.unanswered = applied + 1, 0
                    self._say(f"{change.action}d {change.label}")
            done += len(group)
            left = len(self._work) - done
            if self.unanswered >= self._unanswered_max and left:
                self._say(f"failed: the platform does not answer; {left} monitors not tried")
                return applied, failed + left
        return applied, failed

    def _groups(self, size: int) -> Iterator[Sequence[Change]]:
        for deletes in (True, False):
            work = [change for change in self._work if (change.action == "delete") is deletes]
            yield from (work[at : at + size] for at in range(0, len(work), size))

    def _tell_failure(self, change: Change, error: BaseException) -> int:
        if isinstance(error, AuthError) or not isinstance(error, ApiError | ContractError):
            raise error
        self.unanswered = self.unanswered + 1 if isinstance(error, TransientError) else 0
        self._say(f"failed: {change.action} {change.label}: {error}")
        return 1

    async def _one(self, change: Change) -> None:
        body = dict(change.body)
        if change.method == "DELETE":
            await self._delete(body)
            return
        if change.method == "PATCH":
            await retried(partial(self._api.patch_monitor, body))
        else:
            await retried(partial(self._api.create_monitor, body))
        if change.action == "replace" and change.found is not None:
            await self._delete({"offline_id": change.found.id})

    async def _delete(self, address: dict[str, str]) -> None:
        if "offline_id" in address:
            await retried(partial(self._api.delete_offline, address["offline_id"]))
        else:
            await retried(partial(self._api.delete_pair, address["source_id"], address["metric"]))


async def _still_missing(api: MonitorApi, plan: Plan, on_result: Say) -> Sequence[Change]:
    """The plan's work without new monitors that exist by now and would be doubled or reset by a post.

    The platform's list can be partial without saying so: a second offline monitor notifies twice, and
    posting an event monitor again blinds it for up to 30 s. Threshold posts are harmless and not asked about.
    """
    if not any(_must_not_repeat(change) for change in plan.work):
        return plan.work
    present: dict[Key, list[Existing]] = {}
    for monitor in await existing_monitors(api):
        present.setdefault(monitor.key, []).append(monitor)
    work: list[Change] = []
    for change in plan.work:
        if _must_not_repeat(change) and _is_there(change, present.get(change.key, [])):
            on_result(f"kept {change.label}: it exists by now, the next plan compares it")
        else:
            work.append(change)
    return work


def _must_not_repeat(change: Change) -> bool:
    new = change.action == "create" or (change.action == "replace" and change.method == "POST")
    return new and change.key[2] in ("offline", "event") and not change.another


def _is_there(change: Change, found: Sequence[Existing]) -> bool:
    """Whether a new monitor is there already; of a replacement, the one that was to take its place."""
    if change.found is None or change.wanted is None:
        return bool(found)
    wanted, old = change.wanted, change.found
    return any(m.id != old.id and monitors.distance(wanted, m) == monitors.SAME for m in found)


async def _read_back(api: MonitorApi, plan: Plan, *, reads_max: int = 3) -> tuple[Plan, tuple[Existing, ...]]:
    """Plan again on what the platform lists now; what one reading leaves out, another may show."""
    seen = await existing_monitors(api)
    again = _planned_again(plan, seen)
    for _ in range(reads_max - 1):
        if not any(change.action == "create" for change in again.changes):
            break
        seen = monitors.merged(seen, await existing_monitors(api))
        again = _planned_again(plan, seen)
    return again, seen


def _planned_again(plan: Plan, seen: Sequence[Existing]) -> Plan:
    """The same wishes against what is there now, with what this run has made counted as ours."""
    expecting = monitors.Manifest(plan.ownership.owner, owned=plan.ownership.owned).expecting(plan)
    ours = monitors.Ownership(
        plan.ownership.owner, expecting.owned, mark=plan.ownership.mark, overwrite=plan.ownership.overwrite
    )
    return monitors.plan(plan.expansion, seen, ours, prune=plan.prune)
