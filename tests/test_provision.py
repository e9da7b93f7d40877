"""Planning against a platform, carrying a plan out: also when requests fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from deployment import options
from fakes import FakeMonitorApi
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect import monitors
from plexus_detect.client import Client, Endpoints
from plexus_detect.errors import AuthError, ContractError, RejectedError, TransientError
from plexus_detect.monitors import MonitorSpec, Ownership
from plexus_detect.provision.applying import ApplyResult, apply_plan
from plexus_detect.provision.reading import make_plan
from plexus_detect.sandbox import SLACK_TARGET, Sandbox

ROOT = Path(__file__).parent.parent
SLACK = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"
FLEET = {"dev-1": ("t", "humidity"), "dev-2": ("t",), "dev-3": ("humidity",)}
SET = [
    {"source_id": "*", "metric": "t.zscore", "threshold": {"max": 3, "severity": "critical"}},
    {"source_id": "dev-1", "metric": "t.anomaly", "event": {"message": "look"}},
    {"source_id": "dev-*", "offline": {"timeout_seconds": 600}, "notification_targets": [SLACK]},
]
PARTS = 2 + 1 + 3


def parsed(documents: list[dict[str, Any]]) -> tuple[MonitorSpec, ...]:
    return monitors.parse(json.dumps(documents), "m.json")


FORCE = Ownership(overwrite=True)


def applied(
    api: FakeMonitorApi, documents: list[dict[str, Any]], ours: Ownership = FORCE
) -> tuple[ApplyResult, list[str]]:
    lines: list[str] = []

    async def run() -> ApplyResult:
        plan = await make_plan(api, parsed(documents), ownership=ours)
        return await apply_plan(api, plan, lines.append)

    return asyncio.run(run()), lines


def still_planned(api: FakeMonitorApi, documents: list[dict[str, Any]]) -> bool:
    return not asyncio.run(make_plan(api, parsed(documents))).empty


def test_crontab_is_one_cron_line() -> None:
    """The cron example holds settings, comments and one entry that applies the monitors."""
    lines = (ROOT / "examples/cron/crontab").read_text().splitlines()
    (entry,) = [line for line in lines if line and not line.startswith(("#", "MAILTO=", "PATH=", "PLEXUS_"))]
    *when, command = entry.split(maxsplit=5)
    assert all(set(field) <= set("0123456789*/,-") for field in when)
    _cd, _and, program, *words = shlex.split(command)[1:]
    assert program == "plexus-detect"
    assert options(words)["path"] == Path("/etc/plexus-detect/monitors")
    assert "%" not in command  # cron would end the command there


# ---- plan and apply --------------------------------------------------------------------------------------


def test_plan_only_reads() -> None:
    """A plan makes three GETs at most; metric names are asked for only where a glob needs them."""
    api = FakeMonitorApi(FLEET)
    assert still_planned(api, SET)
    assert api.calls == [("GET", "/api/monitors"), ("GET", "/api/sources"), ("GET", "/api/fleet/health")]
    api.calls.clear()
    assert still_planned(api, SET[1:])
    assert ("GET", "/api/fleet/health") not in api.calls


def test_apply_then_plan_is_empty() -> None:
    """After an apply nothing is left to do, and a second one changes nothing."""
    api = FakeMonitorApi(FLEET)
    result, lines = applied(api, SET)
    assert (result.applied, result.failed, result.ok) == (PARTS, 0, True)
    assert lines[0] == "created threshold dev-1 t.zscore"
    sent = len(api.writes())
    assert sent == PARTS
    result, lines = applied(api, SET)
    assert (result.applied, result.ok, lines, len(api.writes())) == (0, True, [], sent)


def test_apply_does_only_what_differs() -> None:
    """A hand-made change is set right with one request, and monitors of others stay as they are."""
    api = FakeMonitorApi(FLEET)
    applied(api, SET)
    api.pairs["dev-2", "t.zscore", "threshold"]["max"] = 9
    api.pairs["dev-2", "own", "threshold"] = {"id": "x", "max": 1, "severity": "info"}
    api.calls.clear()
    result, lines = applied(api, SET)
    assert (result.ok, lines) == (True, ["changed threshold dev-2 t.zscore"])
    ((method, body),) = api.writes()
    assert (method, body["source_id"], body["threshold"]["max"]) == ("POST", "dev-2", 3)
    assert api.pairs["dev-2", "own", "threshold"] == {"id": "x", "max": 1, "severity": "info"}


def test_targets_are_patched() -> None:
    """Changed targets of an offline monitor are patched, never posted as a second monitor."""
    api = FakeMonitorApi(FLEET)
    applied(api, SET)
    for _, fields in api.offline:
        fields["notification_target_ids"] = None
    api.calls.clear()
    result, _ = applied(api, SET)
    assert result.ok
    assert {method for method, _ in api.writes()} == {"PATCH"}
    assert len(api.offline) == 3


def test_problems_fail_and_the_others_go_on() -> None:
    """An unknown source and a conflict fail by name; every other monitor is brought about."""
    api = FakeMonitorApi(FLEET)
    api.offline.append(("dev-2", {"id": "o", "timeout_seconds": 60, "severity": "warning", "enabled": True}))
    unknown = {"source_id": "dev-9", "metric": "t", "threshold": {"max": 1}}
    result, lines = applied(api, [unknown, *SET], Ownership())
    assert (result.applied, result.failed, result.ok) == (PARTS - 1, 2, False)
    assert lines[0].startswith("failed: unknown source: m.json#/0: source 'dev-9' is unknown to the platform")
    assert lines[1].startswith("failed: not ours: m.json#/3: offline dev-2 exists with other settings")
    assert [slug for slug, _ in api.offline].count("dev-2") == 1
    assert result.remaining.changes == ()


def test_rejected_monitor_is_named() -> None:
    """A refused request names its monitor, and the others go on."""
    api = FakeMonitorApi(FLEET)
    api.failure = RejectedError("POST https://app/api/monitors -> 422: unknown target")
    api.fail_at = 4
    result, lines = applied(api, SET)
    assert (result.applied, result.failed) == (PARTS - 1, 1)
    assert (
        lines[0]
        == "failed: create threshold dev-1 t.zscore: POST https://app/api/monitors -> 422: unknown target"
    )
    assert [change.label for change in result.remaining.changes] == ["threshold dev-1 t.zscore"]


@pytest.mark.parametrize("lost", [False, True])
def test_failure_at_every_request_then_rerun(lost: bool) -> None:
    """Whichever request fails or loses its answer, a rerun ends with an empty plan and nothing twice."""
    clean = FakeMonitorApi(FLEET)
    applied(clean, SET)
    requests = len(clean.calls)
    assert requests > PARTS + 4
    for fail_at in range(requests):
        api = FakeMonitorApi(FLEET)
        api.fail_at, api.fail_after = fail_at, lost
        try:
            applied(api, SET)
        except TransientError:
            assert api.calls[fail_at][0] == "GET"
        api.fail_at = None
        assert applied(api, SET)[0].ok
        assert not still_planned(api, SET)
        assert len(api.offline) == 3
        assert api.pairs == clean.pairs


def test_refused_key_ends_at_once() -> None:
    """A key that is refused is refused for every monitor: those that wait are not tried."""
    api = FakeMonitorApi(FLEET)
    api.failure, api.fail_at = AuthError("POST /api/monitors -> 401"), 4
    plan = asyncio.run(make_plan(api, parsed(SET)))
    with pytest.raises(AuthError):
        asyncio.run(apply_plan(api, plan, lambda line: None, concurrency=1))
    assert len(api.calls) == 5


class SilentApi(FakeMonitorApi):
    """Reads are answered, writes never."""

    async def create_monitor(self, body: dict[str, Any]) -> None:
        """Lose every POST."""
        self.calls.append(("POST", body))
        raise TransientError("POST /api/monitors -> read timeout", maybe_applied=True)


def test_silent_platform_ends_the_run() -> None:
    """A platform that does not answer three times running is left alone; the rest counts as failed."""
    api, lines = SilentApi(FLEET), list[str]()
    plan = asyncio.run(make_plan(api, parsed(SET)))
    result = asyncio.run(apply_plan(api, plan, lines.append, concurrency=1))
    assert len(api.writes()) == 3
    assert (result.applied, result.failed) == (0, PARTS)
    assert lines[-1] == f"failed: the platform does not answer; {PARTS - 3} monitors not tried"


# ---- partial lists ---------------------------------------------------------------------------------------


def test_partial_list_doubles_nothing() -> None:
    """Offline and event monitors that one list left out are not posted again."""
    api = FakeMonitorApi(FLEET)
    applied(api, SET)
    api.calls.clear()
    api.hidden, api.hide_reads = {("dev-1", ""), ("dev-2", ""), ("dev-1", "t.anomaly")}, 1
    result, lines = applied(api, SET)
    assert api.writes() == []
    assert "kept offline dev-1: it exists by now, the next plan compares it" in lines
    assert (len(lines), result.ok) == (3, True)


def test_partial_read_back_is_read_again() -> None:
    """A monitor that was accepted but is missing from the list read back is looked for again."""
    api = FakeMonitorApi(FLEET)
    plan = asyncio.run(make_plan(api, parsed(SET)))
    api.hidden, api.hide_reads = {("dev-1", "t.zscore")}, 3
    assert asyncio.run(apply_plan(api, plan, lambda line: None)).ok


def test_missing_read_back_is_said() -> None:
    """A monitor that the platform accepts and never lists remains in the plan: not ok."""
    api = FakeMonitorApi(FLEET)
    api.hidden, api.hide_reads = {("dev-1", "t.zscore")}, 99
    result, _ = applied(api, SET)
    assert (result.applied, result.failed, result.ok) == (PARTS, 0, False)
    assert [change.label for change in result.remaining.changes] == ["threshold dev-1 t.zscore"]


# ---- any wish on any platform ----------------------------------------------------------------------------

_severity = st.sampled_from(["info", "warning", "critical"])
_message = st.one_of(st.none(), st.text(max_size=3))
_threshold = st.fixed_dictionaries(
    {},
    optional={
        "min": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        "max": st.one_of(st.none(), st.integers()),
        "severity": _severity,
        "message": _message,
    },
)
_event = st.fixed_dictionaries(
    {}, optional={"severity": _severity, "enabled": st.booleans(), "delivery": st.just("per_row")}
)
_offline = st.fixed_dictionaries({}, optional={"timeout_seconds": st.integers(1, 9), "severity": _severity})
_body = st.fixed_dictionaries(
    {"source_id": st.sampled_from(["dev-1", "dev-2", "dev-3"]), "metric": st.sampled_from(["a", "b.zscore"])},
    optional={
        "threshold": _threshold,
        "event": _event,
        "notification_targets": st.one_of(st.none(), st.just([SLACK])),
    },
).filter(lambda body: "threshold" in body or "event" in body)
_offline_body = st.fixed_dictionaries({"source_id": st.sampled_from(["dev-1", "dev-2"]), "offline": _offline})
_bodies = st.lists(
    st.one_of(_body, _offline_body),
    min_size=1,
    max_size=5,
    unique_by=lambda b: (b["source_id"], b.get("metric")),
)


@examples(1500)
@given(before=_bodies, wanted=_bodies)
def test_apply_then_plan_is_empty_whatever_was_there(
    before: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> None:
    """From any state of the platform a forced apply ends with an empty plan, and nothing twice."""
    api = FakeMonitorApi(FLEET)
    for body in before:
        asyncio.run(api.create_monitor(body))
    result, _ = applied(api, wanted)
    assert result.remaining.changes == ()
    assert result.remaining.problems == ()
    writes = len(api.writes())
    applied(api, wanted)
    assert len(api.writes()) == writes


# ---- through the client, against the sandbox -------------------------------------------------------------


class BrokenAnswers(httpx.AsyncBaseTransport):
    """Spoils the answer of one request: a 422 instead of asking, or a page instead of a true answer."""

    def __init__(self, box: Sandbox, at: int | None = None, *, after: bool = False) -> None:
        self.inner = httpx.ASGITransport(app=box.app)
        self.at, self.after, self.requests = at, after, 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on, but for the one at index ``at``."""
        self.requests += 1
        if self.at != self.requests - 1:
            return await self.inner.handle_async_request(request)
        if not self.after:
            return self._said(422, b'{"error":"not now"}', "application/json")
        await self.inner.handle_async_request(request)
        return self._said(200, b"<html>", "text/html")

    @staticmethod
    def _said(status: int, body: bytes, kind: str) -> httpx.Response:
        """An answer that is still to be read, as one from the network is."""
        return httpx.Response(status, headers={"content-type": kind}, stream=httpx.ByteStream(body))


