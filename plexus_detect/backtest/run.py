"""A backtest from points to replayed episodes: the loops that read and the shards that score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from plexus_detect import clock
from plexus_detect.backtest.bins import Bins
from plexus_detect.backtest.csvfile import read_points
from plexus_detect.backtest.moments import Span
from plexus_detect.backtest.page import bins_for
from plexus_detect.backtest.platform import History, discover
from plexus_detect.backtest.replay import Replayed, Setup, chunks, joined
from plexus_detect.backtest.selection import Selection
from plexus_detect.backtest.shards import Shards
from plexus_detect.client import Client
from plexus_detect.config import Config
from plexus_detect.errors import ConfigError
from plexus_detect.policy import poll_params
from plexus_detect.reader import Reader
from plexus_detect.series import Points, SeriesKey, SeriesTable
from plexus_detect.training.trainer import require

Progress = Callable[[float], None]


class Run:
    """How a backtest is run: the configuration, processes, whether it is drawn, and whom to tell how far
    it is (0 to 1)."""

    def __init__(self, config: Config, jobs: int, *, draw: bool, progress: Progress) -> None:
        self.config = config
        self.draw = draw
        self.progress = progress
        self.selection = Selection(config)
        if self.selection.policy.groups:
            require()
        # All series that share a budget of alerts have to be in one process.
        self.jobs = 1 if self.selection.policy.alerts_per_day is not None else jobs

    def setup(self, span: Span, series: int) -> Setup:
        """What each process replays."""
        return Setup(self.selection.policy, span, bins_for(series) if self.draw else 0)

    def over(self, keys: list[SeriesKey], points: Points, span: Span) -> tuple[Replayed, Bins | None]:
        """Replay points that are at hand. Raises ConfigError when the configuration selects none of them."""
        admitted = self.selection.admit([*keys, *self.selection.named(keys)])
        if not admitted:
            raise ConfigError(
                f"series: none of the {len(keys)} series in the file is selected; change sources and metrics"
            )
        setup = self.setup(span, len(admitted))
        wanted = (points.t_ms >= warm_from_ms(self.config, span)) & (points.t_ms < span.to_ms)
        points = points if wanted.all() else points.take(wanted)
        with Shards(setup, min(self.jobs, len(admitted))) as shards:
            shards.admit(admitted)
            done = 0
            for part in chunks(points):
                shards.put(part, int(part.t_ms[-1]))
                done += len(part)
                self.progress(done / len(points))
            return joined(shards.finish(), setup)

    async def platform(self, client: Client, span: Span) -> tuple[Replayed, Bins | None, int]:
        """Read and replay the platform's history; also how many answers stayed incomplete.

        Raises ApiError and ContractError, and ConfigError when the configuration selects no series.
        """
        config, table = self.config, SeriesTable()
        poll = poll_params(config)
        reader = Reader(client, table, poll, config.plexus.concurrency)
        await reader.check()
        await discover(reader, table, config)
        self._name_groups(table)
        first = self.selection.admit(table.keys)
        if not first:
            raise ConfigError(
                f"series: none of the {len(table)} series that the platform knows is selected; "
                "change sources and metrics"
            )
        setup = self.setup(span, len(first))
        history = History(reader, table, poll, self.selection.wants)
        whole = Span(warm_from_ms(config, span), span.to_ms)
        with Shards(setup, min(self.jobs, len(first))) as shards:
            shards.admit(first)
            known = len(table)
            async for part in history.parts(whole):
                self._name_groups(table)
                shards.admit(self.selection.admit(table.keys, known))
                known = len(table)
                shards.put(part.points, part.to_ms)
                self.progress((part.to_ms - whole.from_ms) / (whole.to_ms - whole.from_ms))
            replayed, bins = joined(shards.finish(), setup)
            return replayed, bins, history.cut_off

    def _name_groups(self, table: SeriesTable) -> None:
        """Give the groups of what is known by now a series for their scores."""
        for key in self.selection.named(table.keys):
            table.add(*key)


def warm_from_ms(config: Config, span: Span) -> int:
    """From where on points warm the detectors up."""
    return max(0, span.from_ms - config.poll.history_ms)


def read_csv(path: Path) -> tuple[list[SeriesKey], Points]:
    """The series and points of a CSV file; rows of the wide form belong to a source named as the file.

    Raises ConfigError.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return read_points(lines, str(path), path.stem)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); check the path and the file") from None


def platform_now_ms(config: Config) -> int:
    """The newest time whose points count as settled."""
    return clock.now_ms() - config.poll.settle_ms
