"""ladder: one score under two names, so that a mild and a hard bound on it can both be watched."""

from __future__ import annotations

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, Row
from pipe import DEVICES, Pipe, config, play, quiet_room
from streams import noise, points

from plexus_detect import outbox
from plexus_detect.client import Client, Endpoints
from plexus_detect.config import Config
from plexus_detect.evaluate import Policy, Rule, State, evaluate
from plexus_detect.policy import policy_of
from plexus_detect.sandbox import Sandbox
from plexus_detect.series import Derived, Kind, SeriesTable
from plexus_detect.worker import open_worker

ODD = "dev-1"
MILD, HARD = "temperature.zscore", "temperature.zscore_critical"
BOTH = config(
    detect__detector="zscore",
    fleet__enabled="false",
    post__series='["zscore", "zscore_critical", "zscore_late"]',
)
WITHOUT = config(detect__detector="zscore", fleet__enabled="false")


async def monitored(box: Sandbox) -> None:
    """Two thresholds on the score of one device: a warning above 3, critical above 9."""
    async with Client(Endpoints(*[box.url] * 3), box.key) as client:
        for metric, limit, severity in ((MILD, 3, "warning"), (HARD, 9, "critical")):
            threshold = {"max": limit, "severity": severity}
            await client.create_monitor({"source_id": ODD, "metric": metric, "threshold": threshold})


def lifted(t_ms: int, lift: float) -> list[Row]:
    """A sample of each device, that of one by ``lift`` too high."""
    return [(s, m, t, v + lift * (s == ODD)) for s, m, t, v in (quiet_room(s, t_ms) for s in DEVICES)]


def active(pipe: Pipe) -> set[tuple[str, str]]:
    """The metric and severity of the alerts that are open."""
    return {(a["metric"], a["severity"]) for a in pipe.box.alerts() if a["is_alert_active"]}


@pytest.mark.parametrize(
    ("lift", "opened"),
    [(0.6, {(MILD, "warning")}), (4.0, {(MILD, "warning"), (HARD, "critical")})],
    ids=["moderate", "hard"],
)
def test_a_fault_opens_what_it_is_hard_enough_for(
    stopped: FakeClock, lift: float, opened: set[tuple[str, str]]
) -> None:
    """A moderate one warns, a hard one is critical as well; both close, and the two names have one score for
    each sample, of which nothing is scored in its turn."""

    async def room(pipe: Pipe) -> None:
        await monitored(pipe.box)
        await pipe.steps(5)
        assert active(pipe) == set()
        await pipe.steps(6, lambda t: lifted(t, lift))
        assert active(pipe) == opened
        assert {kind for _series, kind in pipe.worker.delivery.debts} == {Kind.ZSCORE, Kind.ZSCORE_CRITICAL}
        await pipe.steps(60)
        assert active(pipe) == set()
        assert pipe.worker.delivery.debts == {}
        await pipe.worker.discover()
        assert pipe.worker.running.series_count() == len(DEVICES)

    pipe = play(stopped, room, given=BOTH)
    sent = [message.event for message in pipe.box.slack_messages()]
    assert sorted(sent) == ["alert.resolved"] * len(opened) + ["alert.triggered"] * len(opened)
    of = {m: [(r.source, r.t_ms, r.value) for r in pipe.rows(metric=m)] for m in (MILD, HARD)}
    assert len(of[MILD]) == 71 * len(DEVICES)
    assert of[MILD] == of[HARD]


@pytest.mark.parametrize("after", [BOTH, WITHOUT], ids=["same settings", "name not wanted"])
def test_a_restart_closes_what_it_finds_open(stopped: FakeClock, after: Config) -> None:
    """What may be open is in the state file under either name; a worker that does not post the second one any
    more closes its alert all the same, and then lets it be."""

    async def room(pipe: Pipe) -> None:
        await monitored(pipe.box)
        await pipe.steps(5)
        await pipe.steps(6, lambda t: lifted(t, 4.0))
        assert len(active(pipe)) == 2
        store, client = pipe.worker._store, pipe.worker._client
        pipe.worker.save()
        assert {kind for _series, kind in store.alerts()} == {Kind.ZSCORE, Kind.ZSCORE_CRITICAL}
        pipe.worker = await open_worker(after, client, store)
        await pipe.steps(60)
        assert active(pipe) == set()
        assert store.alerts() == {}

    pipe = play(stopped, room, given=BOTH)
    hard = [r for r in pipe.rows(ODD, HARD) if r.t_ms >= START_MS + 11_000]
    assert hard[-1].value == 0.0
    assert (len(hard) == 60) == (after is BOTH)
    if after is WITHOUT:
        assert {r.value for r in hard} == {0.0}
        assert 2 <= len(hard) < 45


def test_it_is_posted_only_when_asked_for() -> None:
    """The default has one name."""
    assert Kind.ZSCORE_CRITICAL not in policy_of(Config()).kinds
    assert Kind.ZSCORE_CRITICAL in policy_of(BOTH).kinds


def test_late_samples_have_one_name() -> None:
    """No name that is watched gets anything of a sample that came late; that for the record does, once."""
    wanted = frozenset({Kind.ZSCORE, Kind.ZSCORE_CRITICAL, Kind.ZSCORE_LATE})
    state = State(SeriesTable(), Policy((Rule(detector="zscore"),), kinds=wanted))
    state.admit(state.table.add("a", "t"), 0)
    t_ms = START_MS + 1000 * np.arange(100)
    evaluate(state, points(0, t_ms, noise(100)), START_MS + 10**9)
    found = evaluate(state, points(0, t_ms[50:53] + 500, [30.0] * 3, [True] * 3), START_MS + 10**9)
    assert found.derived.kind.tolist() == [Kind.ZSCORE_LATE] * 3


def test_old_samples_go_on_record_once() -> None:
    """Older than post.max_alert_age: the copy is left out, the score goes to the name for the record."""
    kind = np.array([Kind.ZSCORE, Kind.ZSCORE_CRITICAL] * 2, np.int8)
    derived = Derived(np.zeros(4, np.int64), kind, np.array([5, 5, 900, 900]), np.full(4, 7.0))
    kept = outbox.in_time(derived, 1000, 500, keep=True)
    assert kept.kind.tolist() == [Kind.ZSCORE_LATE, Kind.ZSCORE, Kind.ZSCORE_CRITICAL]
    assert kept.t_ms.tolist() == [5, 900, 900]


def test_the_numbers_of_kinds_are_those_of_old_state_files() -> None:
    """A file of version 0.4.0 has them in its outbox and its alerts; a new kind takes a new number."""
    names = "ZSCORE FLEET_ZSCORE ZSCORE_RAW FLEET_ZSCORE_RAW EXPECTED LOWER UPPER DRIFT STUCK FLEET_EVENT"
    old = [*names.split(), "ANOMALY", "ZSCORE_LATE"]
    assert [kind.name for kind in sorted(Kind)] == [*old, "ZSCORE_CRITICAL"]
    assert [int(kind) for kind in sorted(Kind)] == list(range(len(Kind)))
