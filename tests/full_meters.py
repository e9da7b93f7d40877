"""The figures of a worker that has done everything once, so that no metric is missing."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from plexus_detect import clock
from plexus_detect.bucket import RetryBudget
from plexus_detect.families import Families
from plexus_detect.histogram import Histogram
from plexus_detect.meters import Meters
from plexus_detect.monitors.manifest import LastRun
from plexus_detect.provision.figures import figures
from plexus_detect.report import Standing, TickReport
from plexus_detect.training.trainer import FIT_BOUNDS_S
from plexus_detect.vitals import Vitals


def full_meters() -> Meters:
    """A worker that has polled, posted, saved and given its sign of life; monitors were applied."""
    vitals = Vitals(5000, 1000, 100, state_open=True, lock_held=True)
    vitals.started(clock.monotonic_s(), clock.now_ms())
    vitals.fits = Histogram(FIT_BOUNDS_S)
    vitals.trainings, vitals.learned_ms = {"deployed": 1, "refused": 0, "failed": 0}, clock.now_ms()
    vitals.saved_ms = vitals.heartbeat_ms = clock.now_ms()
    series = {"scored": 5, "warming": 1, "grouped": 0, "silent": 1}
    stands = Standing(series, {"own_past": 1, "fleet": 0, "group": 0}, 1500)
    report = TickReport(points=5, dur_ms=40, lag_ms=700, series=7, standing=stands)
    vitals.ticked(report, clock.monotonic_s(), clock.now_ms())
    meters = Meters(vitals)
    meters.absorb(report)
    meters.attach(SimpleNamespace(answers=Counter({"200": 2}), waited_s=0.0), RetryBudget())
    run = LastRun("2026-11-27T10:00:00Z", 4, 3, 1, 1)
    meters.registry.register(Families(figures(run)))
    return meters


def samples() -> dict[str, list[dict[str, str]]]:
    """Every sample's name with the labels it has."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in full_meters().registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found
