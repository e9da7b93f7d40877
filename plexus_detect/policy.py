"""From the configuration to the parameters of the pure rooms."""

from __future__ import annotations

from plexus_detect.config import Config, DetectConfig, MetricConfig, Span, per_day
from plexus_detect.cursor import PollParams
from plexus_detect.detectors import DetectorParams
from plexus_detect.episode import EpisodeParams
from plexus_detect.evaluate import Cohort, Policy, Rule
from plexus_detect.fleet import FleetParams
from plexus_detect.limits import Limits
from plexus_detect.series import SUFFIX, Kind

# How many times further out than the detector's the line is.
LINE_FACTOR = {"low": 1.5, "medium": 1.0, "high": 0.7}

# The detector auto knows what a score far beyond its line is worth; z-scores of heavy-tailed noise do not.
AT_ONCE = {"auto": 2.0}

# What a first start reads of the past at most: of each series, and of all that are new together.
HISTORY_POINTS_MAX, HISTORY_ROWS = 20_000, 500_000

# Points that a window given as a duration may hold at most, but for a larger min_points.
WINDOW_POINTS = 1000

_DIRECTION = {"both": 0, "up": 1, "down": -1}
_KIND_OF = {suffix.removeprefix("."): kind for kind, suffix in SUFFIX.items()}


def policy_of(config: Config) -> Policy:
    """One rule for each entry of ``series``, with its overrides applied."""
    rules = tuple(_rule(config, index) for index in range(len(config.series)))
    kinds: frozenset[Kind] = frozenset(_KIND_OF[name] for name in config.post.series)
    budget = config.detect.alert_budget
    return Policy(
        rules,
        kinds,
        config.fleet.settle_ms,
        limits=tuple((glob, _limits(metric)) for glob, metric in config.metrics.items()),
        cohorts=tuple(Cohort(cohort.name, cohort.sources) for cohort in config.fleet.cohorts),
        rest=config.fleet.rest,
        alerts_per_day=None if budget is None else per_day(budget),
    )


def _limits(metric: MetricConfig) -> Limits:
    return Limits(_DIRECTION[metric.direction], metric.min_abs, metric.min_rel, *metric.bounds)


def _window(detect: DetectConfig) -> tuple[int, int | None]:
    """The window in points, and in milliseconds where it is a duration; its points are then the most."""
    if isinstance(detect.window, Span):
        return max(WINDOW_POINTS, detect.min_points), detect.window.ms
    return detect.window, None


def _rule(config: Config, index: int) -> Rule:
    detect, fleet = config.detect_for(index), config.fleet
    with_fleet = fleet.enabled and config.series[index].fleet
    window, window_ms = _window(detect)
    at_once = AT_ONCE.get(detect.detector, 0.0) if detect.at_once == "auto" else detect.at_once
    return Rule(
        name=config.series[index].name,
        detector=detect.detector,
        params=DetectorParams(
            threshold=detect.threshold,
            window=window,
            min_points=detect.min_points,
            scale_floor=detect.scale_floor,
            relearn_ms=detect.relearn_after_ms,
            close_after=detect.close_after,
            window_ms=window_ms,
            timezone=detect.timezone,
        ),
        episode=EpisodeParams(detect.threshold, detect.consecutive, detect.of, detect.close_after, at_once),
        fleet=FleetParams(
            threshold=fleet.threshold,
            group_min=fleet.group_min,
            min_points=fleet.min_points,
            offset_window=fleet.offset_window,
            bucket_ms=fleet.bucket_ms,
            stale_ms=fleet.stale_after_ms,
            scale_floor=fleet.scale_floor,
            relearn_ms=fleet.relearn_after_ms,
            close_after=fleet.close_after,
        )
        if with_fleet
        else None,
        fleet_episode=EpisodeParams(fleet.threshold, fleet.consecutive, fleet.of, fleet.close_after),
        sensitivity=LINE_FACTOR[detect.sensitivity],
        fleet_sensitivity=LINE_FACTOR[fleet.sensitivity],
    )


def poll_params(config: Config) -> PollParams:
    """How the cursors plan and read."""
    windows = [_window(config.detect_for(index))[0] for index in range(len(config.series))]
    return PollParams(
        overlap_ms=config.poll.overlap_ms,
        settle_ms=config.poll.settle_ms,
        catchup_ms_max=config.poll.catchup_max_ms,
        limit=config.poll.limit,
        pages_max=config.poll.pages_max,
        history_ms=config.poll.history_ms,
        # A tenth more than the window, so that flagged points left out of it do not leave it short.
        history_points=max(windows) * 11 // 10 + 1,
        # The season of a series and the lines of its checks are learned over days, not over a window.
        history_points_max=HISTORY_POINTS_MAX,
        history_rows=HISTORY_ROWS,
    )
