"""outbox: batches in order, and nothing counted as delivered that is not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from plexus_detect import outbox
from plexus_detect.series import SUFFIX, Derived, Kind, Points, SeriesKey, SeriesTable

T0 = 1_700_000_000_000
KEYS = [
    SeriesKey("device-1", "temperature"),
    SeriesKey("device-2", "temperature"),
    SeriesKey("device-1", "rh"),
]


def derived(*points: tuple[int, Kind, int, float]) -> Derived:
    """Derived points of (series, kind, milliseconds after T0, value)."""
    columns = list(zip(*points, strict=True)) or [[], [], [], []]
    return Derived(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int8),
        T0 + np.array(columns[2], np.int64),
        np.array(columns[3], np.float64),
    )


def test_batches_are_in_order_of_time_and_bounded() -> None:
    """Every point is in one batch, none is larger than the limit, and time never runs back."""
    rng = np.random.default_rng(1)
    n = 2500
    many = Derived(
        rng.integers(0, 3, n),
        rng.integers(0, 4, n).astype(np.int8),
        T0 + rng.integers(0, 60_000, n),
        np.arange(n, dtype=np.float64),
    )
    batches = outbox.pack(many, 1000)
    assert [len(b) for b in batches] == [1000, 1000, 500]
    whole = Derived.concat(batches)
    assert (np.diff(whole.t_ms) >= 0).all()
    assert sorted(whole.value.tolist()) == many.value.tolist()
    for name in ("series", "kind", "t_ms"):
        assert np.array_equal(getattr(whole, name), getattr(many, name)[whole.value.astype(np.int64)])


def test_nothing_makes_no_batch() -> None:
    """No points: no batch, no names."""
    assert outbox.pack(Derived.empty(), 10) == []
    assert outbox.names(Derived.empty(), KEYS) == ([], [])
    assert outbox.derived_metrics(Derived.empty(), KEYS) == []


def test_the_order_of_ties_is_that_of_evaluation() -> None:
    """Points of one millisecond keep their order, so that a rerun makes the same batches."""
    tied = derived((1, Kind.ZSCORE, 5, 1.0), (0, Kind.ZSCORE, 5, 2.0), (1, Kind.FLEET_ZSCORE, 5, 3.0))
    assert outbox.pack(tied, 10)[0].value.tolist() == [1.0, 2.0, 3.0]


def test_age_is_measured_at_the_sample() -> None:
    """A score of a sample older than the limit goes under the name of late ones, or is left out; exactly at
    the limit it is in time. Other kinds of old points are left out, and what is late stays."""
    points = derived((0, Kind.ZSCORE, 0, 1.0), (0, Kind.ZSCORE, 1, 2.0), (0, Kind.ZSCORE, 200_000, 3.0))
    kept = outbox.in_time(points, T0 + 120_001, 120_000, keep=True)
    assert kept.kind.tolist() == [Kind.ZSCORE_LATE, Kind.ZSCORE, Kind.ZSCORE]
    assert kept.value.tolist() == [1.0, 2.0, 3.0]
    assert outbox.in_time(points, T0 + 120_001, 120_000, keep=False).value.tolist() == [2.0, 3.0]
    assert outbox.in_time(kept, T0 + 120_001, 120_000, keep=True) is kept
    others = derived((0, Kind.FLEET_ZSCORE, 0, 1.0), (0, Kind.ZSCORE_RAW, 0, 2.0), (0, Kind.ANOMALY, 0, 3.0))
    assert len(outbox.in_time(others, T0 + 120_001, 120_000, keep=True)) == 0


def test_names_are_those_of_the_metric_and_the_kind() -> None:
    """Each kind has its own suffix on the metric; the source is that of the samples."""
    points = derived(*((i, kind, 0, 0.0) for kind in Kind for i in range(3)))
    sources, metrics = outbox.names(points, KEYS)
    assert sources == ["device-1", "device-2", "device-1"] * len(Kind)
    assert metrics == [key.metric + SUFFIX[kind] for kind in Kind for key in KEYS]
    assert outbox.derived_metrics(points, KEYS) == sorted(set(metrics))


def test_a_body_says_source_metric_value_and_time() -> None:
    """The body of a post holds every point with its own source, as a float, at the sample's time."""
    body = outbox.body(derived((1, Kind.ZSCORE, 7, 0.0), (2, Kind.FLEET_ZSCORE, 8, 4.5)), KEYS)
    assert msgspec.json.decode(body) == {
        "points": [
            {"source_id": "device-2", "metric": "temperature.zscore", "value": 0.0, "timestamp": T0 + 7},
            {"source_id": "device-1", "metric": "rh.fleet_zscore", "value": 4.5, "timestamp": T0 + 8},
        ]
    }
    assert b'"value":0.0' in body


@pytest.mark.parametrize(("accepted", "settled", "short"), [(10, True, 0), (9, False, 1), (0, False, 10)])
def test_a_short_count_is_not_settled(accepted: int, settled: bool, short: int) -> None:
    """Success with a smaller count means that something was dropped: the platform has to be asked."""
    verdict = outbox.judge(10, accepted)
    assert (verdict.settled, verdict.short) == (settled, short)


def test_missing_are_those_the_platform_does_not_have() -> None:
    """By source, metric and time: another source's point, another millisecond or another kind is not it."""
    points = derived((0, Kind.ZSCORE, 5, 1.0), (1, Kind.ZSCORE, 5, 1.0), (0, Kind.FLEET_ZSCORE, 5, 1.0))
    table = SeriesTable()
    series = [
        table.add("device-2", "temperature.zscore"),
        table.add("device-1", "temperature.zscore"),
        table.add("device-1", "temperature.fleet_zscore"),
    ]
    stored = Points(np.array(series), T0 + np.array([5, 6, 5]), np.zeros(3))
    assert outbox.missing(points, KEYS, stored, table).tolist() == [True, False, False]
    assert outbox.missing(points, KEYS, Points.empty(), SeriesTable()).all()
