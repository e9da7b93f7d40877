"""Episodes and labels to figures, and figures to the gates of a build. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from plexus_detect.backtest.labels import Label
from plexus_detect.backtest.moments import DAY_MS, Span
from plexus_detect.backtest.replay import Episode, Replayed
from plexus_detect.backtest.truth import Groups, Truth, detector_of, opened_in, truth_of
from plexus_detect.series import SUFFIX, Kind

# No score counts more times the line than this in a device's weight: one absurd value would outrank every
# fault that lasts.
INTENSITY_MAX = 10.0

_RATE = re.compile(r"(\d+(?:\.\d+)?)/(day|week)", re.ASCII)
_DAYS = {"day": 1.0, "week": 7.0}

# The kind of an episode of a whole fleet.
FLEET_EVENT = SUFFIX[Kind.FLEET_EVENT].removeprefix(".")


@dataclass(frozen=True)
class Device:
    """A source's part: its series, alerts that opened and how many a week, hours with an episode open (each
    series and kind for itself), worst score in units of the line, and the weight by which it is ranked: the
    sum over its episodes of the peak in units of the line (at most INTENSITY_MAX) times the hours open.
    ``days`` lie between its first and last sample."""

    source: str
    series: int
    days: float
    alerts: int
    per_week: float
    hours: float
    worst: float
    weight: float


@dataclass(frozen=True)
class Figures:
    """The figures of a run over ``span``; ``devices`` are ranked by weight, then by name."""

    span: Span
    points: int
    series: int
    alerts: int
    unscored: int
    relearned: int
    devices: tuple[Device, ...]
    truth: Truth | None = None

    @property
    def per_week(self) -> float:
        """Alerts a week of the whole fleet."""
        return self.alerts * 7 / self.span.days

    @property
    def device_days(self) -> float:
        """Days of all devices together."""
        return sum(device.days for device in self.devices)


def figures_of(
    replayed: Replayed, span: Span, labels: Sequence[Label] | None, groups: Groups = MappingProxyType({})
) -> Figures:
    """Everything that is counted of a run; without ``labels`` there is no truth to compare with.
    ``groups`` are the metrics of each group that was replayed."""
    # What moves a whole fleet pages nobody, so it is no alert of a device.
    paging = [episode for episode in replayed.episodes if episode.kind != FLEET_EVENT]
    devices = _devices(replayed, paging, span)
    truth = None
    if labels is not None:
        device_days = sum(device.days for device in devices)
        truth = truth_of(paging, labels, span, device_days, groups)
        alone = _detectors(replayed, paging, groups)
        if len(alone) > 1:
            each = {
                name: truth_of(mine, _possible(labels, groups.get(name)), span, device_days, groups)
                for name, mine in alone.items()
            }
            truth = replace(truth, by_detector=each)
    return Figures(
        span=span,
        points=int(replayed.count.sum()),
        series=int((replayed.count > 0).sum()),
        alerts=sum(opened_in(e, span) for e in paging),
        unscored=replayed.unscored,
        relearned=replayed.relearned,
        devices=devices,
        truth=truth,
    )


def hours_open(episode: Episode, span: Span) -> float:
    """For how many hours of the period an episode lasted, from its first sample on."""
    end_ms = span.to_ms if episode.closed_ms is None else episode.closed_ms
    return max(0, min(end_ms, span.to_ms) - max(episode.since_ms, span.from_ms)) / 3_600_000


def _detectors(
    replayed: Replayed, episodes: Sequence[Episode], groups: Groups
) -> Mapping[str, Sequence[Episode]]:
    """The alerts of each detector that took part, also of those without any."""
    own = ["own past"] if any(admitted.rule is not None for admitted in replayed.admitted) else []
    found: dict[str, list[Episode]] = {name: [] for name in (*own, *groups)}
    for episode in episodes:
        found.setdefault(detector_of(episode), []).append(episode)
    return found


def _possible(labels: Sequence[Label], metrics: Sequence[str] | None) -> list[Label]:
    """The labels that a group of these metrics, or (None) any other detector, could find."""
    return [label for label in labels if metrics is None or label.metric in ("", *metrics)]


def _devices(replayed: Replayed, paging: Sequence[Episode], span: Span) -> tuple[Device, ...]:
    rows: dict[str, list[int]] = {}
    for row, admitted in enumerate(replayed.admitted):
        if replayed.count[row]:
            rows.setdefault(admitted.key.source, []).append(row)
    mine: dict[str, list[Episode]] = {source: [] for source in rows}
    for episode in paging:
        mine.setdefault(episode.key.source, []).append(episode)
    devices = [_device(source, rows.get(source, []), found, replayed, span) for source, found in mine.items()]
    return tuple(sorted(devices, key=lambda d: (-d.weight, -d.alerts, d.source)))


def _device(source: str, rows: list[int], episodes: list[Episode], replayed: Replayed, span: Span) -> Device:
    days = 0.0
    if rows:
        days = float(replayed.last_ms[rows].max() - replayed.first_ms[rows].min()) / DAY_MS
    alerts = sum(opened_in(e, span) for e in episodes)
    return Device(
        source=source,
        series=len(rows),
        days=days,
        alerts=alerts,
        per_week=alerts * 7 / span.days,
        hours=sum(hours_open(e, span) for e in episodes),
        worst=max((e.intensity for e in episodes), default=0.0),
        weight=sum(min(e.intensity, INTENSITY_MAX) * hours_open(e, span) for e in episodes),
    )


# --- gates ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gates:
    """What a build demands: least recall and precision (None: no demand), most alerts per so many days."""

    recall: float | None = None
    precision: float | None = None
    alerts_max: float | None = None
    alerts_days: float = 7.0


def gates_of(fail_under: Iterable[str], max_alerts: str | None) -> Gates:
    """The gates of ``recall=0.8,precision=0.5`` and ``5/week``. Raises ValueError with what to write."""
    least: dict[str, float] = {}
    for text in ",".join(fail_under).split(","):
        if not text.strip():
            continue
        name, _, number = (part.strip() for part in text.partition("="))
        try:
            least[name] = float(number)
        except ValueError:
            least[name] = -1.0
        if name not in ("recall", "precision") or not 0 <= least[name] <= 1:
            raise ValueError(f"--fail-under: '{text.strip()}' is no gate; write recall=0.8 or precision=0.5")
    if max_alerts is None:
        return Gates(least.get("recall"), least.get("precision"))
    rate = _RATE.fullmatch(max_alerts.strip())
    if rate is None:
        raise ValueError(f"--max-alerts: '{max_alerts}' is no rate; write one like 5/week or 1/day")
    return Gates(least.get("recall"), least.get("precision"), float(rate[1]), _DAYS[rate[2]])


def failed_gates(figures: Figures, gates: Gates) -> list[str]:
    """A clause for each gate that is not passed; a figure that is not defined passes none."""
    failed = []
    truth = figures.truth
    for name in ("recall", "precision"):
        wanted, got = getattr(gates, name), getattr(truth, name, None)
        if wanted is None:
            continue
        if got is None:
            why = "no label begins in the period" if name == "recall" else "there was no alert to judge"
            failed.append(f"{name} cannot be told, {why}, and {wanted:g} was demanded")
        elif got < wanted:
            failed.append(f"{name} is {got:.3f}, {wanted - got:.3f} below {wanted:g}")
    if gates.alerts_max is not None:
        rate = figures.alerts * gates.alerts_days / figures.span.days
        # Compared as a product, so that a rate just at the gate is not lost to rounding.
        if figures.alerts * gates.alerts_days > gates.alerts_max * figures.span.days:
            unit = "day" if gates.alerts_days == 1 else "week"
            over = rate - gates.alerts_max
            failed.append(f"{rate:.3g} alerts a {unit} are {over:.3g} more than {gates.alerts_max:g}")
    return failed
