"""What the server did, in the Prometheus text format (version 0.0.4). No label holds an id."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from plexus_detect import clock
from plexus_detect.families import Families, counter, gauge, histogram
from plexus_detect.histogram import Histogram

# Upper bounds of the buckets, seconds.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

PREFIX = "plexus_detect_serve_"
_METHODS = {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "WEBSOCKET"}


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.started_s = clock.now_ms() / 1000
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.latency: dict[str, Histogram] = defaultdict(lambda: Histogram(BUCKETS_S))
        self.fit_s = Histogram(BUCKETS_S)
        self.fits: Counter[str] = Counter({"ok": 0, "failed": 0, "refused": 0})
        self.points = 0
        self.scored = 0
        self.anomalies = 0

    def request(self, method: str, route: str, status: int, s: float) -> None:
        """Count a request; ``route`` is a path with the names of its parameters."""
        self.requests[(method if method in _METHODS else "other", route, status)] += 1
        self.latency[route].add(s)

    def text(self, now: Mapping[str, float]) -> str:
        """Everything, and the gauges ``now``."""
        registry = CollectorRegistry()
        registry.register(Families(self._families(now)))
        return generate_latest(registry).decode()

    def _families(self, now: Mapping[str, float]) -> Iterator[Metric]:
        requests: dict[tuple[str, ...], int] = {
            (method, route, str(status)): n for (method, route, status), n in self.requests.items()
        }
        words = ("method", "route", "status")
        yield counter(f"{PREFIX}requests", "Requests answered.", requests, *words)
        name = f"{PREFIX}request_duration_seconds"
        yield histogram(name, "Time to answer a request.", self.latency, "route")
        yield counter(f"{PREFIX}points", "Rows taken by streaming detectors.", self.points)
        yield counter(f"{PREFIX}points_scored", "Rows that a model scored.", self.scored)
        yield counter(f"{PREFIX}anomalies", "Rows above their detector's threshold.", self.anomalies)
        about = "Fits by outcome; refused ones did not pass the gate."
        yield counter(f"{PREFIX}fits", about, self.fits, "outcome")
        name = f"{PREFIX}fit_duration_seconds"
        yield histogram(name, "Time from asking for a fit to its end.", self.fit_s)
        for name, level in {"start_time_seconds": self.started_s, **now}.items():
            yield gauge(PREFIX + name, name.replace("_", " ").capitalize() + ".", level)
