"""The result as text for people and as JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plexus_detect.backtest.figures import Device, Figures
from plexus_detect.backtest.moments import duration_text, exact_stamp, stamp
from plexus_detect.backtest.replay import Episode
from plexus_detect.backtest.truth import OfKind, Truth

HEAD = ("device", "metric", "against", "reason", "since", "alert", "until", "peak", "value", "expected")

TRUTH_HEAD = ("detector", "kind", "labels", "found", "recall", "precision", "median delay")

DEVICE_HEAD = ("device", "alerts", "a week", "hours open", "worst/line", "weight")

# What an episode is against; that of a whole fleet stands with its first device and pages nobody.
AGAINST = {
    "zscore": "own past",
    "fleet_zscore": "fleet",
    "fleet_event": "whole fleet",
    "anomaly": "its group",
}

# Devices that the text lists; the JSON has all.
DEVICES_MAX = 20


def text_of(figures: Figures, episodes: Sequence[Episode]) -> str:
    """The table of episodes, then the figures."""
    span = figures.span
    lines = [f"{stamp(span.from_ms)} to {stamp(span.to_ms)}"]
    rows = [_row(episode) for episode in episodes]
    lines += ["", *_table([HEAD, *rows])] if rows else ["no episodes"]
    lines += [
        "",
        f"{figures.points} samples of {figures.series} series on {len(figures.devices)} devices",
        f"{span.days:.3g} days; {figures.unscored} samples without a score",
        f"{figures.alerts} alerts, {figures.per_week:.3g} a week",
        f"{figures.relearned} new levels became normal",
    ]
    loud = [device for device in figures.devices if device.alerts or device.hours]
    if loud:
        lines += ["", *_table([DEVICE_HEAD, *map(_ranked, loud[:DEVICES_MAX])])]
    if len(loud) > DEVICES_MAX:
        lines.append(f"and {len(loud) - DEVICES_MAX} devices more")
    if figures.truth is not None:
        lines += ["", *_truth_lines(figures.truth)]
    return "\n".join(lines) + "\n"


def _ranked(device: Device) -> tuple[str, ...]:
    numbers = f"{device.per_week:.3g}", f"{device.hours:.1f}", f"{device.worst:.3g}", f"{device.weight:.1f}"
    return _plain(device.source), str(device.alerts), *numbers


def _row(episode: Episode) -> tuple[str, ...]:
    return (
        _plain(episode.key.source),
        _plain(episode.key.metric),
        AGAINST.get(episode.kind, episode.kind),
        _reason(episode),
        stamp(episode.since_ms),
        stamp(episode.opened_ms),
        "open" if episode.closed_ms is None else stamp(episode.closed_ms),
        f"{episode.peak:.3g}",
        f"{episode.value:.5g}",
        f"{episode.expected:.5g}",
    )


def _reason(episode: Episode) -> str:
    """Why, and of a group of metrics who most."""
    return ": ".join([episode.reason, *(_plain(metric) for metric, _share in episode.blame[:1])])


def _plain(name: str) -> str:
    """A name without characters that would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _truth_lines(truth: Truth) -> list[str]:
    delay = "-" if truth.delay_ms is None else duration_text(truth.delay_ms)
    per_device = "-" if truth.false_a_device_day is None else f"{truth.false_a_device_day:.3g}"
    lines = [
        f"recall {_share(truth.recall)}: {truth.found} of {truth.labels} labels found, median delay {delay}",
        f"precision {_share(truth.precision)}: {truth.true_alerts} alerts true, {truth.false_alerts} false",
        f"false alarms a day: {truth.false_a_day:.3g}, a device-day: {per_device}",
    ]
    lines += _scored(truth)
    lines += [
        f"missed: {label.source or 'any'} {label.metric or 'any'} {label.kind} "
        f"{stamp(label.start_ms)} to {stamp(label.end_ms)}"
        for label in truth.missed
    ]
    if truth.outside:
        lines.append(f"{truth.outside} labels begin outside the period and were left out")
    return lines


