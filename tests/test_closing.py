"""closing: what we owe the platform so that its alerts close, and who pays when nobody scores any more."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fake_platform import START_MS, FakeClock, FakePlatform
from hypothesis import given
from hypothesis import strategies as st
from pipe import DEVICES, config, quiet_room
from profiles import examples

from plexus_detect.client import Client, Endpoints
from plexus_detect.closing import CALM_MS, FORGET_MS, AlertChanges, Debt, delivered, owing, zeros
from plexus_detect.config import Config
from plexus_detect.delivery import Delivery, DeliveryParams
from plexus_detect.sandbox import Sandbox, Settings
from plexus_detect.series import Derived, Kind, Points, SeriesKey
from plexus_detect.store import Store
from plexus_detect.worker import open_worker

T = 1_000_000


def batch(*points: tuple[int, Kind, int, float]) -> Derived:
    """Derived points of (series, kind, time, value)."""
    series, kind, t_ms, value = zip(*points, strict=True)
    return Derived(np.array(series), np.array(kind, np.int8), np.array(t_ms), np.array(value, np.float64))


def test_a_breach_is_a_debt_and_two_calm_deliveries_pay_it() -> None:
    """Values inside the bound count by when they were accepted: two in one delivery are one, and two that are
    too close together do not close."""
    debts: dict[tuple[int, int], Debt] = {}
    changes = delivered(batch((4, Kind.ZSCORE, T, 0.0), (4, Kind.ZSCORE, T + 1, 3.5)), T + 10, debts)
    assert changes == AlertChanges({(4, 0): Debt(T + 1, None)}, [])
    debts.update(changes.put)
    calm = batch((4, Kind.ZSCORE, T + 2, 0.0), (4, Kind.ZSCORE, T + 3, 0.0))
    debts.update(delivered(calm, T + 20, debts).put)
    assert debts == {(4, 0): Debt(T + 1, T + 20)}
    assert not delivered(calm, T + 20 + CALM_MS - 1, debts)
    assert delivered(calm, T + 20 + CALM_MS, debts) == AlertChanges({}, [(4, 0)])


def test_a_new_breach_starts_the_recovery_again() -> None:
    """As on the platform: the last value of a delivery decides whether the recovery runs."""
    debts = {(4, 0): Debt(T, T + 5)}
    assert delivered(batch((4, Kind.ZSCORE, T, 1.5)), T + 9, debts).put == {(4, 0): Debt(T, None)}
    both = batch((4, Kind.ZSCORE, T, 1.5), (4, Kind.ZSCORE, T + 1, 0.0))
    assert delivered(both, T + 99_000, debts).put == {(4, 0): Debt(T, T + 99_000)}


SCORES = st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, 10]), st.sampled_from([0.0, 0.0, 4.0]))


@examples(300)
@given(st.lists(SCORES, max_size=30), st.lists(st.integers(0, 60_000), min_size=1, max_size=6))
def test_many_alerts_are_kept_like_one(points: list[tuple[int, int, float]], waits: list[int]) -> None:
    """Whatever comes together in a delivery: each alert has the debt that it would have by itself."""
    together: dict[tuple[int, int], Debt] = {}
    alone: dict[tuple[int, int], dict[tuple[int, int], Debt]] = {}
    now = T
    for i, wait in enumerate(waits):
        now += wait
        mine = points[i :: len(waits)]
        if not mine:
            continue
        everything = batch(*((s, Kind(k), now + j, v) for j, (s, k, v) in enumerate(mine)))
        settle(together, delivered(everything, now, together))
        for alert in {(s, k) for s, k, _ in mine}:
            own = everything.take((everything.series == alert[0]) & (everything.kind == alert[1]))
            debts = alone.setdefault(alert, {})
            settle(debts, delivered(own, now, debts))
    assert together == {alert: debt for debts in alone.values() for alert, debt in debts.items()}


def settle(debts: dict[tuple[int, int], Debt], changes: AlertChanges) -> None:
    """Put changes into effect."""
    debts.update(changes.put)
    for alert in changes.gone:
        del debts[alert]


@pytest.mark.parametrize("kind", [Kind.ZSCORE_RAW, Kind.ZSCORE_LATE, Kind.EXPECTED, Kind.FLEET_EVENT])
def test_what_nobody_watches_opens_nothing(kind: Kind) -> None:
    """Only the names that monitors watch make a debt or pay one."""
    assert not delivered(batch((4, kind, T, 9.0)), T, {})
    assert not delivered(batch((4, kind, T, 0.0)), T + 99_000, {(4, 0): Debt(T, T)})


def test_owing_is_by_series_and_kind() -> None:
    """A mask of the series that owe zeros of a kind."""
    debts = [(1, Kind.ZSCORE), (2, Kind.FLEET_ZSCORE), (9, Kind.ZSCORE)]
    assert owing(debts, Kind.ZSCORE, 4).tolist() == [False, True, False, False]


def test_zeros_come_only_with_a_sample_of_the_source() -> None:
    """At the time of the newest sample in time, of whatever metric; a silent device gets no sign of life."""
    keys = [SeriesKey("a", "t"), SeriesKey("a", "h"), SeriesKey("b", "t"), SeriesKey("c", "t")]
    late = np.array([False, True, False])
    points = Points(np.array([1, 1, 3]), np.array([50, 90, 70]), np.ones(3), late)
    out = zeros([(0, Kind.ZSCORE), (2, Kind.ZSCORE), (3, Kind.FLEET_ZSCORE)], points, keys)
    assert (out.series.tolist(), out.kind.tolist(), out.t_ms.tolist()) == ([0, 3], [0, 1], [50, 70])
    assert (out.value == 0.0).all()


def test_a_debt_that_nobody_pays_is_forgotten(stopped: FakeClock) -> None:
    """After a week, at the next start: its device has been dead for long."""
    store = Store(":memory:")
    new, old = stopped.t_ms - FORGET_MS + 1, stopped.t_ms - FORGET_MS - 1
    store.change_alerts(AlertChanges({(0, 0): Debt(old), (1, 0): Debt(new)}))
    delivery = Delivery(FakePlatform(), store, [], DeliveryParams(), lambda: stopped.t_ms)  # type: ignore[arg-type]
    assert delivery.debts == store.alerts() == {(1, 0): Debt(new)}


# --- through the platform ---------------------------------------------------------------------------------

MONITOR = {"metric": "temperature.zscore", "threshold": {"max": 3, "severity": "warning"}}


class House:
    """A sandbox with a monitor on one device, and one worker after another over the same state file."""

    def __init__(self, stopped: FakeClock, box: Sandbox) -> None:
        self.stopped, self.box = stopped, box
        self.store = Store(":memory:")
        self.number = 0

    @property
    def now_ms(self) -> int:
        """The time of the next samples."""
        return START_MS + self.number * 1000

    async def live(self, given: Config, n: int, lift: float = 0.0, silent: bool = False) -> None:
        """A worker lives for ``n`` seconds; its end is an ordinary one."""
        async with Client(Endpoints(*[self.box.url] * 3), self.box.key, requests_per_s=1000) as client:
            worker = await open_worker(given, client, self.store)
            for _ in range(n):
                rows = [quiet_room(s, self.now_ms) for s in DEVICES if not (silent and s == "dev-1")]
                rows = [(s, m, t, v + lift * (s == "dev-1")) for s, m, t, v in rows]
                self.box.load(rows)
                self.number += 1
                self.stopped.t_ms = max(self.stopped.t_ms, self.now_ms - 700)
                await worker.tick()
                assert await worker.delivery.deliver_all()
            worker.save()

    def open_alerts(self) -> int:
        """Alerts that are active on the platform."""
        return sum(alert["is_alert_active"] for alert in self.box.alerts())


def play(stopped: FakeClock, body) -> House:
    """Run ``body`` in a house with a quiet past; the detector is the plain one, which has no windows."""
    stopped.t_ms = START_MS + 200
    with Sandbox(Settings(), now_ms=lambda: stopped.t_ms) as box:
        box.load([quiet_room(s, START_MS - 1000 * k) for s in DEVICES for k in range(70, 0, -1)])

        async def inside() -> House:
            house = House(stopped, box)
            async with Client(Endpoints(*[box.url] * 3), box.key) as client:
                await client.create_monitor({"source_id": "dev-1", **MONITOR})
            await body(house)
            house.store.close()
            return house

        return asyncio.run(inside())


PLAIN = {"detect__detector": "zscore", "fleet__enabled": "false"}


@pytest.mark.parametrize(
    "after",
    [
        {"detect__window": "400"},
        {"series": '[{"metrics": ["temperature"], "exclude_sources": ["dev-1"]}]'},
        {"series": '[{"metrics": ["humidity"]}]'},
        {"post__series": '["zscore_raw"]'},
    ],
    ids=["other settings", "source excluded", "metric not wanted", "name not posted"],
)
def test_an_alert_left_open_is_closed_after_the_next_start(stopped: FakeClock, after: dict[str, str]) -> None:
    """A worker ends in the middle of an anomaly; the next one, under settings by which that series has no
    score, is not even wanted, or has no score under that name, posts zeros with its samples until the
    platform has resolved the alert, and then no more."""

    async def body(house: House) -> None:
        await house.live(config(**PLAIN), 6)
        await house.live(config(**PLAIN), 6, lift=8.0)
        assert house.open_alerts() == 1
        assert house.store.alerts().keys() == {(DEVICES.index("dev-1"), Kind.ZSCORE)}
        changed = config(**(PLAIN | {"poll__history": "1m", "detect__min_points": "150"} | after))
        await house.live(changed, 60)
        assert house.open_alerts() == 0
        assert house.store.alerts() == {}
        posted = [r for r in house.box.rows("dev-1", "temperature.zscore") if r.t_ms >= START_MS + 12_000]
        assert 2 <= len(posted) <= 40
        assert {row.value for row in posted} == {0.0}

    play(stopped, body)


def test_a_silent_device_gets_no_zeros(stopped: FakeClock) -> None:
    """While the device is away its alert stays open; nothing of ours pretends that it is alive."""

    async def body(house: House) -> None:
        await house.live(config(**PLAIN), 6)
        await house.live(config(**PLAIN), 6, lift=8.0)
        excluded = PLAIN | {"series": '[{"metrics": ["temperature"], "exclude_sources": ["dev-1"]}]'}
        before = len(house.box.rows("dev-1"))
        await house.live(config(**excluded), 50, silent=True)
        assert len(house.box.rows("dev-1")) == before
        assert house.open_alerts() == 1
        await house.live(config(**excluded), 90)
        assert house.open_alerts() == 0

    play(stopped, body)


def test_the_alerts_of_a_series_that_is_scored_close_by_themselves(stopped: FakeClock) -> None:
    """No zero is posted but for samples, one each, and the debt is paid when the platform resolves."""

    async def body(house: House) -> None:
        await house.live(config(**PLAIN), 6)
        await house.live(config(**PLAIN), 6, lift=8.0)
        await house.live(config(**PLAIN), 60)
        assert house.open_alerts() == 0
        assert house.store.alerts() == {}
        times = [row.t_ms for row in house.box.rows("dev-1", "temperature.zscore")]
        assert times == sorted(set(times))

    play(stopped, body)


def test_a_restart_of_the_alert_engine_is_survived(stopped: FakeClock) -> None:
    """While an anomaly lasts its breaches keep the alert open over a restart, without a second notification
    and without the false "resolved" of the platform's clean-up; one that ended meanwhile is resolved."""

    async def body(house: House) -> None:
        await house.live(config(**PLAIN), 6)
        await house.live(config(**PLAIN), 6, lift=8.0)
        house.box.restart_houston()
        for _ in range(11):
            # A sample every 30 s is enough; the level rises, so that it does not become the normal one.
            house.number += 29
            await house.live(config(**PLAIN), 1, lift=40.0 + house.number)
            house.box.tick()
        titles = [message.event for message in house.box.slack_messages()]
        assert titles == ["alert.triggered"]
        assert house.open_alerts() == 1
        house.box.restart_houston()
        await house.live(config(**PLAIN), 60)
        for _ in range(11):
            house.number += 29
            await house.live(config(**PLAIN), 1)
            house.box.tick()
        assert house.open_alerts() == 0
        assert house.store.alerts() == {}

    play(stopped, body)
