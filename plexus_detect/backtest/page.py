"""The report: one HTML file that needs nothing else, and of which only the read-out needs a script. Pure.

Everything that comes from data is escaped. The worst devices come first; once their plots fill the file's
share, the remaining devices are listed without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as html_escape
from importlib import resources
from string import Template

import numpy as np

from plexus_detect.backtest import plot
from plexus_detect.backtest.bins import Bins, cadence_ms, stretches
from plexus_detect.backtest.figures import Device, Figures
from plexus_detect.backtest.labels import Label
from plexus_detect.backtest.moments import Span, duration_text, stamp
from plexus_detect.backtest.replay import Episode, Replayed
from plexus_detect.backtest.words import AGAINST
from plexus_detect.redaction import visible
from plexus_detect.series import SeriesKey

# Cells of a heat row, and bins of a plot when there are at most so many series.
CELLS = 96
_BINS = ((120, 960), (300, 480), (10_000_000, 192))

# What the devices' plots and tables may take of the file, so that the whole stays below 5 MB; how many
# devices are listed at all, and how many of them are open.
DEVICE_BYTES_MAX = 3_600_000
DEVICES_MAX, OPEN_DEVICES = 1_000, 3

# Rows of the heat map and of one device's table of episodes; the text output has all of them.
HEAT_ROWS_MAX, EPISODE_ROWS_MAX = 300, 40

# Time marks nearer to the right end than this would be cut off.
LAST_MARK = 0.96

NO_PLOTS = "<p>Left out to keep this file small: select fewer sources to see it.</p>"


@dataclass(frozen=True)
class Report:
    """What a page is made from; ``note`` says where the points came from and what judged them."""

    title: str
    note: str
    figures: Figures
    replayed: Replayed
    bins: Bins
    labels: Sequence[Label] = ()
    failed: Sequence[str] = ()


def bins_for(series: int) -> int:
    """How many bins the plots have, by the number of series."""
    return next(bins for most, bins in _BINS if series <= most)


def render(report: Report) -> str:
    """The page."""
    template = resources.files("plexus_detect.backtest").joinpath("report.html").read_text("utf-8")
    figures = report.figures
    return Template(template).substitute(
        title=escape(report.title),
        note=escape(report.note),
        period=f"{_time(figures.span.from_ms)} to {_time(figures.span.to_ms)}",
        from_ms=figures.span.from_ms,
        to_ms=figures.span.to_ms,
        verdict=_verdict(report.failed),
        cards="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in cards(figures)),
        axis=_time_axis(figures.span),
        heat=_heat(report),
        ranking=_ranking(figures),
        quiet=_quiet(figures),
        missed=_missed(report),
        devices=_devices(report),
    )


def escape(text: str) -> str:
    """Text of data as it may stand in the page: no markup, and nothing that turns the reading direction."""
    return html_escape(visible(text))


def cards(figures: Figures) -> list[tuple[str, str]]:
    """The figures at the head of the page: (name, value)."""
    truth = figures.truth
    out = [
        ("alerts a week", f"{figures.per_week:.3g}"),
        ("alerts in all", f"{figures.alerts:,}"),
        ("devices", f"{len(figures.devices):,}"),
        ("series", f"{figures.series:,}"),
        ("samples", f"{figures.points:,}"),
    ]
    if truth is not None:
        out += [
            ("labels found", f"{truth.found} of {truth.labels}"),
            ("recall", share(truth.recall)),
            ("precision", share(truth.precision)),
            ("median delay", "-" if truth.delay_ms is None else duration_text(truth.delay_ms)),
            ("false alarms a day", f"{truth.false_a_day:.3g}"),
            ("a device-day", "-" if truth.false_a_device_day is None else f"{truth.false_a_device_day:.3g}"),
        ]
    return out


def share(value: float | None) -> str:
    """A share with two places; a dash when it is not defined."""
    return "-" if value is None else f"{value:.2f}"


def number(value: float) -> str:
    """A measured value, short."""
    return f"{value:,.5g}" if 1e-4 <= abs(value) < 1e7 or value == 0 else f"{value:.3g}"


def _time(t_ms: int) -> str:
    text = stamp(t_ms)
    return f'<time datetime="{text}">{text[:10]} {text[11:16]}</time>'


def _verdict(failed: Sequence[str]) -> str:
    if not failed:
        return ""
    return f'<p class="failed" role="alert">Gate failed: {escape("; ".join(failed))}.</p>'


def _time_axis(span: Span) -> str:
    marks = (
        f'<span style="left:{100 * at:.2f}%">{escape(text)}</span>'
        for at, text in plot.time_marks(span)
        if at < LAST_MARK
    )
    return f'<div class="time" aria-hidden="true">{"".join(marks)}</div>'


# --- heat map and ranking ---------------------------------------------------------------------------------


def _rows_by_source(report: Report) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, admitted in enumerate(report.replayed.admitted):
        if report.replayed.count[row]:
            rows.setdefault(admitted.key.source, []).append(row)
    return rows


def _heat(report: Report) -> str:
    rows, figures = _rows_by_source(report), report.figures
    alerts: dict[str, list[tuple[int, int]]] = {}
    for episode in report.replayed.episodes:
        place = _bins(episode, figures.span, CELLS)
        if place is not None:
            alerts.setdefault(episode.key.source, []).append(place)
    out = []
    for rank, device in enumerate(figures.devices[:HEAT_ROWS_MAX], 1):
        codes = plot.heat_of(report.bins, rows.get(device.source, []), CELLS)
        paths = "".join(f'<path class="h{_heat_name(c)}" d="{d}"/>' for c, d in plot.heat_paths(codes))
        marks = plot.boxes(sorted(set(alerts.get(device.source, []))), 2, 8)
        hot = sum(c in "12345" for c in codes)
        said = f"{device.source}: {_device_words(device)}; {hot} of {CELLS} cells beyond the line"
        out.append(
            f'<div class="row"><a href="#d{rank}">{escape(device.source)}</a>'
            f'<svg class="heat" data-c="{codes}" viewBox="0 0 {CELLS} 10" preserveAspectRatio="none" '
            f'role="img" aria-label="{escape(said)}">{paths}<path class="open" d="{marks}"/></svg></div>'
        )
    left = min(len(figures.devices), DEVICES_MAX) - HEAT_ROWS_MAX
    more = f"<p>{left} more devices, all ranked lower, are not shown.</p>" if left > 0 else ""
    return "".join(out) + more


def _heat_name(code: str) -> str:
    return {".": "none", "u": "new"}.get(code, code)


def _ranking(figures: Figures) -> str:
    most = max((device.weight for device in figures.devices), default=0.0) or 1.0
    ranked = enumerate(figures.devices[:DEVICES_MAX], 1)
    loud = [(rank, d) for rank, d in ranked if d.hours or d.alerts]
    return "".join(_rank_row(rank, device, most) for rank, device in loud)


def _rank_row(rank: int, device: Device, most: float) -> str:
    cells = (
        f"{device.alerts:,}",
        f"{device.per_week:.3g}",
        f"{device.hours:,.1f}",
        f"{device.worst:.3g}",
        f"{device.series:,}",
    )
    weight = f'<td class="bar" style="--w:{100 * device.weight / most:.1f}%">{device.weight:,.1f}</td>'
    numbers = weight + "".join(f"<td>{cell}</td>" for cell in cells)
    name = f'<a href="#d{rank}">{escape(device.source)}</a>'
    return f'<tr><td>{rank}</td><th scope="row">{name}</th>{numbers}</tr>'


def _quiet(figures: Figures) -> str:
    n = sum(not (d.hours or d.alerts) for d in figures.devices)
    words = f"<p>{n} device{'s' if n != 1 else ''} without an episode.</p>" if n else ""
    left = len(figures.devices) - DEVICES_MAX
    return words + (f"<p>The {left} devices ranked lowest are left out.</p>" if left > 0 else "")


def _missed(report: Report) -> str:
    truth = report.figures.truth
    if truth is None or not truth.missed:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(label.source or "any")}</th><td>{escape(label.metric or "any")}</td>'
        f"<td>{escape(label.kind)}</td><td>{_time(label.start_ms)}</td><td>{_time(label.end_ms)}</td></tr>"
        for label in truth.missed[:EPISODE_ROWS_MAX]
    )
    return (
        f'<section><h2>Missed: {len(truth.missed)} of {truth.labels} labels</h2><div class="wide">'
        '<table class="names"><thead><tr><th>device</th><th>metric</th><th>kind</th><th>start</th>'
        "<th>end</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


# --- devices ----------------------------------------------------------------------------------------------


def _devices(report: Report) -> str:
    rows = _rows_by_source(report)
    mine: dict[str, list[Episode]] = {}
    for episode in report.replayed.episodes:
        mine.setdefault(episode.key.source, []).append(episode)
    out, size = [], 0
    for rank, device in enumerate(report.figures.devices[:DEVICES_MAX], 1):
        found = mine.get(device.source, [])
        inside = NO_PLOTS
        if size < DEVICE_BYTES_MAX:
            in_order = sorted(rows.get(device.source, []), key=lambda row: _loudest_first(report, row, found))
            inside = "".join(_figure(report, row, found) for row in in_order) + _episodes(found)
            size += len(inside)
        opened = " open" if rank <= OPEN_DEVICES and (found or rank == 1) else ""
        out.append(
            f'<details class="device" id="d{rank}"{opened}><summary><b>{rank}. {escape(device.source)}</b> '
            f"<span>{_device_words(device)}</span></summary>{inside}</details>"
        )
    return "".join(out)


def _loudest_first(report: Report, row: int, episodes: Sequence[Episode]) -> tuple[float, str]:
    key = report.replayed.admitted[row].key
    return -max((e.intensity for e in episodes if e.key == key), default=0.0), key.metric


def _device_words(device: Device) -> str:
    if not device.alerts and not device.hours:
        return "quiet"
    alerts = f"{device.alerts} alert{'s' if device.alerts != 1 else ''}"
    return f"{alerts}, {device.hours:.3g} h open, worst score {device.worst:.3g} times the line"


def _episodes(episodes: Sequence[Episode]) -> str:
    if not episodes:
        return ""
    worst = sorted(episodes, key=lambda e: -e.intensity)[:EPISODE_ROWS_MAX]
    rows = "".join(_episode_row(e) for e in sorted(worst, key=lambda e: e.opened_ms))
    left = len(episodes) - len(worst)
    more = f"<p>The worst {len(worst)} of {len(episodes)} episodes.</p>" if left else ""
    return (
        '<div class="wide"><table class="names"><thead><tr><th>alert</th><th>since</th><th>until</th>'
        "<th>metric</th>"
        "<th>against</th><th>why</th><th>worst score</th><th>value</th><th>expected</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{more}"
    )


def _episode_row(episode: Episode) -> str:
    until = "still open" if episode.closed_ms is None else _time(episode.closed_ms)
    return (
        f"<tr><td>{_time(episode.opened_ms)}</td><td>{_time(episode.since_ms)}</td><td>{until}</td>"
        f"<td>{escape(episode.key.metric)}</td><td>{AGAINST.get(episode.kind, episode.kind)}</td>"
        f"<td>{escape(episode.reason)}</td><td>{episode.peak:.3g} / {episode.line:g}</td>"
        f"<td>{number(episode.value)}</td><td>{number(episode.expected)}</td></tr>"
    )


def _bins(episode: Episode, span: Span, n: int) -> tuple[int, int] | None:
    end_ms = span.to_ms if episode.closed_ms is None else episode.closed_ms
    return plot.bins_of(span, n, episode.since_ms, end_ms)


def _figure(report: Report, row: int, episodes: Sequence[Episode]) -> str:
    bins, span = report.bins, report.figures.span
    key = report.replayed.admitted[row].key
    runs, axis = stretches(bins, row), plot.axis_of(bins, row)
    odd = [p for e in episodes if e.key == key and (p := _bins(e, span, bins.n)) is not None]
    known = [
        p
        for label in report.labels
        if label.fits(key) and (p := plot.bins_of(span, bins.n, label.start_ms, label.end_ms)) is not None
    ]
    holes = plot.gaps(runs, bins.n)
    layers = (
        ("gap", plot.boxes(holes, plot.HEIGHT)),
        ("label", plot.boxes(known, plot.HEIGHT)),
        ("episode", plot.boxes(odd, plot.HEIGHT)),
        ("band", plot.band_path(bins, row, axis, runs)),
        ("centre", plot.centre_path(bins, row, axis, runs)),
        ("value", plot.value_path(bins, row, axis, runs)),
        ("label-mark", plot.boxes(known, plot.HEIGHT // 25)),
        ("odd", plot.value_path(bins, row, axis, plot.within(runs, odd))),
    )
    drawn = "".join(f'<path class="{name}" d="{d}"/>' for name, d in layers if d)
    return (
        f'<figure data-low="{axis.low!r}" data-high="{axis.high!r}" data-n="{bins.n}">'
        f"<figcaption>{_caption(report, row, key, len(odd), axis)}</figcaption>"
        f'<div class="chart"><div class="ticks" aria-hidden="true">{_ticks(axis)}</div>'
        f'<svg class="band-plot" viewBox="0 0 {bins.n} {plot.HEIGHT}" preserveAspectRatio="none" role="img" '
        f'tabindex="0" aria-label="{escape(_said(key, axis, len(odd), len(holes)))}">{drawn}</svg>'
        f'<svg class="strip" viewBox="0 0 {bins.n} {plot.STRIP}" preserveAspectRatio="none" '
        f'aria-hidden="true">'
        f'<path class="line" d="M0 {_line_y()}h{bins.n}"/>'
        f'<path class="score" d="{plot.score_path(bins, row, runs)}"/></svg>'
        f"{_time_axis(span)}</div></figure>"
    )


def _line_y() -> int:
    return round(plot.STRIP * (1 - 1 / plot.STRIP_LINES))


def _ticks(axis: plot.Axis) -> str:
    return "".join(
        f'<span style="top:{100 * (axis.high - value) / (axis.high - axis.low):.2f}%">{number(value)}</span>'
        for value in plot.ticks(axis)
    )


def _caption(report: Report, row: int, key: SeriesKey, alerts: int, axis: plot.Axis) -> str:
    cadence = cadence_ms(report.bins, row)
    every = f", one every {duration_text(cadence)}" if np.isfinite(cadence) else ""
    words = f"{report.replayed.count[row]:,} samples{every}"
    if alerts:
        words += f", {alerts} episode{'s' if alerts != 1 else ''}"
    if axis.cut:
        low, high = np.nanmin(report.bins.low[row]), np.nanmax(report.bins.high[row])
        words += f", cut off: values reach from {number(float(low))} to {number(float(high))}"
    return f"<b>{escape(key.metric)}</b> {escape(words)}"


def _said(key: SeriesKey, axis: plot.Axis, alerts: int, holes: int) -> str:
    return (
        f"{key.metric} of {key.source}: values from {number(axis.low)} to {number(axis.high)}, "
        f"{alerts} episodes, {holes} gaps; arrow keys read it out"
    )
