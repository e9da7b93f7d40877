"""Carries out a plan and checks what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from plexus_detect import monitors
from plexus_detect.errors import ApiError, AuthError, ContractError, TransientError
from plexus_detect.heartbeat import NAME as OWN_NAME
from plexus_detect.monitors import Change, Expansion, Plan
from plexus_detect.provision.api import MonitorApi
from plexus_detect.provision.reading import existing_monitors
from plexus_detect.retry import retried


@dataclass(frozen=True)
class ApplyResult:
    """What an apply did: monitors ``applied`` and ``failed``, and the plan that ``remaining`` work makes."""

    applied: int
    failed: int
    remaining: Plan

    @property
    def ok(self) -> bool:
        """True when every monitor is as wanted and the platform's own list says so."""
        return self.failed == 0 and self.remaining.empty


async def apply_plan(
    api: MonitorApi, plan: Plan, on_result: Callable[[str], None], *, unanswered_max: int = 3
) -> ApplyResult:
    """Make the requests of the plan, one after another, then read back and plan again.

    ``on_result`` gets one line for each monitor. A monitor that fails is named and the others go on, but
    ``unanswered_max`` monitors in a row without an answer end the run, since the platform is then away.
    Raises AuthError at once, and the errors of the reads before and after; rerunning is safe at any point.
    """
    if plan.source:
        await retried(partial(api.create_source, plan.source, OWN_NAME))
        on_result(f"created source {plan.source}")
    for problem in plan.problems:
        on_result(f"failed: {problem.kind}: {problem.sentence}")
    applied, failed, unanswered = 0, len(plan.problems), 0
    changes = await _still_missing(api, plan, on_result)
    for i, change in enumerate(changes):
        try:
            await _carry_out(api, change)
        except AuthError:
            raise
        except (ApiError, ContractError) as error:
            failed += 1
            unanswered = unanswered + 1 if isinstance(error, TransientError) else 0
            on_result(f"failed: {change.action} {change.label}: {error}")
            if unanswered == unanswered_max and i + 1 < len(changes):
                failed += len(changes) - i - 1
                on_result(f"failed: the platform does not answer; {len(changes) - i - 1} monitors not tried")
                break
        else:
            applied, unanswered = applied + 1, 0
            on_result(f"{change.action}d {change.label}")
    return ApplyResult(applied, failed, await _read_back(api, plan.expansion))


async def _carry_out(api: MonitorApi, change: Change) -> None:
    send = api.create_monitor if change.method == "POST" else api.patch_monitor
    await retried(partial(send, dict(change.body)))


async def _still_missing(api: MonitorApi, plan: Plan, on_result: Callable[[str], None]) -> Sequence[Change]:
    """The plan's changes without new monitors that exist by now and would be doubled or reset by a post.

    The platform's list can be partial without saying so: a second offline monitor notifies twice, and
    posting an event monitor again blinds it for up to 30 s. Threshold posts are harmless and not asked about.
    """
    if not any(_must_not_repeat(change) for change in plan.changes):
        return plan.changes
    present = {monitor.key for monitor in await existing_monitors(api)}
    changes: list[Change] = []
    for change in plan.changes:
        if _must_not_repeat(change) and change.wanted.key in present:
            on_result(f"kept {change.label}: it exists by now, the next plan compares it")
        else:
            changes.append(change)
    return changes


def _must_not_repeat(change: Change) -> bool:
    return change.action == "create" and change.wanted.key[2] in ("offline", "event")


async def _read_back(api: MonitorApi, expansion: Expansion, *, reads_max: int = 3) -> Plan:
    """Plan again on what the platform lists now; what one reading leaves out, another may show."""
    seen = await existing_monitors(api)
    plan = monitors.plan(expansion, seen)
    for _ in range(reads_max - 1):
        if not any(change.action == "create" for change in plan.changes):
            break
        seen = monitors.merged(seen, await existing_monitors(api))
        plan = monitors.plan(expansion, seen)
    return plan
