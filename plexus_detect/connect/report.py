"""What a stream worker counts, for its log line and for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from plexus_detect.families import counter, gauge, histogram
from plexus_detect.histogram import Histogram
from plexus_detect.stream.engine import Output
from plexus_detect.stream.rejects import SENTENCES

PREFIX = "plexus_detect_stream_"

RECOVERY_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# From the broker's time of a message to its results being acknowledged.
DELAY_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
BATCH_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


@dataclass
class StreamReport:
    """Totals since the start, and how things stand. ``lags`` in messages by partition, ``trouble`` what keeps
    the worker from its job, ``replaying`` how many partitions are not yet where they were committed."""

    messages: int = 0
    replayed: int = 0
    batches: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    aborted: int = 0
    undelivered: int = 0
    rebalances: Counter[str] = field(default_factory=Counter)
    snapshots: int = 0
    snapshot_bytes: int = 0
    lags: Mapping[int, int] = field(default_factory=dict)
    partitions: int = 0
    replaying: int = 0
    series: int = 0
    trouble: str = ""
    recovery: Histogram = field(default_factory=lambda: Histogram(RECOVERY_BOUNDS_S))
    delay: Histogram = field(default_factory=lambda: Histogram(DELAY_BOUNDS_S))
    scoring: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS_S))
    delivering: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS_S))

    def scored(self, output: Output) -> None:
        """Add what came of live messages."""
        self.messages += output.counts["messages"]
        self.counts.update(output.counts)
        self.rejects.update(reject.reason for reject in output.rejected)
        self.alerts.update(alert.severity for alert in output.alerts)

    def line(self) -> dict[str, int]:
        """The totals for a line of the log."""
        return {
            "messages": self.messages,
            "batches": self.batches,
            "points": self.counts["points"],
            "late": self.counts["late"],
            "repeats": self.counts["repeats"],
            "rejected": self.rejects.total(),
            "alerts": self.alerts.total(),
            "partitions": self.partitions,
            "replaying": self.replaying,
            "series": self.series,
            "lag": sum(self.lags.values()),
            "lag_max": max(self.lags.values(), default=0),
            "aborted": self.aborted,
        }


class StreamMeters(Collector):
    """The report as metrics; no label holds a name of a device."""

    def __init__(self, report: StreamReport) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        """Every metric as it stands now."""
        r = self._report
        yield counter(f"{PREFIX}messages", "Messages that were scored.", r.messages)
        about = "Messages that were read again to find the state as it was."
        yield counter(f"{PREFIX}messages_replayed", about, r.replayed)
        yield counter(f"{PREFIX}batches", "Batches whose results are acknowledged.", r.batches)
        yield counter(f"{PREFIX}points", "New samples in the messages.", r.counts["points"])
        yield counter(f"{PREFIX}points_late", "Samples that came after newer ones.", r.counts["late"])
        yield counter(f"{PREFIX}points_repeated", "Samples that were known already.", r.counts["repeats"])
        rejects = {reason: r.rejects[reason] for reason in SENTENCES}
        yield counter(f"{PREFIX}rejects", "Messages set aside, by reason.", rejects, "reason")
        alerts = {severity: r.alerts[severity] for severity in ("warning", "critical")}
        yield counter(f"{PREFIX}alerts", "Alerts, by severity.", alerts, "severity")
        about = "Alerts that were not told, within a cool-down."
        yield counter(f"{PREFIX}alerts_suppressed", about, r.counts["suppressed"])
        yield counter(f"{PREFIX}transactions_aborted", "Transactions that did not come about.", r.aborted)
        about = "Deliveries that failed and were tried again."
        yield counter(f"{PREFIX}deliveries_failed", about, r.undelivered)
        moves = {what: r.rebalances[what] for what in ("assigned", "revoked", "lost")}
        yield counter(f"{PREFIX}partitions_moved", "Partitions that came or went.", moves, "what")
        yield counter(f"{PREFIX}snapshots", "States of partitions that were kept.", r.snapshots)
        yield gauge(f"{PREFIX}snapshot_bytes", "Size of the last of them.", r.snapshot_bytes)
        yield gauge(f"{PREFIX}partitions", "Partitions of this worker.", r.partitions)
        about = "Partitions that are not yet where they were committed."
        yield gauge(f"{PREFIX}partitions_replaying", about, r.replaying)
        lags = {"sum": sum(r.lags.values()), "max": max(r.lags.values(), default=0)}
        yield gauge(f"{PREFIX}lag_messages", "Messages behind the ends of its partitions.", lags, "of")
        about = "From the assignment of a partition until it is where it was committed."
        yield histogram(f"{PREFIX}recovery_seconds", about, r.recovery)
        about = "From the broker's time of a message until its results are acknowledged."
        yield histogram(f"{PREFIX}delay_seconds", about, r.delay)
        yield histogram(f"{PREFIX}score_seconds", "Scoring a batch.", r.scoring)
        yield histogram(f"{PREFIX}deliver_seconds", "Delivering a batch.", r.delivering)
