"""A plan as text, JSON and Markdown: read in one look by a person, safe whatever devices are called."""

from __future__ import annotations

import html.parser
import json
from typing import Any

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from test_monitors import DEV_1, offline, planned, row, threshold

from plexus_detect import monitors
from plexus_detect.monitors import Cost, KnownSources, Ownership, Plan, Wanted
from plexus_detect.monitors.markdown import MARK, code
from plexus_detect.monitors.model import Expansion, Problem
from plexus_detect.provision.showing import Outlook, show
from plexus_detect.redaction import visible

NOBODY = Ownership()


def wanted(
    source: str,
    metric: str = "t.zscore",
    origin: str = "m.json#/0",
    message: str | None = None,
    line: float = 3,
) -> Wanted:
    settings = {"min": None, "max": line, "severity": "warning", "message": message}
    return Wanted(origin, (source, metric, "threshold"), settings, "leave")


def plan_of(*of: Wanted, problems: tuple[Problem, ...] = (), notes: tuple[str, ...] = ()) -> Plan:
    return monitors.plan(Expansion(of, problems, notes), (), NOBODY)


def fleet(n: int, **more: Any) -> list[Wanted]:
    return [wanted(f"dev-{i:04d}", **more) for i in range(n)]


def mixed() -> Plan:
    """Four that change alike, one that differs, one that nobody wants."""
    rows = [row(f"dev-{i}", threshold=threshold(id=str(i), max=9)) for i in range(1, 4)]
    rows += [row("pg-1", threshold=threshold(max=9)), row("pg-1", metric="", offline=offline())]
    documents = [
        {"source_id": "dev-*", "metric": "t.zscore", "threshold": {"max": 3}},
        {"source_id": "pg-1", "metric": "t.zscore", "threshold": {"max": 3}},
        {"source_id": "pg-1", "offline": {"timeout_seconds": 60}, "notification_targets": [DEV_1]},
    ]
    return planned(documents, rows)


# ---- text ------------------------------------------------------------------------------------------------


def test_changes_alike_are_one_block() -> None:
    """Many devices with the same change are a line with their number, their names and each field."""
    assert monitors.render(plan_of(*fleet(38, message="off its past")))[:-1] == [
        '+ create threshold t.zscore on 38 devices: max 3, severity "warning", message "off its past"',
        f"    {', '.join(f'dev-000{i}' for i in range(9))} and 29 more",
    ]
    assert monitors.render(mixed())[:5] == [
        "~ change threshold t.zscore on 4 devices",
        "    dev-1, dev-2, dev-3, pg-1",
        "    max: 9 -> 3",
        "~ replace offline pg-1",
        "    timeout_seconds: 300 -> 60",
    ]


def test_messages_with_the_name_of_their_source_are_alike() -> None:
    """A message that names each its own source is shown once, and alone as it is."""
    named = [wanted(f"dev-{i}", message=f"look at dev-{i}, not dev-10") for i in range(9)]
    (line, _names, _sum) = monitors.render(plan_of(*named))
    assert line.endswith('message "look at {source}, not dev-10"')
    (line, _sum) = monitors.render(plan_of(named[1]))
    assert line.endswith('message "look at dev-1, not dev-10"')


def test_few_are_shown_one_by_one_and_full_shows_all() -> None:
    """Up to three changes alike stand by themselves; with ``full`` every one does."""
    assert len(monitors.render(plan_of(*fleet(3)))) == 3 + 1
    assert len(monitors.render(plan_of(*fleet(4)))) == 2 + 1
    assert len(monitors.render(plan_of(*fleet(100)), full=True)) == 100 + 1


def test_a_thousand_monitors_can_be_read() -> None:
    """However they differ, a plan for a thousand monitors is a few lines: bounds that differ are a range."""
    metrics = [f"m{i}.zscore" for i in range(20)]
    same = plan_of(*(w for metric in metrics for w in fleet(50, metric=metric)))
    assert len(monitors.render(same)) == 2 * 20 + 1
    each = plan_of(*(wanted(f"dev-{i}", origin=f"m.json#/{i}", line=3 + i / 100) for i in range(1000)))
    lines = monitors.render(each)
    assert lines[0] == '+ create threshold t.zscore on 1000 devices: max 3 to 12.99, severity "warning"'
    assert lines[-1] == "plan: 1000 to create, 0 to change, 0 to keep"
    troubles = tuple(Problem("drift", f"monitor {i} was edited") for i in range(1000))
    assert monitors.render(plan_of(problems=troubles))[20] == "! and 980 more; --full lists all"


