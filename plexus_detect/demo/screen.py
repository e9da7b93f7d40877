"""The live screen: fits any terminal from 80 columns by 24 lines on, and needs no colour to be understood."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from plexus_detect.demo.board import Board, Device, Mood
from plexus_detect.demo.story import Happening, Story
from plexus_detect.demo.words import sentences, slack_words

BARS = "▁▂▃▄▅▆▇█"
BARS_ASCII = "_.-=+*#@"
STYLES = {"ANOMALY": "bold red", "suspected": "yellow", "warming": "cyan", "waiting": "dim"}
SLACK_STYLES = {"Alert Triggered": "bold red", "Alert Resolved": "bold green"}

# Lines that header, titles, Slack and events need beside the table.
LINES_BESIDE = 15
SLACK_LINES = 4
WIDE_BLOCK = 66
SPARK_MAX = 72


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """The newest ``width`` values as bars, on a scale from the least to the largest of all of them.

    The scale covers more than what is drawn, so that a calm stretch looks calm.
    """
    if not values or width <= 0:
        return " " * max(0, width)
    low, high = min(values), max(values)
    step = (high - low) / len(bars) or 1.0
    newest = list(values)[-width:]
    return "".join(bars[min(len(bars) - 1, int((v - low) / step))] for v in newest).rjust(width)


def mood_text(mood: Mood, *, short: bool) -> str:
    """The mood in words; ``short`` needs at most 9 columns."""
    if mood.word != "warming":
        return mood.word
    return f"warm{mood.known}/{mood.needed}" if short else f"warming {mood.known} of {mood.needed}"


def device_row(device: Device, width: int, bars: str = BARS) -> Text:
    """One line of exactly ``width`` columns: source, sparkline, value, z, state."""
    short = width < WIDE_BLOCK
    value = f"{device.values[-1]:.1f}" if device.values else "-"
    z = "-" if math.isnan(device.z) else f"{device.z:+.1f}"
    spark_width, state_width = _widths(width)
    style = STYLES.get(device.mood.word, "")
    row = Text(f"{device.source:<8.7}", style=style, no_wrap=True)
    row.append(sparkline(device.values, spark_width, bars), style=style or "green")
    row.append(f"{value:>6}{z:>6} {mood_text(device.mood, short=short):<{state_width}.{state_width}}")
    row.pad_right(max(0, width - row.cell_len))
    return row


def table_head(width: int) -> Text:
    """The line above the rows of ``device_row``."""
    spark_width, _ = _widths(width)
    head = f"{'device':<8}{'readings':<{spark_width}.{spark_width}}{'value':>6}{'score':>6} state"
    return Text(f"{head:<{width}}", style="dim", no_wrap=True)


def _widths(width: int) -> tuple[int, int]:
    """Columns of the sparkline and of the state in a row of ``width`` columns."""
    state = 9 if width < WIDE_BLOCK else 18
    return max(0, min(SPARK_MAX, width - 8 - 6 - 6 - 1 - state)), state


class Screen:
    """Draws the demo in place; an ``Outlet`` for a terminal."""

    def __init__(self, console: Console, story: Story, board: Board) -> None:
        self._console = console
        self._story = story
        self._board = board
        self._slack: deque[Happening] = deque(maxlen=100)
        self._lines: deque[tuple[float, str]] = deque(maxlen=1000)
        self._start: list[str] = []
        self._bars = BARS if "utf" in console.encoding else BARS_ASCII
        self._live = Live(console=console, screen=True, auto_refresh=False, transient=True)

    def show(self, happening: Happening) -> None:
        """Take one happening in and draw."""
        self.note(happening)
        if happening.name != "tick":
            self.refresh()

    def note(self, happening: Happening) -> None:
        """Take one happening in without drawing."""
        if happening.name == "started":
            self._start = sentences(happening)
        elif happening.name == "slack":
            self._slack.append(happening)
        else:
            self._lines += [(happening.elapsed_s, line) for line in sentences(happening)]

    def refresh(self) -> None:
        """Draw what is known now."""
        if not self._live.is_started:
            self._live.start()
        size = self._console.size
        self._live.update(self.frame(size.width, size.height), refresh=True)

    def close(self) -> None:
        """Leave the live screen, and put its last picture and every line of the story where they stay."""
        self._live.stop()
        width = self._console.width
        self._console.print(Group(*self._table(width, self._console.height)))
        for elapsed_s, line in sorted(
            [*self._lines, *((m.elapsed_s, s) for m in self._slack for s in sentences(m))], key=lambda x: x[0]
        ):
            self._console.print(f"{elapsed_s:6.1f} s  {line}", highlight=False, markup=False)

    def frame(self, width: int, height: int) -> Group:
        """The whole picture: header, table, Slack, events."""
        lines = [*self._header(), *self._table(width, height)]
        lines += [self._title("Slack (the platform's own words)", width), *self._slack_lines()]
        lines.append(self._title("Events", width))
        room = height - len(lines)
        if room > 0:
            lines += [_line(elapsed_s, text) for elapsed_s, text in list(self._lines)[-room:]]
        return Group(*lines[:height])

    def _header(self) -> list[Text]:
        status = Text("plexus-detect", style="bold", no_wrap=True, overflow="ellipsis")
        story = self._story
        status.append(f"  {story.elapsed_s:.1f} s  {story.phase}")
        counts = f"{story.points_read} points read, {story.requests} requests"
        status.append(f"  {counts}", style="not bold")
        about = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in self._start]
        return [status, *about]

    def _table(self, width: int, height: int) -> list[Text]:
        devices = list(self._board.devices.values())
        if height >= len(devices) + LINES_BESIDE:
            return [table_head(width), *(device_row(device, width, self._bars) for device in devices)]
        block = (width - 2) // 2
        half = (len(devices) + 1) // 2
        blank = Text(" " * block)
        rows = [Text("  ").join([table_head(block), table_head(block)])]
        for left, right in zip_longest(devices[:half], devices[half:]):
            second = device_row(right, block, self._bars) if right else blank
            rows.append(Text("  ").join([device_row(left, block, self._bars), second]))
        return rows

    def _slack_lines(self) -> list[Text]:
        lines = []
        for message in list(self._slack)[-SLACK_LINES:]:
            said = message.fields
            line = Text(f"{message.elapsed_s:6.1f} s  ", no_wrap=True, overflow="ellipsis")
            line.append(said["title"], style=SLACK_STYLES.get(said["title"], "bold"))
            line.append(f"  {slack_words(said)}")
            lines.append(line)
        blank = [Text("         -", style="dim")] if not lines else []
        return lines + blank

    @staticmethod
    def _title(text: str, width: int) -> Text:
        return Text(f"-- {text} ".ljust(width, "-"), style="dim", no_wrap=True, overflow="crop")


def _line(elapsed_s: float, text: str) -> Text:
    return Text(f"{elapsed_s:6.1f} s  {text}", no_wrap=True, overflow="ellipsis")
