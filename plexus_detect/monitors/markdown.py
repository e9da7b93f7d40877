"""A plan as Markdown, for a comment on a pull request.

Names and messages come from devices and documents: they stand in code spans, where no Markdown, no HTML and
no mention of a person is read.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from plexus_detect.monitors.blocks import SIGNS, Block, blocks
from plexus_detect.monitors.model import Plan
from plexus_detect.monitors.ownership import Key
from plexus_detect.monitors.rendering import summary
from plexus_detect.redaction import visible

# The first line of every comment, by which the next run finds it. A comment on GitHub has 65,536 characters.
MARK = "<!-- plexus-detect monitors plan -->"
CHARS_MAX = 60_000

# Rows above which a list is folded, names in a line of a list, and room for the last sentence.
OPEN_MAX, NAMES_MAX, LAST_CHARS = 30, 50, 400

# Nothing in these can end a code span or a cell.
_PLAIN = re.compile(r"[^`|\\]*[^`|\\ ]")


class Cost(NamedTuple):
    """How often a monitor would have fired: as it is now and as planned, None where there is none."""

    now: int | None
    then: int | None


@dataclass(frozen=True)
class _Section:
    """Lines around rows, of which the last are left out where there is no room; without rows there is none.

    A row is its text and how many of ``what`` it is about.
    """

    head: Sequence[str]
    rows: Sequence[tuple[str, int]]
    tail: Sequence[str]
    what: str


def markdown(
    plan: Plan, costs: Mapping[Key, Cost] | None = None, days: float = 0, *, chars_max: int = CHARS_MAX
) -> str:
    """The plan as Markdown: a summary, what a person must solve, the changes, long lists folded.

    ``costs`` are the firings in the last ``days``: with any, the changes have a column of them. What does not
    fit into ``chars_max`` is left out, which the last sentence then says.
    """
    found = blocks((*plan.changes, *plan.stale))
    later = "" if plan.prune else ", by prune"
    head = [MARK, f"**Monitors, {summary(plan)}**", ""]
    if costs:
        head += [f"Firings in the last {days:g} days: {_total(costs)}.", ""]
    if plan.source:
        head += [f"The source {code(plan.source)} is made first.", ""]
    if plan.stale and not plan.prune:
        head += [f"`monitors apply` deletes nothing; `monitors prune` would delete {len(plan.stale)}.", ""]
    problems = [(f"* **{problem.kind}**: {code(problem.sentence)}", 1) for problem in plan.problems]
    notes = [(f"* {code(note)}", 1) for note in plan.notes]
    rows = [(_row(block, costs or {}, later), len(block.changes)) for block in found]
    sections = [
        _list(problems, "For a person:", "problems"),
        _table(rows[:OPEN_MAX], costs, days),
        _folded(_table(rows[OPEN_MAX:], costs, days), f"{len(rows) - OPEN_MAX} further rows"),
        *_devices(found),
        _folded(_list(notes, "", "notes"), f"{len(notes)} notes"),
    ]
    return "\n".join(_fitted(head, sections, chars_max)) + "\n"


def code(text: str) -> str:
    """A text from outside as a code span, wherever in a comment: also in a cell of a table."""
    text = visible(text)
    if _PLAIN.fullmatch(text) and text[0] != " ":
        return f"`{text}`"
    return f"<code>{''.join(c if c.isalnum() or c == ' ' else f'&#{ord(c)};' for c in text)}</code>"


def _total(costs: Mapping[Key, Cost]) -> str:
    now, then = (sum(cost[i] or 0 for cost in costs.values()) for i in (0, 1))
    return f"{now} with the monitors as they are, **{then}** as planned"


def _table(rows: Sequence[tuple[str, int]], costs: Mapping[Key, Cost] | None, days: float) -> _Section:
    titles, line = ["", "monitor", "on", "settings"], ["---"] * 4
    if costs:
        titles.append(f"firings in {days:g} days")
        line.append("---:")
    head = ["", f"| {' | '.join(titles)} |", f"| {' | '.join(line)} |"]
    return _Section(head, rows, [""], "changes")


def _row(block: Block, costs: Mapping[Key, Cost], later: str) -> str:
    first = block.first
    monitor = f"{first.key[2]} {code(first.key[1])}" if first.key[1] else first.key[2]
    many = len(block.changes) > 1
    told = [block.settings(), *block.fields()]
    settings = "<br>".join(code(text) for text in told if text)
    cells = [
        f"{SIGNS[first.action]} {first.action}{later if first.action == 'delete' else ''}",
        monitor,
        f"{len(block.changes)} devices" if many else code(first.key[0]),
        "<br>".join(filter(None, [settings, first.why])),
    ]
    if costs:
        cells.append(_cost([costs[key] for key in block.keys if key in costs]))
    return f"| {' | '.join(cells)} |"


def _cost(costs: Sequence[Cost]) -> str:
    now = [cost.now for cost in costs if cost.now is not None]
    then = [cost.then for cost in costs if cost.then is not None]
    if not then:
        return f"{sum(now)} → none" if now else "not known"
    on = f" on {sum(n > 0 for n in then)} of {len(then)}" if len(then) > 1 and any(then) else ""
    return f"{f'{sum(now)} → ' if now else ''}{sum(then)}{on}"


def _list(rows: Sequence[tuple[str, int]], title: str, what: str) -> _Section:
    listed = _Section([title, ""] if title else [], rows, [""], what)
    return _folded(listed, f"{len(rows)} {what}") if title and len(rows) > OPEN_MAX else listed


def _folded(section: _Section, title: str) -> _Section:
    # HTML ends at an empty line, and Markdown is read after it.
    head = [f"<details><summary>{title}</summary>", "", *section.head]
    return _Section(head, section.rows, [*section.tail, "</details>", ""], section.what)


def _devices(found: Sequence[Block]) -> Iterator[_Section]:
    """The devices of each block of several, which the table only counts."""
    for block in found:
        names = block.sources
        if len(names) > 1:
            rows = [names[at : at + NAMES_MAX] for at in range(0, len(names), NAMES_MAX)]
            lines = [(", ".join(map(code, row)) + ",", len(row)) for row in rows]
            lines[-1] = lines[-1][0][:-1], lines[-1][1]
            monitor = f"<code>{html.escape(visible(block.monitor))}</code>"
            title = f"{block.first.action} {monitor}: {len(names)} devices"
            yield _folded(_Section([], lines, [""], "names of devices"), title)


def _fitted(head: Sequence[str], sections: Sequence[_Section], chars_max: int) -> list[str]:
    lines, left = list(head), dict.fromkeys((section.what for section in sections), 0)
    room = chars_max - LAST_CHARS - _size(head)
    for section in sections:
        around = _size(section.head) + _size(section.tail)
        taken: list[str] = []
        size = around
        for text, _n in section.rows:
            if size + len(text) + 1 > room:
                break
            taken.append(text)
            size += len(text) + 1
        left[section.what] += sum(n for _text, n in section.rows[len(taken) :])
        if taken:
            room -= size
            lines += [*section.head, *taken, *section.tail]
    cut = ", ".join(f"{n} {what}" for what, n in left.items() if n)
    return [*lines, f"Left out, since a comment has its limit: {cut}. {_ALL}"] if cut else lines


_ALL = "`plexus-detect monitors plan --full` lists all."


def _size(lines: Sequence[str]) -> int:
    return sum(len(line) + 1 for line in lines)