def test_forecasts_stand_below_their_change() -> None:
    """Once for a block, however many of its monitors have the same one."""
    told = {
        ("dev-0003", "t.zscore", "threshold"): ["fires"],
        ("dev-0004", "t.zscore", "threshold"): ["fires"],
    }
    lines = monitors.render(plan_of(*fleet(5)), told)
    assert lines[2:] == ["    fires", "plan: 5 to create, 0 to change, 0 to keep"]
    assert monitors.render(plan_of(*fleet(5)), told, full=True).count("    fires") == 2


@examples(600)
@given(name=st.text(min_size=1, max_size=8), many=st.booleans())
def test_names_cannot_move_the_cursor(name: str, many: bool) -> None:
    """Whatever a device, a metric or a message is called, each line is printable, also in colour but for the
    colour itself."""
    of = [wanted(f"{name}{i}", metric=name, message=name) for i in range(5 if many else 1)]
    lines = monitors.render(plan_of(*of, notes=(name,), problems=(Problem("drift", name),)))
    assert all(line.isprintable() for line in lines)
    painted = "\n".join(monitors.painted(lines))
    for paint in ("\x1b[32m", "\x1b[1;31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"):
        assert paint in painted
        painted = painted.replace(paint, "")
    assert painted.split("\n") == lines


# ---- JSON ------------------------------------------------------------------------------------------------


def test_values_for_programs() -> None:
    """Each change with the whole monitor before and after it, what differs, and its forecast; counts, and
    forecasts of what is kept."""
    plan = mixed()
    forecasts = {plan.changes[0].key: {"then": 3}, ("dev-9", "t", "threshold"): {"then": 0}}
    found = json.loads(json.dumps(monitors.values(plan, forecasts)))
    none = dict.fromkeys(("create", "delete", "keep", "stale", "not_ours", "problems"), 0)
    assert found["counts"] == none | {"change": 4, "replace": 1}
    first, last = found["changes"][0], found["changes"][-1]
    usual = {"min": None, "severity": "warning", "message": None, "targets": None}
    assert first == {
        "action": "change",
        "source": "dev-1",
        "metric": "t.zscore",
        "part": "threshold",
        "document": "m.json#/0",
        "why": None,
        "before": usual | {"max": 9},
        "after": usual | {"max": 3},
        "fields": [{"name": "max", "old": 9, "new": 3}],
        "forecast": {"then": 3},
    }
    assert (last["action"], last["metric"], last["before"]["targets"]) == ("replace", None, None)
    assert (last["after"]["targets"], last["forecast"]) == ([DEV_1], None)
    assert found["forecasts_of_kept"] == [
        {"source": "dev-9", "metric": "t", "part": "threshold", "forecast": {"then": 0}}
    ]


def test_what_only_prune_deletes_stands_apart() -> None:
    """Without prune a monitor that nobody wants is stale, with it a change."""
    known = KnownSources({"dev-1": "dev-1"}, ("dev-1",))
    rows = [row("dev-1", threshold=threshold(message="[plexus-detect:00000000]"))]
    existing = monitors.existing_from(rows)
    for prune, places in ((False, (0, 1)), (True, (1, 0))):
        expansion = monitors.expand((), known, {}, existing)
        plan = monitors.plan(expansion, existing, Ownership(overwrite=True), prune=prune)
        found = monitors.values(plan)
        assert (len(found["changes"]), len(found["stale"])) == places
        (gone,) = found["changes"] + found["stale"]
        assert (gone["action"], gone["after"], gone["why"]) == ("delete", None, "no document wants it")


# ---- Markdown --------------------------------------------------------------------------------------------


class Shown(html.parser.HTMLParser):
    """What a browser makes of Markdown by GitHub's own parser: its tags, its text in and outside of code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.code: list[str] = []
        self.plain = ""
        self._inside = False
        self.feed(cmarkgfm.github_flavored_markdown_to_html(text, Options.CMARK_OPT_UNSAFE))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag begins."""
        self.tags.append(tag)
        if tag == "code":
            self._inside = True
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        """A tag ends."""
        self._inside = self._inside and tag != "code"

    def handle_data(self, data: str) -> None:
        """A text, or a part of one."""
        if self._inside:
            self.code[-1] += data
        else:
            self.plain += data


