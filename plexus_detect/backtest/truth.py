"""Alerts against labels: what was found, what was missed, what was false; by kind of fault and by detector.

Pure. What counts: an alert is an episode that opened in the period. It finds a label when it opened at or
after the label's start and its first sample lies no later than the label's end. An alert that was open before
the label began has not found it. An alert that finds no label is false, unless it was open when one began. An
alert of a group of metrics can find a label of any of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from plexus_detect.backtest.labels import Label
from plexus_detect.backtest.moments import Span
from plexus_detect.backtest.replay import Episode
from plexus_detect.series import SUFFIX, Kind, SeriesKey

_OF_GROUP = SUFFIX[Kind.ANOMALY].removeprefix(".")

# The metrics of each group, by the name under which it is posted.
Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class OfKind:
    """What came of the labels of one kind; ``delay_ms`` is the median of those found, None without any.

    ``false_alerts`` is the kind's part of the false ones, which have no kind: that of its labels.
    """

    kind: str
    labels: int
    found: int
    true_alerts: int
    false_alerts: float
    delay_ms: float | None

    @property
    def recall(self) -> float:
        """The share of labels that were found."""
        return self.found / self.labels

    @property
    def precision(self) -> float | None:
        """The share of alerts that belong to a label; None without alerts of this kind and without false
        ones."""
        judged = self.true_alerts + self.false_alerts
        return self.true_alerts / judged if judged else None


@dataclass(frozen=True)
class Truth:
    """The comparison with the labels that begin in the period; a figure that is not defined is None.

    ``delay_ms`` is the median time from a found label's start to its first alert, ``missed`` are the labels
    without one. ``by_detector`` gives the same for the alerts of each detector alone, where there are
    several.
    """

    labels: int
    found: int
    outside: int
    true_alerts: int
    false_alerts: int
    delay_ms: float | None
    false_a_day: float
    false_a_device_day: float | None
    missed: tuple[Label, ...]
    by_kind: tuple[OfKind, ...]
    by_detector: Mapping[str, Truth] = field(default_factory=dict)

    @property
    def recall(self) -> float | None:
        """The share of labels that were found."""
        return self.found / self.labels if self.labels else None

    @property
    def precision(self) -> float | None:
        """The share of judged alerts that belong to a label."""
        judged = self.true_alerts + self.false_alerts
        return self.true_alerts / judged if judged else None


def opened_in(episode: Episode, span: Span) -> bool:
    """Whether an episode is an alert of the period."""
    return span.from_ms <= episode.opened_ms < span.to_ms


def truth_of(
    episodes: Sequence[Episode], labels: Sequence[Label], span: Span, device_days: float, groups: Groups
) -> Truth:
    """Compare the alerts of the period with the labels."""
    inside = [label for label in labels if span.from_ms <= label.start_ms < span.to_ms]
    finds = {id(e): [label for label in labels if _finds(e, label, groups)] for e in episodes}
    first: dict[int, int] = {}
    for episode in episodes:
        for label in finds[id(episode)]:
            delay = episode.opened_ms - label.start_ms
            first[id(label)] = min(delay, first.get(id(label), delay))
    alerts = [e for e in episodes if opened_in(e, span)]
    false = [e for e in alerts if not finds[id(e)] and not any(_within(e, one, groups) for one in labels)]
    delays = [first[id(label)] for label in inside if id(label) in first]
    kinds: dict[str, list[Label]] = {}
    for label in inside:
        kinds.setdefault(label.kind, []).append(label)
    hits = [{label.kind for label in finds[id(e)]} for e in alerts]
    return Truth(
        labels=len(inside),
        found=len(delays),
        outside=len(labels) - len(inside),
        true_alerts=sum(bool(kinds_hit) for kinds_hit in hits),
        false_alerts=len(false),
        delay_ms=statistics.median(delays) if delays else None,
        false_a_day=len(false) / span.days,
        false_a_device_day=len(false) / device_days if device_days else None,
        missed=tuple(label for label in inside if id(label) not in first),
        by_kind=tuple(
            _of_kind(kind, [first.get(id(label)) for label in kinds[kind]], hits, len(false) / len(inside))
            for kind in sorted(kinds)
        ),
    )


def _of_kind(kind: str, firsts: list[int | None], hits: list[set[str]], false_a_label: float) -> OfKind:
    delays = [delay for delay in firsts if delay is not None]
    return OfKind(
        kind=kind,
        labels=len(firsts),
        found=len(delays),
        true_alerts=sum(kind in kinds for kinds in hits),
        false_alerts=false_a_label * len(firsts),
        delay_ms=statistics.median(delays) if delays else None,
    )


def detector_of(episode: Episode) -> str:
    """What an alert is of, as people read it: the checks of single metrics, the fleet, or a group by name."""
    if episode.kind == _OF_GROUP:
        return episode.key.metric
    return "fleet" if episode.kind == SUFFIX[Kind.FLEET_ZSCORE].removeprefix(".") else "own past"


def _fits(alert: Episode, label: Label, groups: Groups) -> bool:
    if label.fits(alert.key):
        return True
    if alert.kind != _OF_GROUP:
        return False
    source, group = alert.key
    return any(label.fits(SeriesKey(source, metric)) for metric in groups.get(group, ()))


def _finds(alert: Episode, label: Label, groups: Groups) -> bool:
    in_time = alert.opened_ms >= label.start_ms and alert.since_ms <= label.end_ms
    return in_time and _fits(alert, label, groups)


def _within(alert: Episode, label: Label, groups: Groups) -> bool:
    """Whether the alert was open when the label began."""
    closed = alert.closed_ms is None or alert.closed_ms >= label.start_ms
    return alert.opened_ms < label.start_ms and closed and _fits(alert, label, groups)
