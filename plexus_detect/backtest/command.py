"""``plexus-detect backtest``: options in, figures on standard output, exit code out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError
from plexus_detect.options import client_of, config_option, configured, progress_bar, tell

# What takes long to import is imported when the command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.backtest.bins import Bins
    from plexus_detect.backtest.figures import Gates
    from plexus_detect.backtest.labels import Label
    from plexus_detect.backtest.moments import Span
    from plexus_detect.backtest.replay import Replayed
    from plexus_detect.backtest.run import Run
    from plexus_detect.config import Config

EXIT_GATE = 5


@dataclass(frozen=True)
class Wanted:
    """What the options say."""

    start: str | None
    end: str | None
    csv_file: Path | None
    labels: Path | None
    html: Path | None
    jobs: int
    as_json: bool


@click.command()
@click.option("--from", "start", help="Start of the period: ISO time, epoch, or a duration back such as 7d.")
@click.option("--to", "end", help="End of the period, not included. Default: now, or the end of the file.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Read this CSV, not the platform.")
@click.option("--labels", type=click.Path(path_type=Path), help="CSV of known faults to compare with.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a report in one HTML file.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes. Default: one for each CPU.")
@click.option("--fail-under", multiple=True, metavar="FIGURE=N", help="Exit 5 below recall=N, precision=N.")
@click.option(
    "--max-alerts", metavar="N/week", help="Exit 5 above N/week or N/day alerts of the whole fleet."
)
@config_option
def backtest(
    config_paths: tuple[Path, ...],
    fail_under: tuple[str, ...],
    max_alerts: str | None,
    output: str,
    jobs: int | None,
    **paths: str | Path | None,
) -> None:
    """See which alerts there would have been: the worker's own path over the platform's history or a CSV.

    Points before --from (as far as poll.history) only warm the detectors up. Without --from the last 7d of
    the platform count, or the whole file. Nothing is posted.
    """
    from plexus_detect.backtest.figures import gates_of

    try:
        gates = gates_of(fail_under, max_alerts)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if paths["labels"] is None and (gates.recall is not None or gates.precision is not None):
        raise ConfigError(
            "--fail-under: recall and precision need known faults; give them with --labels FILE"
        )
    wanted = Wanted(**paths, jobs=jobs or os.cpu_count() or 1, as_json=output == "json")  # type: ignore[arg-type]
    failed = _backtest(configured(config_paths), wanted, gates)
    if failed:
        click.echo(f"plexus-detect: gate failed: {'; '.join(failed)}", err=True)
        sys.exit(EXIT_GATE)


def _backtest(config: Config, wanted: Wanted, gates: Gates) -> list[str]:
    """Run, print and write; the gates that failed."""
    from plexus_detect.backtest.figures import failed_gates, figures_of
    from plexus_detect.backtest.words import json_of, text_of

    labels = _labels(wanted.labels)
    if wanted.html is not None and not wanted.html.parent.is_dir():
        raise ConfigError(f"--html: there is no folder {wanted.html.parent}; make it first")
    span, replayed, bins = _replayed(config, wanted)
    figures = figures_of(replayed, span, labels, {group.name: group.metrics for group in config.detectors})
    failed = failed_gates(figures, gates)
    if wanted.as_json:
        click.echo(json.dumps(json_of(figures, replayed.episodes, failed), indent=2))
    else:
        tell(text_of(figures, replayed.episodes), nl=False)
    if wanted.html is not None and bins is not None:
        from plexus_detect.backtest.page import Report, render

        source = wanted.csv_file.name if wanted.csv_file else config.plexus.endpoint
        report = Report(f"Backtest of {source}", _note(config), figures, replayed, bins, labels or (), failed)
        _write(wanted.html, render(report))
    return failed


def _note(config: Config) -> str:
    """What judged the points, for the head of the page."""
    rules = ", ".join(rule.name for rule in config.series)
    return (
        f"Judged by rule{'s' if len(config.series) > 1 else ''} {rules}; scores in units of the alert line."
    )


def _replayed(config: Config, wanted: Wanted) -> tuple[Span, Replayed, Bins | None]:
    from plexus_detect.backtest.run import Run, platform_now_ms, read_csv

    now_ms = platform_now_ms(config)
    with progress_bar("backtest") as progress:
        run = Run(config, wanted.jobs, draw=wanted.html is not None, progress=progress)
        if wanted.csv_file is not None:
            keys, points = read_csv(wanted.csv_file)
            if not len(points):
                raise ConfigError(f"{wanted.csv_file}: there is no value in it; fill the column 'value'")
            ends = int(points.t_ms.min()), int(points.t_ms.max()) + 1
            span = _span(wanted, now_ms, ends)
            return span, *run.over(keys, points, span)
        span = _span(wanted, now_ms, (now_ms - 7 * 86_400_000, now_ms))
        return span, *asyncio.run(_from_platform(run, span))


async def _from_platform(run: Run, span: Span) -> tuple[Replayed, Bins | None]:
    async with client_of(run.config) as client:
        replayed, bins, cut_off = await run.platform(client, span)
    if cut_off:
        click.echo(
            f"plexus-detect: {cut_off} answers stayed incomplete: more rows than a page in 1 ms", err=True
        )
    return replayed, bins


def _span(wanted: Wanted, now_ms: int, default: tuple[int, int]) -> Span:
    """The period that the options name; raises ConfigError."""
    from plexus_detect.backtest.moments import TIME_FORMS, Span, moment_ms, stamp

    ends = list(default)
    for i, (option, text) in enumerate((("--from", wanted.start), ("--to", wanted.end))):
        if text is not None:
            try:
                ends[i] = moment_ms(text, now_ms)
            except (ValueError, OverflowError):
                raise ConfigError(
                    f"{option}: '{text}' is no time; write {TIME_FORMS}, or 7d for seven days back from now"
                ) from None
    if wanted.csv_file is None:
        ends[1] = min(ends[1], now_ms)
    if ends[0] >= ends[1]:
        raise ConfigError(
            f"--from: {stamp(ends[0])} is not before the end, {stamp(ends[1])}; choose an earlier start"
        )
    return Span(*ends)


def _labels(path: Path | None) -> list[Label] | None:
    from plexus_detect.backtest.labels import read_labels

    if path is None:
        return None
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return read_labels(lines, str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); check the path and the file") from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(
            f"--html: {path} cannot be written ({error.strerror}); choose another file"
        ) from None
