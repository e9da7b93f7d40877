"""The worker's figures for Prometheus. The logic counts nothing: reports and vitals are turned into metrics.

No label holds the name of a device or of anything else that there can be any number of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from plexus_detect import __version__, clock
from plexus_detect.bucket import RetryBudget
from plexus_detect.families import counter, gauge, histogram
from plexus_detect.histogram import Histogram
from plexus_detect.report import Standing, TickReport, Verdict
from plexus_detect.vitals import CHECKS, Vitals, liveness, readiness

PREFIX = "plexus_detect_"

POLL_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)

# Statuses that have a label of their own; that of all others, and of those to come, is "other".
CODES = (
    *("none", "200", "201", "204", "400", "401", "402", "403", "404", "408", "409", "413", "422", "425"),
    *("429", "500", "502", "503", "504"),
)

# Metric, its label ("" for none), what it says, and the field of a tick's report behind each label's value.
_OF_TICKS: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("rows_read", "", "Rows received from the platform.", {"": "rows"}),
    ("points_read", "", "New samples among the rows.", {"": "points"}),
    ("points_deduplicated", "", "Rows that were known already.", {"": "repeats"}),
    ("points_late", "", "Samples that came after newer ones and were scored all the same.", {"": "late"}),
    (
        "points_revised",
        "",
        "Other values of samples that were known, scored too.",
        {"": "revised"},
    ),
    (
        "points_dropped",
        "reason",
        "Rows that were left out.",
        {"unusable": "unusable", "not_selected": "foreign"},
    ),
    ("points_scored", "", "Samples with a score against their own past.", {"": "scored"}),
    (
        "points_unscored",
        "reason",
        "Samples without a score, against their own past or (fleet_) against the others.",
        {
            "warming": "warming",
            "flat": "flat",
            "stale": "stale",
            "not_a_number": "not_a_number",
            "fleet_warming": "fleet_warming",
            "fleet_small": "group_small",
        },
    ),
    ("scores_made", "", "Scores put into the outbox.", {"": "derived"}),
    ("outbox_dropped", "", "Scores dropped because the outbox was full.", {"": "dropped"}),
    ("answers_cut_off", "", "Answers that stayed incomplete.", {"": "cut_off"}),
    ("episodes_opened", "", "Anomalies that began.", {"": "opened"}),
    ("episodes_closed", "", "Anomalies that ended.", {"": "closed"}),
)

# Metric, what it says, and the field of the totals of the delivery loop.
_OF_DELIVERY = (
    ("delivery_posts", "Posts that the gateway accepted.", "posts"),
    ("delivery_errors", "Deliveries that failed; they are tried again.", "errors"),
    ("scores_posted", "Scores that the gateway accepted.", "posted"),
    ("scores_expired", "Scores not posted because they had become too old to alert.", "expired"),
    ("scores_uncertain", "Scores whose post had an unknown outcome; they were read back.", "uncertain"),
    ("scores_found_stored", "Scores found stored when they were read back.", "found_stored"),
    ("scores_resent", "Scores posted again because they were not found.", "resent"),
    ("scores_rejected", "Scores that the gateway refused for good.", "rejected"),
)

_DURATIONS = {
    "poll_duration_seconds": "A whole poll: reading, scoring, recording.",
    "fetch_duration_seconds": "The part of a poll that waits for the platform's answers.",
    "score_duration_seconds": "The part of a poll that scores.",
    "commit_duration_seconds": "The part of a poll that records samples and scores.",
}


class Traffic(Protocol):
    """What a client counts: see ``client.Client``."""

    answers: Counter[str]
    waited_s: float


class Meters(Collector):
    """Everything that is measured of one worker, in a registry of its own."""

    def __init__(self, vitals: Vitals) -> None:
        self.registry = CollectorRegistry()
        self._vitals = vitals
        self._totals: Counter[str] = Counter()
        self._failed_queries = 0
        self._durations = {name: Histogram(POLL_BOUNDS_S) for name in _DURATIONS}
        self._lag_ms: int | None = None
        self._standing: Standing | None = None
        self._traffic: Traffic | None = None
        self._budget: RetryBudget | None = None
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def attach(self, traffic: Traffic, budget: RetryBudget) -> None:
        """Look at the counters of a client and of its retries, too."""
        self._traffic, self._budget = traffic, budget

    def absorb(self, report: TickReport) -> None:
        """Add a poll."""
        for *_words, fields in _OF_TICKS:
            for field in fields.values():
                self._totals[field] += getattr(report, field)
        self._failed_queries += len(report.errors)
        durations = (report.dur_ms, report.fetch_ms, report.score_ms, report.commit_ms)
        for taken, ms in zip(self._durations.values(), durations, strict=True):
            taken.add(ms / 1000)
        self._lag_ms = self._lag_ms if report.lag_ms is None else report.lag_ms
        self._standing = report.standing or self._standing

    def collect(self) -> Iterator[Metric]:
        """Every metric as it stands now; called by the registry, in whatever thread asks."""
        yield from self._of_the_process()
        yield from self._of_polls()
        yield from self._of_series()
        yield from self._of_scores()
        yield from self._of_requests()
        yield from self._of_health()

    def _of_the_process(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield gauge(f"{PREFIX}build_info", "The program; always 1.", {__version__: 1}, "version")
        yield gauge(f"{PREFIX}start_time_seconds", "When the worker was started.", vitals.started_ms / 1000)
        about = "Whether the newest settings are in force: 0 after a reload that failed."
        yield gauge(f"{PREFIX}config_last_reload_successful", about, vitals.config_ok)
        about = "When settings were last taken over."
        yield gauge(f"{PREFIX}config_last_reload_timestamp_seconds", about, vitals.config_reloaded_ms / 1000)
        yield gauge(f"{PREFIX}lock_held", "Whether the lock of the state file is held.", vitals.lock_held)
        yield gauge(f"{PREFIX}state_bytes", "Size of the state file with its log.", vitals.state_bytes)
        about = "When the last snapshot of the detectors was written."
        yield from _known("last_checkpoint_timestamp_seconds", about, vitals.saved_ms)

    def _of_polls(self) -> Iterator[Metric]:
        vitals = self._vitals
        polls = {"ok": vitals.ticks - vitals.ticks_failed, "failed": vitals.ticks_failed}
        about = "Polls; failed ones had a failed query, or the platform was ill."
        yield counter(f"{PREFIX}polls", about, polls, "outcome")
        yield counter(
            f"{PREFIX}queries_failed", "Queries that failed after all retries.", self._failed_queries
        )
        yield gauge(
            f"{PREFIX}poll_interval_seconds", "Time between two polls, as set.", vitals.interval_ms / 1000
        )
        about = "When a poll last succeeded."
        yield from _known("poll_last_success_timestamp_seconds", about, vitals.last_ok_ms)
        about = "Age of the newest new sample at the end of its poll."
        yield from _known("poll_lag_seconds", about, self._lag_ms)
        for name, about in _DURATIONS.items():
            yield histogram(PREFIX + name, about, self._durations[name])
        if vitals.fits is not None:
            about = "From asking for a fit of a learned detector to its end."
            yield histogram(f"{PREFIX}fit_duration_seconds", about, vitals.fits)
        if vitals.trainings is not None:
            about = "Models trained on a schedule: deployed, refused as not comparable, or failed."
            yield counter(f"{PREFIX}model_trainings", about, dict(vitals.trainings), "result")
        learned_ms = vitals.learned_ms
        about = "Age of the newest sample that the oldest model in use has learned."
        age_ms = None if learned_ms is None else max(0, clock.now_ms() - learned_ms)
        yield from _known("model_age_seconds", about, age_ms)
        about = "From the time of a sample to the post of its score being accepted."
        yield histogram(f"{PREFIX}event_to_score_seconds", about, vitals.delivery.event_to_score)
        for name, label, about, fields in _OF_TICKS:
            yield counter(
                PREFIX + name,
                about,
                {value: self._totals[f] for value, f in fields.items()},
                *filter(None, [label]),
            )

    def _of_series(self) -> Iterator[Metric]:
        vitals, standing = self._vitals, self._standing
        yield gauge(f"{PREFIX}series_max", "Series that are watched at most.", vitals.series_max)
        about = "Series refused because there were too many."
        yield counter(f"{PREFIX}series_refused", about, vitals.series_refused)
        about = "Series forgotten because they sent nothing for long."
        yield counter(f"{PREFIX}series_expired", about, vitals.series_expired)
        if standing is not None:
            about = "Watched series: with a score, without one yet, judged in groups only, or silent."
            yield gauge(f"{PREFIX}series", about, standing.series, "state")
            yield gauge(
                f"{PREFIX}episodes_open",
                "Open anomalies by what they are against.",
                standing.episodes,
                "against",
            )
            about = "How far behind now the furthest cursor is; it grows while no answer brings a sample."
            yield from _known("cursor_age_seconds", about, standing.cursor_age_ms)

    def _of_scores(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield gauge(f"{PREFIX}outbox_depth", "Scores waiting for delivery.", vitals.outbox_points)
        yield gauge(f"{PREFIX}outbox_max", "Scores that may wait.", vitals.outbox_max)
        for name, about, field in _OF_DELIVERY:
            yield counter(PREFIX + name, about, getattr(vitals.delivery, field))
        failing_s = vitals.delivery.failing_since_s
        about = "How long every delivery has been failing; 0: the last one did not."
        yield gauge(
            f"{PREFIX}delivery_failing_seconds", about, clock.monotonic_s() - failing_s if failing_s else 0
        )

    def _of_requests(self) -> Iterator[Metric]:
        if self._traffic is not None:
            answers = Counter(dict.fromkeys([*CODES, "other"], 0))
            for code, n in list(self._traffic.answers.items()):
                answers[code if code in CODES else "other"] += n
            yield counter(f"{PREFIX}http_requests", "Requests by status; none: no answer.", answers, "code")
            about = "Time that requests waited because of plexus.requests_per_s."
            yield counter(f"{PREFIX}ratelimit_wait_seconds", about, self._traffic.waited_s)
        if self._budget is not None:
            yield counter(f"{PREFIX}retries", "Requests made again.", self._budget.retries)
            about = "Requests not made again because too many had been."
            yield counter(f"{PREFIX}retries_refused", about, self._budget.refused)

    def _of_health(self) -> Iterator[Metric]:
        vitals, now_s = self._vitals, clock.monotonic_s()
        found: dict[str, float] = {verdict: float(verdict == vitals.verdict) for verdict in Verdict}
        yield gauge(
            f"{PREFIX}platform_verdict", "What the last poll found: 1 for one of them.", found, "verdict"
        )
        troubles = {trouble.check for trouble in readiness(vitals, now_s)}
        yield gauge(f"{PREFIX}live", "Whether /livez says yes.", not liveness(vitals, now_s))
        yield gauge(f"{PREFIX}ready", "Whether /readyz says yes.", not troubles)
        about = "Why /readyz says no: 1 for each check that fails."
        yield gauge(f"{PREFIX}trouble", about, {check: float(check in troubles) for check in CHECKS}, "check")
        beat_ms = vitals.heartbeat_ms
        age_ms = None if beat_ms is None else max(0, clock.now_ms() - beat_ms)
        yield from _known("heartbeat_age_seconds", "Time since the last posted sign of life.", age_ms)


def _known(name: str, about: str, ms: int | None) -> Iterator[Metric]:
    """A time in seconds, once there is one: a gauge that says 0 for "never" would be believed."""
    if ms is not None:
        yield gauge(PREFIX + name, about, ms / 1000)
