"""A plan as lines for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from plexus_detect.monitors.blocks import SIGNS, Block, blocks
from plexus_detect.monitors.model import Plan
from plexus_detect.monitors.ownership import Key
from plexus_detect.redaction import visible

Forecasts = Mapping[Key, Sequence[str]]

# What is said of many monitors alike: so many characters of their sources' names, so many other lines.
NAMES_CHARS_MAX = 90
LINES_MAX = 20

_PLAIN = "\x1b[0m"
_PAINT = {"+": "\x1b[32m", "~": "\x1b[33m", "-": "\x1b[31m", "!": "\x1b[1;31m", "=": "\x1b[2m"}
_DIM, _BOLD = "\x1b[2m", "\x1b[1m"


def render(plan: Plan, forecasts: Forecasts | None = None, *, full: bool = False) -> list[str]:
    """The plan as lines: ``+`` create, ``~`` change or replace, ``-`` delete, ``!`` a person must act, ``=``
    kept, then a summary.

    Changes that say the same of many sources are one block, unless ``full`` is given; so are long lists of
    problems and notes shortened. ``forecasts`` are lines shown below the change that they belong to. Names
    from the platform cannot move the cursor.
    """
    lines = [f"+ create source {plan.source}"] if plan.source else []
    for block in blocks((*plan.changes, *plan.stale), full=full):
        lines += _block_lines(block, forecasts or {}, full=full)
    lines += _first(
        [f"! {problem.kind}: {problem.sentence}" for problem in plan.problems], "! and {} more", full=full
    )
    lines += _first([f"  note: {note}" for note in plan.notes], "  and {} more notes", full=full)
    if plan.stale and not plan.prune:
        lines.append(f"  note: apply deletes nothing; plexus-detect monitors prune does ({len(plan.stale)})")
    if plan.keep:
        lines.append(f"= keep {plan.keep} as they are")
    if plan.foreign:
        lines.append(f"  not ours: {plan.foreign}, left alone")
    return [visible(line) for line in (*lines, summary(plan))]


def summary(plan: Plan) -> str:
    """One line with the numbers of a plan."""
    counts = Counter("change" if change.action == "replace" else change.action for change in plan.work)
    said = f"plan: {counts['create']} to create, {counts['change']} to change, {plan.keep} to keep"
    if plan.prune or counts["delete"]:
        said += f", {counts['delete']} to delete"
    return said + (f", {len(plan.problems)} for a person" if plan.problems else "")


def painted(lines: Sequence[str]) -> list[str]:
    """The lines of ``render`` with colours for a terminal."""
    return [_painted(line) for line in lines]


def _painted(line: str) -> str:
    paint = _PAINT.get(line[:1], "")
    if line.startswith(("  note: ", "  and ", "  not ours: ")):
        paint = _DIM
    elif line.startswith("plan: "):
        paint = _BOLD
    return f"{paint}{line}{_PLAIN}" if paint else line


def _block_lines(block: Block, forecasts: Forecasts, *, full: bool) -> Iterator[str]:
    first, many = block.first, len(block.changes) > 1
    name = f"{block.monitor} on {len(block.changes)} devices" if many else first.label
    why = f" ({first.why})" if first.why else ""
    settings = block.settings()
    yield f"{SIGNS[first.action]} {first.action} {name}{why}{': ' * bool(settings)}{settings}"
    if many:
        yield f"    {named(block.sources)}"
    for field in block.fields():
        yield f"    {field}"
    told = dict.fromkeys(line for key in block.keys for line in forecasts.get(key, ()))
    yield from _first([f"    {line}" for line in told], "    and {} more", full=full)


def named(names: Sequence[str], chars_max: int = NAMES_CHARS_MAX) -> str:
    """The first names on a line, and how many more there are."""
    shown: list[str] = []
    for name in names:
        if shown and sum(map(len, shown)) + 2 * len(shown) + len(name) > chars_max:
            break
        shown.append(name)
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _first(lines: Sequence[str], more: str, *, full: bool) -> list[str]:
    """The lines, or the first of too many; ``more`` says how many others there are."""
    if full or len(lines) <= LINES_MAX:
        return list(lines)
    return [*lines[:LINES_MAX], f"{more.format(len(lines) - LINES_MAX)}; --full lists all"]
