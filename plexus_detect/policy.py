"""From the configuration to the parameters of the pure rooms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from plexus_detect.config import Config, DetectConfig, DetectorConfig, MetricConfig, Span, per_day
from plexus_detect.cursor import PollParams
from plexus_detect.detectors import DetectorParams
from plexus_detect.episode import EpisodeParams
from plexus_detect.errors import ConfigError, ModelError
from plexus_detect.evaluate import Cohort, Policy, Rule
from plexus_detect.fleet import FleetParams
from plexus_detect.groups import GroupRule
from plexus_detect.learn.features import FeatureParams
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.learn.stream import LearnParams
from plexus_detect.learn.windowed import Windowed
from plexus_detect.limits import Limits
from plexus_detect.series import SUFFIX, Kind
from plexus_detect.training.versions import ModelFolder

# How many times further out than the detector's the line is.
LINE_FACTOR = {"low": 1.5, "medium": 1.0, "high": 0.7}

# The detector auto knows what a score far beyond its line is worth; z-scores of heavy-tailed noise do not.
AT_ONCE = {"auto": 2.0}

# What a first start reads of the past at most: of each series, and of all that are new together.
HISTORY_POINTS_MAX, HISTORY_ROWS = 20_000, 500_000

# Points that a window given as a duration may hold at most, but for a larger min_points.
WINDOW_POINTS = 1000

# A model that is fitted anew takes over after this part of the rows until the next fit: time to fit it.
HANDOVER = 0.2

# A model is not used before its rows span this: what a night or a shift looks like is learned by then.
READY_AFTER_MS = 86_400_000

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
        groups=tuple(group_rule(config, group) for group in config.detectors),
    )


def group_rule(config: Config, group: DetectorConfig, *, with_model: bool = True) -> GroupRule:
    """How a group is joined and judged; without its model if that has still to be made.

    Raises ConfigError when its model cannot be used.
    """
    detect = config.detect
    # What at_once: auto is about, a score that says by itself how sure it is, holds for no model of the past.
    at_once = 0.0 if detect.at_once == "auto" else detect.at_once
    given, windowed, model_hash = _made(config, group) if with_model else (None, None, "")
    sensitivity = LINE_FACTOR[group.sensitivity]
    return GroupRule(
        name=group.name,
        metrics=group.metrics,
        sources=group.sources,
        shared=group.scope == "cohort" and group.kind != "autoencoder",
        learn=LearnParams(
            backend=group.backend if given is None else given.backend,
            min_samples=group.min_samples,
            retrain_interval=group.retrain_interval,
            window_size=group.window_size,
            contamination=group.contamination,
            rolling=group.rolling,
            lags=group.lags,
            handover=max(1, int(HANDOVER * group.retrain_interval)),
            given=given,
            blame_from=min(1.0, sensitivity),
            learn_every_ms=group.span_ms // group.window_size,
            ready_after_ms=min(group.span_ms, READY_AFTER_MS),
        ),
        align_ms=group.align_ms,
        episode=EpisodeParams(detect.threshold, detect.consecutive, detect.of, detect.close_after, at_once),
        sensitivity=sensitivity,
        windowed=windowed,
        model_hash=model_hash,
    )


def _made(config: Config, group: DetectorConfig) -> tuple[OnnxModel | None, Windowed | None, str]:
    """The models of a group that were made before, and what a snapshot must agree with of them. Raises
    ConfigError."""
    if group.kind == "autoencoder":
        windowed = _windowed(config.models, group)
        return None, windowed, f"windowed {group.level}"
    given = _given(group)
    return given, None, "" if given is None else given.fingerprint


def _windowed(models: Path, group: DetectorConfig) -> Windowed:
    """The autoencoders of a group, as the command train left them. Raises ConfigError."""
    try:
        windowed = Windowed.of(ModelFolder(models).arrays(group.name), group.metrics)
    except ModelError as error:
        raise ConfigError(
            f"detectors: the model of {group.name} cannot be used: {error}; make one with: train {group.name}"
        ) from None
    return replace(windowed, params=replace(windowed.params, threshold=group.level))


def _given(group: DetectorConfig) -> OnnxModel | None:
    """The model of a file, checked against the card beside it; None for a group that learns its own.

    Raises ConfigError.
    """
    if group.model is None:
        return None
    columns = FeatureParams(group.rolling, group.lags).names(group.metrics)
    try:
        data = group.model.read_bytes()
        card = json.loads(group.model.with_suffix(".json").read_text("utf-8"))
        return OnnxModel.load(data, card if isinstance(card, dict) else {}, columns)
    except (OSError, ValueError, ModelError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or group.model
        raise ConfigError(f"detectors: the model of {group.name} cannot be used: {where}: {reason}") from None


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
    windows += [group.window_size for group in config.detectors]
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
