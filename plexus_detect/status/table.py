"""The table of ``status`` in words: fitted to a width, or as values for JSON. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from plexus_detect.status.rows import Row

# Names may shrink to so many cells before columns are left out.
NAME_LEAST = 12
GAP = "  "
_BOLD_RED, _YELLOW, _DIM, _PLAIN = "\x1b[1;31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class Header:
    """What is said above the table; times in ms, None while unknown. ``misfit`` is why scores are missing."""

    path: str
    worker: Mapping[str, Any]
    now_ms: int
    tick_ms: int | None
    saved_ms: int | None
    states: Mapping[str, int] = field(default_factory=dict)
    open_episodes: int = 0
    outbox_points: int = 0
    outbox_oldest_ms: int | None = None
    misfit: str | None = None


def header_lines(header: Header, worker: str) -> list[str]:
    """The lines above the table; ``worker`` says in words whether one is running."""
    ago = f"{span(header.now_ms - header.tick_ms)} ago" if header.tick_ms is not None else "never"
    states = ", ".join(f"{n:,} {state}" for state, n in header.states.items())
    total, waits = sum(header.states.values()), f"{header.outbox_points:,} points"
    if header.outbox_oldest_ms is not None:
        waits += f", oldest {span(header.now_ms - header.outbox_oldest_ms)}"
    lines = [
        f"{header.path}: worker {worker}; last tick with samples {ago}",
        f"{total:,} series{': ' * bool(states)}{states}; {header.open_episodes:,} open; outbox {waits}",
    ]
    if header.misfit is not None:
        lines.append(f"no scores: {header.misfit}; a worker that starts now warms up anew")
    return lines


def span(ms: int) -> str:
    """A length of time in few characters: "12s", "5m", "3h", "2d", "-4s" of a clock that is ahead."""
    s, sign = abs(ms) // 1000, "-" if ms <= -1000 else ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if s >= 2 * size:
            return f"{sign}{s // size}{unit}"
    return f"{sign}{s}s"


def number(x: float, digits: int = 4) -> str:
    """A number in a few characters, "-" for none."""
    if not math.isfinite(x):
        return "-"
    text = f"{x:.{digits}g}"
    return text if len(text) <= 9 else f"{x:.{max(1, digits - 2)}g}"


def _score(x: float) -> str:
    if not math.isfinite(x):
        return "-"
    return f"{x:.2f}" if abs(x) < 100 else f"{x:.0f}" if abs(x) < 1e5 else f"{x:.0e}"


def _state(row: Row) -> str:
    return f"warming {row.known}/{row.needed}" if row.state == "warming" else row.state


def _episode(row: Row, now_ms: int) -> str:
    """The first open episode in full; of others only against what they are."""
    if not row.episodes:
        return ""
    one, *more = row.episodes
    text = f"{span(now_ms - one.since_ms)} {number(one.peak, 3)} {one.check}"
    return " +".join([text, *(other.against for other in more)])


@dataclass(frozen=True)
class Table:
    """How a table is drawn: ``width`` in cells (None: as wide as it is), with colours or without."""

    width: int | None = None
    color: bool = False

    def lines(self, rows: Sequence[Row], now_ms: int) -> list[str]:
        """The titles and one line a row."""
        columns = _columns(rows, now_ms)
        widths = _fitted(columns, self.width)
        shown = [column for column in columns if column.title in widths]
        lines = [self._line(shown, widths, [column.title for column in shown])]
        for i, row in enumerate(rows):
            text = self._line(shown, widths, [column.texts[i] for column in shown])
            lines.append(self._painted(text, row))
        return lines

    @staticmethod
    def _line(columns: Sequence[_Column], widths: Mapping[str, int], texts: Sequence[str]) -> str:
        pairs = zip(columns, texts, strict=True)
        cells_of = (_padded(text, widths[column.title], column.right) for column, text in pairs)
        return GAP.join(cells_of).rstrip()

    def _painted(self, text: str, row: Row) -> str:
        quiet = {"silent": _YELLOW, "stale": _YELLOW, "warming": _DIM, "unknown": _DIM}
        paint = _BOLD_RED if row.episodes else quiet.get(row.state, "")
        return f"{paint}{text}{_PLAIN}" if self.color and paint else text


@dataclass(frozen=True)
class _Column:
    title: str
    texts: list[str]
    right: bool = False

    @property
    def width(self) -> int:
        return max(map(cells, [self.title, *self.texts]))


def _columns(rows: Sequence[Row], now_ms: int) -> list[_Column]:
    """The columns that say anything of these rows."""

    def column(title: str, of: Callable[[Row], str], *, right: bool = True) -> _Column:
        return _Column(title, [of(row) for row in rows], right)

    every = [
        column("source", lambda row: printable(row.key.source), right=False),
        column("metric", lambda row: printable(row.key.metric), right=False),
        column("age", lambda row: "-" if row.last_ms is None else span(now_ms - row.last_ms)),
        column("value", lambda row: number(row.value)),
        column("z", lambda row: _score(row.z)),
        column("fleet z", lambda row: _score(row.fleet_z)),
        column("state", _state, right=False),
        column("anomaly", lambda row: _episode(row, now_ms), right=False),
        column("late", lambda row: str(row.late) if row.late else ""),
    ]
    always = {"source", "metric", "age", "z", "state"}
    return [c for c in every if c.title in always or any(text not in ("", "-") for text in c.texts)]


def _fitted(columns: Sequence[_Column], width: int | None) -> dict[str, int]:
    """The width of each column that has room: names shrink first, then columns that matter less go."""
    widths = {column.title: column.width for column in columns}
    if width is None:
        return widths
    for dropped in (None, "late", "value", "fleet z"):
        if dropped is not None:
            widths.pop(dropped, None)
        over = sum(widths.values()) + len(GAP) * (len(widths) - 1) - width
        names = _shrunk(widths["source"], widths["metric"], over)
        if over <= 0 or names is not None:
            widths["source"], widths["metric"] = names or (widths["source"], widths["metric"])
            return widths
    # A terminal too narrow for all of it: what is left of the last column is cut.
    last = next(reversed(widths))
    source, metric = (min(widths[name], NAME_LEAST) for name in ("source", "metric"))
    widths |= {"source": source, "metric": metric}
    over = sum(widths.values()) + len(GAP) * (len(widths) - 1) - width
    widths[last] = max(1, widths[last] - max(0, over))
    return widths


def _shrunk(source: int, metric: int, over: int) -> tuple[int, int] | None:
    """Two widths that are ``over`` cells less together, the wider one first; None if they cannot be."""
    for _ in range(max(0, over)):
        if source >= metric:
            source -= 1
        else:
            metric -= 1
    return (source, metric) if min(source, metric) >= NAME_LEAST or over <= 0 else None


# -- cells of a terminal


def printable(text: str) -> str:
    """A name without anything that would move the cursor or reverse the line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def cells(text: str) -> int:
    """How many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _padded(text: str, width: int, right: bool) -> str:
    taken = cells(text)
    if taken > width:
        while cells(text) > width - 1:
            text = text[:-1]
        text, taken = f"{text}…", cells(text) + 1
    space = " " * (width - taken)
    return space + text if right else text + space


# -- values for JSON


def stamp(t_ms: int | None) -> str | None:
    """A time as ISO text in UTC."""
    if t_ms is None:
        return None
    return datetime.fromtimestamp(t_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def header_json(header: Header) -> dict[str, Any]:
    """What stands above the table, as values."""
    return {
        "state_file": header.path,
        "at": stamp(header.now_ms),
        "worker": dict(header.worker),
        "last_tick": stamp(header.tick_ms),
        "last_snapshot": stamp(header.saved_ms),
        "no_scores": header.misfit,
        "states": dict(header.states),
        "open_episodes": header.open_episodes,
        "outbox_points": header.outbox_points,
        "outbox_oldest": stamp(header.outbox_oldest_ms),
    }


def row_json(row: Row, now_ms: int) -> dict[str, Any]:
    """One row as values; null for what is not known."""
    warming = {"known": row.known, "needed": row.needed} if row.state == "warming" else {}
    return {
        "source": row.key.source,
        "metric": row.key.metric,
        "last": stamp(row.last_ms),
        "age_s": None if row.last_ms is None else round((now_ms - row.last_ms) / 1000, 3),
        "value": _known(row.value),
        "z": _known(row.z),
        "fleet_z": _known(row.fleet_z),
        "of_line": row.over,
        "state": row.state,
        **warming,
        "episodes": [one._asdict() | {"since": stamp(one.since_ms)} for one in row.episodes],
        "late": row.late,
    }


def _known(x: float) -> float | None:
    return x if math.isfinite(x) else None
