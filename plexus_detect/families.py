"""Numbers as metric families of prometheus_client: what both the worker and the streaming API export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from plexus_detect.histogram import Histogram

# One number, or one for each value of the label (for each row of values of several labels).
Values = float | Mapping[str, int] | Mapping[str, float] | Mapping[tuple[str, ...], int]


class Families(Collector):
    """Families that are ready, for a registry to hand on."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield from self._families


def counter(name: str, about: str, values: Values, *labels: str) -> Metric:
    """What only grows; ``_total`` is put behind the name."""
    family = CounterMetricFamily(name, about, labels=labels)
    for row, n in _rows(values, labels):
        family.add_metric(row, n)
    return family


def gauge(name: str, about: str, values: Values, *labels: str) -> Metric:
    """How something stands now."""
    family = GaugeMetricFamily(name, about, labels=labels)
    for row, n in _rows(values, labels):
        family.add_metric(row, n)
    return family


def histogram(name: str, about: str, values: Histogram | Mapping[str, Histogram], *labels: str) -> Metric:
    """Durations by bucket."""
    family = HistogramMetricFamily(name, about, labels=labels)
    for value, durations in values.items() if isinstance(values, Mapping) else [("", values)]:
        family.add_metric([value] if labels else [], durations.buckets(), durations.sum_s)
    return family


def _rows(values: Values, labels: tuple[str, ...]) -> Iterator[tuple[list[str], float]]:
    if not isinstance(values, Mapping):
        yield [], float(values)
        return
    for key, n in values.items():
        yield [] if not labels else list(key) if isinstance(key, tuple) else [key], float(n)
