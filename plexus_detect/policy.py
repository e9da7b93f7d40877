"""From the configuration to the parameters of the pure rooms."""

from __future__ import annotations

from plexus_detect.config import Config
from plexus_detect.cursor import PollParams
from plexus_detect.detectors import DetectorParams
from plexus_detect.episode import EpisodeParams
from plexus_detect.evaluate import Policy, Rule
from plexus_detect.fleet import FleetParams
from plexus_detect.series import SUFFIX, Kind

_KIND_OF = {suffix.removeprefix("."): kind for kind, suffix in SUFFIX.items()}


def policy_of(config: Config) -> Policy:
    """One rule for each entry of ``series``, with its overrides applied."""
    rules = tuple(_rule(config, index) for index in range(len(config.series)))
    kinds: frozenset[Kind] = frozenset(_KIND_OF[name] for name in config.post.series)
    return Policy(rules, kinds, config.fleet.settle_ms)


def _rule(config: Config, index: int) -> Rule:
    detect, fleet = config.detect_for(index), config.fleet
    with_fleet = fleet.enabled and config.series[index].fleet
    return Rule(
        name=config.series[index].name,
        params=DetectorParams(
            threshold=detect.threshold,
            window=detect.window,
            min_points=detect.min_points,
            scale_floor=detect.scale_floor,
            relearn_ms=detect.relearn_after_ms,
            close_after=detect.close_after,
        ),
        episode=EpisodeParams(detect.threshold, detect.consecutive, detect.of, detect.close_after),
        fleet=FleetParams(
            threshold=fleet.threshold,
            group_min=fleet.group_min,
            min_points=fleet.min_points,
            offset_window=fleet.offset_window,
            bucket_ms=fleet.bucket_ms,
            stale_ms=fleet.stale_after_ms,
            scale_floor=fleet.scale_floor,
            relearn_ms=detect.relearn_after_ms,
            close_after=fleet.close_after,
        )
        if with_fleet
        else None,
        fleet_episode=EpisodeParams(fleet.threshold, fleet.consecutive, fleet.of, fleet.close_after),
    )


def poll_params(config: Config) -> PollParams:
    """How the cursors plan and read."""
    windows = [config.detect_for(index).window for index in range(len(config.series))]
    return PollParams(
        overlap_ms=config.poll.overlap_ms,
        settle_ms=config.poll.settle_ms,
        catchup_ms_max=config.poll.catchup_max_ms,
        limit=config.poll.limit,
        pages_max=config.poll.pages_max,
        history_ms=config.poll.history_ms,
        # A tenth more than the window, so that flagged points left out of it do not leave it short.
        history_points=max(windows) * 11 // 10 + 1,
    )