async def applied_through(box: Sandbox, transport: BrokenAnswers) -> ApplyResult:
    url = "http://sandbox"
    async with Client(Endpoints(url, url, url), box.key, transport=transport) as client:
        plan = await make_plan(client, parsed(SANDBOX_SET))
        return await apply_plan(client, plan, lambda line: None)


SANDBOX_SET = [*SET[:2], SET[2] | {"notification_targets": [SLACK_TARGET]}]


@pytest.fixture
def box() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    now_ms = int(time.time() * 1000)
    sandbox.load((slug, metric, now_ms, 1.0) for slug, metrics in FLEET.items() for metric in metrics)
    yield sandbox
    sandbox.close()


@pytest.mark.parametrize("after", [False, True])
def test_sandbox_failure_at_every_request_then_rerun(box: Sandbox, after: bool) -> None:
    """Against the sandbox: every request may fail or lose its answer, and a rerun makes the plan empty."""
    at = 0
    while True:
        broken = BrokenAnswers(box, at, after=after)
        with contextlib.suppress(RejectedError, ContractError):
            result = asyncio.run(applied_through(box, broken))
            if broken.requests <= at:
                break
        rerun = asyncio.run(applied_through(box, BrokenAnswers(box)))
        left = rerun.remaining
        assert (rerun.ok, left.keep, left.foreign, left.notes) == (True, PARTS, 0, ())
        asyncio.run(forget(box))
        at += 1
    assert (result.ok, result.applied) == (True, PARTS)
    assert at > PARTS + 4


async def forget(box: Sandbox) -> None:
    """Delete every monitor of the fleet."""
    transport = httpx.ASGITransport(app=box.app)
    async with httpx.AsyncClient(transport=transport, headers={"x-api-key": box.key}) as http:
        for slug in FLEET:
            for more in ({}, {"metric": "t.zscore"}, {"metric": "t.anomaly"}):
                params = {"source_id": slug, **more}
                (await http.delete("http://sandbox/api/monitors", params=params)).raise_for_status()