def _share(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _scored(truth: Truth) -> list[str]:
    """A table by detector and kind, where there are several detectors or any kinds."""
    named = [(one.kind, one) for one in truth.by_kind if one.kind or len(truth.by_kind) > 1]
    if not named and not truth.by_detector:
        return []
    rows = []
    for detector, alone in (truth.by_detector or {"all": truth}).items():
        kinds = {one.kind or "other": one for one in alone.by_kind} if named else {}
        rows += [(_plain(detector), _plain(kind), *_row_of(one)) for kind, one in kinds.items()]
        rows.append((_plain(detector), "all", *_row_of(alone)))
    return ["", *_table([TRUTH_HEAD, *rows]), ""]


def _row_of(one: OfKind | Truth) -> tuple[str, ...]:
    delay = "-" if one.delay_ms is None else duration_text(one.delay_ms)
    shares = (f"{share:.2f}" if share is not None else "-" for share in (one.recall, one.precision))
    return str(one.labels), str(one.found), *shares, delay


def json_of(figures: Figures, episodes: Sequence[Episode], failed: Sequence[str]) -> dict[str, Any]:
    """Everything by name; times are ISO 8601 in UTC, a figure that is not defined is null."""
    span = figures.span
    return {
        "from": exact_stamp(span.from_ms),
        "to": exact_stamp(span.to_ms),
        "days": span.days,
        "samples": figures.points,
        "unscored": figures.unscored,
        "series": figures.series,
        "alerts": figures.alerts,
        "alerts_per_week": figures.per_week,
        "relearned": figures.relearned,
        "devices": [_device(device) for device in figures.devices],
        "episodes": [_episode(episode) for episode in episodes],
        "labels": None if figures.truth is None else _truth(figures.truth),
        "failed_gates": list(failed),
    }


def _device(device: Device) -> dict[str, Any]:
    return {
        "source": device.source,
        "series": device.series,
        "days": device.days,
        "alerts": device.alerts,
        "alerts_per_week": device.per_week,
        "hours_open": device.hours,
        "worst": device.worst,
        "weight": device.weight,
    }


def _episode(episode: Episode) -> dict[str, Any]:
    return {
        "source": episode.key.source,
        "metric": episode.key.metric,
        "kind": episode.kind,
        "reason": episode.reason,
        "since": exact_stamp(episode.since_ms),
        "opened": exact_stamp(episode.opened_ms),
        "closed": None if episode.closed_ms is None else exact_stamp(episode.closed_ms),
        "peak": episode.peak,
        "line": episode.line,
        "value": episode.value,
        "expected": episode.expected,
        "blame": dict(episode.blame),
    }


def _truth(truth: Truth) -> dict[str, Any]:
    return {
        "labels": truth.labels,
        "found": truth.found,
        "recall": truth.recall,
        "precision": truth.precision,
        "true_alerts": truth.true_alerts,
        "false_alerts": truth.false_alerts,
        "median_delay_s": None if truth.delay_ms is None else truth.delay_ms / 1000,
        "false_alarms_per_day": truth.false_a_day,
        "false_alarms_per_device_day": truth.false_a_device_day,
        "by_kind": {one.kind: _of_kind(one) for one in truth.by_kind},
        "by_detector": {name: _truth(alone) for name, alone in truth.by_detector.items()},
        "missed": [
            {
                "source": label.source,
                "metric": label.metric,
                "kind": label.kind,
                "start": exact_stamp(label.start_ms),
            }
            for label in truth.missed
        ],
    }


def _of_kind(one: OfKind) -> dict[str, Any]:
    return {
        "found": one.found,
        "labels": one.labels,
        "recall": one.recall,
        "precision": one.precision,
        "median_delay_s": None if one.delay_ms is None else one.delay_ms / 1000,
    }
