"""``plexus-detect status``: what the worker knows of every series, now or again and again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import config_option, configured

# What takes long to import is imported when the command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.onlooker import Recall
    from plexus_detect.status.rows import Row, Sort
    from plexus_detect.status.table import Header

WATCH_S = 2.0
LIMIT = 50
_STATES = ("scored", "warming", "flat", "silent", "stale", "group", "unknown")
_HOME, _END_OF_LINE, _END_OF_SCREEN, _CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@dataclass(frozen=True)
class View:
    """Which rows are wanted, in which order, how many (0: all), and in which form."""

    source: str
    metric: str
    state: str | None
    only_open: bool
    sort: Sort
    limit: int
    as_json: bool
    color: bool

    def wants(self, row: Row) -> bool:
        """Whether a row is one of those that are asked for."""
        return (
            fnmatchcase(row.key.source, self.source)
            and fnmatchcase(row.key.metric, self.metric)
            and (self.state is None or row.state.partition(" ")[0] == self.state)
            and (bool(row.episodes) or not self.only_open)
        )


@click.command()
@click.option("--source", default="*", metavar="GLOB", help="Only sources that match.")
@click.option("--metric", default="*", metavar="GLOB", help="Only metrics that match.")
@click.option("--state", type=click.Choice(_STATES), help="Only series in this state.")
@click.option("--open", "only_open", is_flag=True, help="Only series with an open anomaly.")
@click.option(
    "--sort",
    type=click.Choice(["urgent", "name", "age", "z", "fleet"]),
    default="urgent",
    show_default=True,
    help="urgent: open anomalies, then the largest scores.",
)
@click.option("--limit", type=click.IntRange(0), default=LIMIT, show_default=True, help="Rows; 0: all.")
@click.option("--watch", is_flag=True, help="Show it again every 2 seconds, until Ctrl-C.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--no-color", is_flag=True, help="No colours (also: the environment variable NO_COLOR).")
@config_option
def status(config_paths: tuple[Path, ...], **given: object) -> None:
    """Show what the worker knows of every series: last sample, scores, state, open anomalies.

    Reads the state file beside a running worker, which does not notice, or after one. Posts nothing and asks
    the platform nothing.
    """
    config = configured(config_paths)
    color = sys.stdout.isatty() and not given["no_color"] and "NO_COLOR" not in os.environ
    view = View(
        str(given["source"]),
        str(given["metric"]),
        None if given["state"] is None else str(given["state"]),
        bool(given["only_open"]),
        given["sort"],  # type: ignore[arg-type]  # click has checked it
        int(str(given["limit"])),
        given["output"] == "json",
        color,
    )
    recall = recall_of(config)
    if given["watch"]:
        _watch(config, recall, view)
    else:
        click.echo("\n".join(shown(config, recall, view)))


def recall_of(config: Config) -> Recall:
    """What the worker of this configuration knows; nothing is read yet. Raises ConfigError."""
    from plexus_detect.onlooker import Recall
    from plexus_detect.policy import policy_of, poll_params
    from plexus_detect.running import Running
    from plexus_detect.training.trainer import InlineTrainer

    # A fit that the worker has asked for is made only when the replay comes to where it was taken over.
    policy, poll = policy_of(config), poll_params(config)
    trainer = InlineTrainer() if config.detectors else None
    return Recall(config.state.path, lambda: Running(policy, poll, config.rule_for, trainer))


def shown(config: Config, recall: Recall, view: View, rows_max: int | None = None) -> list[str]:
    """The lines of one table, or one line of JSON. Raises StoreError."""
    from plexus_detect.status.rows import sorted_rows
    from plexus_detect.status.table import header_json, row_json

    header, worker, rows = _looked(config, recall)
    wanted = sorted_rows([row for row in rows if view.wants(row)], view.sort)
    limit = min(view.limit or len(wanted), len(wanted) if rows_max is None else max(1, rows_max))
    if view.as_json:
        told = [row_json(row, header.now_ms) for row in wanted[:limit]]
        left = max(0, len(wanted) - limit)
        return [json.dumps(header_json(header) | {"left_out": left, "series": told}, allow_nan=False)]
    return _text((header, worker), wanted, limit, view)


def _text(above: tuple[Header, str], wanted: Sequence[Row], limit: int, view: View) -> list[str]:
    from plexus_detect.status.table import Table, header_lines

    header, worker = above
    # What is read by a program or kept in a file is not cut.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None
    lines = header_lines(header, worker)
    if not wanted:
        return [*lines, "no series to show" if not header.states else "no series is as asked for"]
    lines += ["", *Table(width, view.color).lines(wanted[:limit], header.now_ms)]
    if len(wanted) > limit:
        lines.append(f"{len(wanted) - limit:,} more left out; --limit 0 shows all")
    return lines


def _looked(config: Config, recall: Recall) -> tuple[Header, str, list[Row]]:
    """See what is there now: what stands above the table, the worker in words, and all rows."""
    from plexus_detect import clock
    from plexus_detect.onlooker import presence_of
    from plexus_detect.status.rows import Moment, counts, rows_of
    from plexus_detect.status.table import Header

    worker = presence_of(config.state.path)
    recall.look()
    now_ms = clock.now_ms()
    moment = Moment(now_ms, recall.tick_ms, worker.held)
    rows = rows_of(recall.running, recall.value, moment, misfit=recall.misfit is not None)
    header = Header(
        path=str(config.state.path),
        worker={"running": worker.held, **(asdict(worker.holder) if worker.holder else {})},
        now_ms=now_ms,
        tick_ms=recall.tick_ms,
        saved_ms=recall.saved_ms,
        states=counts(rows),
        open_episodes=sum(len(row.episodes) for row in rows),
        outbox_points=recall.outbox_points,
        outbox_oldest_ms=recall.outbox_oldest_ms,
        misfit=recall.misfit,
    )
    return header, str(worker), rows


def _watch(config: Config, recall: Recall, view: View) -> None:
    """A table every WATCH_S: in place on a terminal, one after another on a pipe."""
    from plexus_detect import clock

    in_place = sys.stdout.isatty() and not view.as_json
    if in_place:
        click.echo(_HIDE_CURSOR + _CLEAR, nl=False)
    try:
        while True:
            # Below the table stay a line for what is left out and the one that the cursor is on.
            room = shutil.get_terminal_size().lines - 7 if in_place else None
            lines = shown(config, recall, view, room)
            if in_place:
                click.echo(
                    _HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in lines) + _END_OF_SCREEN, nl=False
                )
            else:
                click.echo("\n".join(lines) + "\n" * (not view.as_json))
            sys.stdout.flush()
            asyncio.run(clock.sleep_s(WATCH_S))
    finally:
        if in_place:
            click.echo(_SHOW_CURSOR, nl=False)
