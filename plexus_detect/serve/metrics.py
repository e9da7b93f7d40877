"""What the server did, in the Prometheus text format (version 0.0.4). No label holds an id."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from plexus_detect import clock

# Upper bounds of the buckets, seconds.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

PREFIX = "plexus_detect_serve_"
_METHODS = {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "WEBSOCKET"}


class Histogram:
    """Counts of durations by bucket, their sum and their number."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, s: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BUCKETS_S, s)] += 1
        self.sum_s += s

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """The lines of the text format."""
        total = 0
        for bound, count in zip((*BUCKETS_S, "+Inf"), self.counts, strict=True):
            total += count
            comma = "," if labels else ""
            yield f'{name}_bucket{{{labels}{comma}le="{bound}"}} {total}'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self.sum_s!r}"
        yield f"{name}_count{braces} {total}"


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.started_s = clock.now_ms() / 1000
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.latency: dict[str, Histogram] = defaultdict(Histogram)
        self.fit_s = Histogram()
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
        lines: list[str] = []
        lines += _head("requests_total", "counter", "Requests answered.")
        for (method, route, status), n in sorted(self.requests.items()):
            labels = f'method="{method}",route="{route}",status="{status}"'
            lines.append(f"{PREFIX}requests_total{{{labels}}} {n}")
        lines += _head("request_duration_seconds", "histogram", "Time to answer a request.")
        for route, histogram in sorted(self.latency.items()):
            lines += histogram.lines(f"{PREFIX}request_duration_seconds", f'route="{route}"')
        for name, value, about in (
            ("points_total", self.points, "Rows taken by streaming detectors."),
            ("points_scored_total", self.scored, "Rows that a model scored."),
            ("anomalies_total", self.anomalies, "Rows above their detector's threshold."),
        ):
            lines += [*_head(name, "counter", about), f"{PREFIX}{name} {value}"]
        lines += _head("fits_total", "counter", "Fits by outcome; refused ones did not pass the gate.")
        lines += [
            f'{PREFIX}fits_total{{outcome="{outcome}"}} {n}' for outcome, n in sorted(self.fits.items())
        ]
        lines += _head("fit_duration_seconds", "histogram", "Time from asking for a fit to its end.")
        lines += self.fit_s.lines(f"{PREFIX}fit_duration_seconds", "")
        for name, level in {"start_time_seconds": self.started_s, **now}.items():
            lines += [
                *_head(name, "gauge", name.replace("_", " ").capitalize() + "."),
                f"{PREFIX}{name} {level}",
            ]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP {PREFIX}{name} {about}", f"# TYPE {PREFIX}{name} {kind}"]