def test_markdown_for_a_comment() -> None:
    """A first line to find it by, a summary, a table with the pager cost, the devices folded."""
    plan = mixed()
    costs = {plan.changes[0].key: Cost(7, 2), plan.changes[1].key: Cost(None, 3)}
    lines = monitors.markdown(plan, costs, 7).splitlines()
    assert lines[0] == MARK
    assert "Firings in the last 7 days: 7 with the monitors as they are, **5** as planned." in lines
    assert "|  | monitor | on | settings | firings in 7 days |" in lines
    row_of = "| ~ change | threshold `t.zscore` | 4 devices | `max: 9 -> 3` | 7 → 5 on 2 of 2 |"
    assert row_of in lines
    page = Shown("\n".join(lines))
    assert page.tags.count("tr") == 1 + 2
    assert page.tags.count("details") == 1
    assert "firings" not in monitors.markdown(plan)


NASTY = (
    "a|b", "`", "``x`", "<img src=x onerror=alert(1)>", "</details>", "@everyone", "#1",
    "[x](http://evil.example)", "`www.evil.example", "www.evil.example", "*a*", "a\\|b", "\\", "&lt;", "-->",
    "x\ny", "| --- |", " ", "",
    "\u202e", "|@team`", " a ", "`a`  b",
)  # fmt: skip


@examples(600)
@given(name=st.one_of(st.sampled_from(NASTY), st.text(max_size=8)))
def test_no_name_escapes_from_its_code_span(name: str) -> None:
    """Names, messages and sentences show as they are and do nothing: no tag, no link, no mention, no cell."""
    of = [wanted(name or "x", metric=name or "x", message=name)]
    plan = plan_of(*of, *fleet(4, metric=f"m {name}"), problems=(Problem("drift", name),), notes=(name,))
    page = Shown(monitors.markdown(plan))
    allowed = {
        "p",
        "strong",
        "ul",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "details",
        "summary",
    }
    assert set(page.tags) <= allowed
    assert page.tags.count("tr") == 3
    assert page.tags.count("td") == 8
    assert "@" not in page.plain
    assert all(line.isprintable() for line in monitors.markdown(plan).splitlines())


def test_code_says_what_it_holds() -> None:
    """A name is shown unchanged, but for what could not be seen; also in a cell."""
    for name in NASTY:
        for place in (f"{code(name)} end", f"| a |\n| --- |\n| {code(name)} |"):
            assert Shown(place).code == [visible(name)], place


@pytest.mark.parametrize("n", [1000, 5000])
def test_a_comment_has_its_limit(n: int) -> None:
    """A long plan stays below 60,000 characters, is whole Markdown, and says what was left out."""
    troubles = tuple(Problem("drift", f"monitor {i} " + "x" * 300) for i in range(300))
    each = [wanted(f"dev-{i:05d}", metric=f"m{i % 40}.zscore", line=i % 3) for i in range(n)]
    text = monitors.markdown(plan_of(*each, problems=troubles))
    assert len(text) < 60_000
    assert text.count("<details>") == text.count("</details>") >= 1
    assert "Left out, since a comment has its limit: " in text.splitlines()[-1]
    assert text.splitlines()[-1].endswith("lists all.")


def test_each_form_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is, without colours where there is no terminal, each with what it shows of an outlook."""
    plan, key = plan_of(wanted("dev-1")), ("dev-1", "t.zscore", "threshold")
    show(plan, outlook=Outlook(7, {key: ["fires"]}))
    assert capsys.readouterr().out.splitlines() == monitors.render(plan, {key: ["fires"]})
    show(plan, "json", outlook=Outlook(7, objects={key: {"then": 1}}))
    assert json.loads(capsys.readouterr().out)["changes"][0]["forecast"] == {"then": 1}
    show(plan, "markdown", outlook=Outlook(7, costs={key: Cost(None, 1)}))
    assert capsys.readouterr().out == monitors.markdown(plan, {key: Cost(None, 1)}, 7)
