"""backtest page: one file that needs nothing else, escaped, small, and drawn as the data are."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from backtest_week import DAY, HOUR, T0, drawn, episode

from plexus_detect.backtest import page, plot
from plexus_detect.backtest.bins import Bins, stretches
from plexus_detect.backtest.figures import figures_of
from plexus_detect.backtest.labels import Label
from plexus_detect.backtest.moments import Span
from plexus_detect.backtest.replay import Episode
from plexus_detect.series import SeriesKey

SPAN = Span(T0, T0 + 7 * DAY)
EVIL = '<script>alert("1")</script>&\'$title'


class Tags(HTMLParser):
    """The tags of a page that are open at its end, and every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself."""
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that is open from now on, but for those that never close."""
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """The tag that was opened last."""
        assert self.open.pop() == tag


def rendered(
    keys: list[SeriesKey], episodes: list[Episode], labels: tuple[Label, ...] = (), n: int = 96
) -> str:
    """A page of quiet series with these episodes."""
    shown, bins = drawn(keys, SPAN, n)
    shown = replace(shown, episodes=episodes)
    figures = figures_of(shown, SPAN, list(labels) if labels else None)
    return page.render(page.Report("Backtest", "note", figures, shown, bins, labels, ("recall is 0.1",)))


def test_the_page_needs_nothing_else() -> None:
    """No address, no import, no font, and a policy that forbids them; every tag is closed."""
    text = rendered([SeriesKey("a", "t")], [episode(5, 6)])
    parsed = Tags()
    parsed.feed(text)
    assert parsed.open == []
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text.replace("http://www.w3.org/2000/svg", ""))
    assert {name for _tag, name, _value in parsed.attributes} & {
        "src",
        "srcset",
        "action",
        "onclick",
    } == set()
    assert all(value.startswith("#") for _tag, name, value in parsed.attributes if name == "href")
    assert "default-src 'none'" in text


def test_names_from_data_are_escaped() -> None:
    """A source, a metric and a label with markup in their names stay text everywhere."""
    label = Label(EVIL, EVIL, T0 + HOUR, T0 + 2 * HOUR, EVIL)
    text = rendered([SeriesKey(EVIL, EVIL)], [episode(5, 6, source=EVIL, metric=EVIL)], (label,))
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(&quot;1&quot;)") >= 5
    assert text.count("<script>") == 1


@pytest.mark.parametrize(
    "name",
    [
        "</script><script>alert(1)</script>",
        "</title><img src=x onerror=alert(1)>",
        "\" onmouseover='alert(1)' x=\"",
        "\u202egnp.exe\u2066\u200f",
        "]]>--><!--<![CDATA[",
        "\x00\x1b[2J\x7f\u2028",
        "$title ${axis} {0} %s &amp; &#x202e;",
        "<svg/onload=alert(1)>",
    ],
    ids=range(8),
)
def test_no_name_changes_the_page(name: str) -> None:
    """Read as a browser would: the same tags and attributes as with plain names, the same script, and no mark
    of direction or control character anywhere."""
    label = Label(name, name, T0 + HOUR, T0 + 2 * HOUR, name)
    text = rendered([SeriesKey(name, name)], [episode(5, 6, source=name, metric=name)], (label,))
    plain = Label("a", "b", T0 + HOUR, T0 + 2 * HOUR, "c")
    known = rendered([SeriesKey("a", "b")], [episode(5, 6, source="a", metric="b")], (plain,))
    pages = Tags(), Tags()
    for page_, source in zip(pages, (text, known), strict=True):
        page_.feed(source)
        assert page_.open == []
    tags = [[(tag, attribute) for tag, attribute, _value in page_.attributes] for page_ in pages]
    assert tags[0] == tags[1]
    scripts = [re.findall(r"<script>.*?</script>", source, re.DOTALL) for source in (text, known)]
    assert scripts[0] == scripts[1]
    assert text.replace("\n", "").isprintable()


def test_the_worst_device_comes_first_and_is_open() -> None:
    """Devices with episodes are open up to a number, the others closed; all have their plots."""
    keys = [SeriesKey(f"dev-{k}", "t") for k in range(6)]
    text = rendered(keys, [episode(5, 9, source="dev-4"), episode(5, 6, source="dev-2")])
    assert re.findall(r'<details class="device" id="d\d"( open)?><summary><b>\d. (dev-\d)', text) == [
        (" open", "dev-4"),
        (" open", "dev-2"),
        *(("", f"dev-{k}") for k in (0, 1, 3, 5)),
    ]
    assert text.count("<figure") == 6
    assert "4 devices without an episode" in text
    assert "Gate failed: recall is 0.1." in text


def test_a_week_of_twenty_devices_is_small() -> None:
    """Sixty noisy series with the bins that they get: the page stays far below 5 MB."""
    keys = [SeriesKey(f"greenhouse-{d:02d}", metric) for d in range(20) for metric in ("t", "h", "p")]
    shown, bins = drawn(keys, SPAN, page.bins_for(len(keys)))
    rng = np.random.default_rng(0)
    for name in ("low", "centre", "lower", "upper"):
        getattr(bins, name)[:] += rng.normal(0, 0.5, bins.low.shape)
    bins.high[:] = bins.low + rng.random(bins.low.shape)
    bins.worst[:] = 2 * rng.random(bins.low.shape)
    text = page.render(page.Report("t", "n", figures_of(shown, SPAN, None), shown, bins))
    assert len(text.encode()) < 4_900_000
    assert text.count("<figure") == 60


def test_too_many_devices_are_listed_without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the plots fill their share the others say why they have none."""
    monkeypatch.setattr(page, "DEVICE_BYTES_MAX", 3_000)
    text = rendered([SeriesKey(f"dev-{k}", "t") for k in range(9)], [])
    assert 1 <= text.count("<figure") < 9
    assert text.count("<figure") + text.count(page.NO_PLOTS) == 9


def test_a_fleet_of_thousands_is_a_small_page() -> None:
    """Every device with episodes in every hour: tables, heat and ranking are bounded as the plots are."""
    keys = [SeriesKey(f"device-with-a-long-name-{k:04d}", "temperature") for k in range(1_200)]
    shown, bins = drawn(keys, SPAN, 96)
    bins.worst[:] = 6 * np.random.default_rng(0).random(bins.worst.shape)
    for key in keys:
        shown.episodes.extend(
            episode(h, h + 1, source=key.source, metric=key.metric) for h in range(0, 160, 4)
        )
    text = page.render(page.Report("t", "n", figures_of(shown, SPAN, None), shown, bins))
    assert len(text.encode()) < 4_900_000
    assert "200 devices ranked lowest are left out" in text


def test_a_page_without_samples_is_a_page() -> None:
    """A period in which nothing came has figures and no plots."""
    shown, bins = drawn([], SPAN)
    assert "<figure" not in page.render(page.Report("t", "n", figures_of(shown, SPAN, []), shown, bins))


# --- what is drawn ----------------------------------------------------------------------------------------


def read_back(text: str) -> list[list[tuple[int, int]]]:
    """The polylines of a path."""
    lines: list[list[tuple[int, int]]] = []
    x = y = 0
    for command, a, b in re.findall(r"([Mhvl])(-?\d+)(?: ?(-?\d+))?", text):
        if command == "M":
            x, y = int(a), int(b)
            lines.append([])
        else:
            x += int(a) if command in "hl" else 0
            y += int(a) if command == "v" else int(b or 0)
        lines[-1].append((x, y))
    return lines


def spiky() -> Bins:
    """A flat series with a spike, a band and a hole."""
    bins = Bins(Span(0, 1_000), 100)
    bins.grow(1)
    t_ms = np.concatenate([np.arange(0, 300, 2), np.arange(600, 1_000, 2)])
    value = np.where(t_ms == 700, 9.0, 1.0)
    rows = np.zeros(len(t_ms), np.int64)
    bins.add(rows, t_ms, value)
    for name, level in (("centre", 1.0), ("lower", 0.0), ("upper", 2.0)):
        bins.band(name, rows[20:], t_ms[20:], np.full(len(t_ms) - 20, level))
    return bins


def test_paths_say_what_the_bins_hold() -> None:
    """Two lines with a gap between; the spike goes up and comes back; the band begins when it is known."""
    bins = spiky()
    runs, axis = stretches(bins, 0), plot.axis_of(bins, 0)
    first, second = read_back(plot.value_path(bins, 0, axis, runs))
    base, top = axis.y(np.array([1.0, 9.0])).tolist()
    assert (first[0], first[-1]) == ((0, base), (29, base))
    assert (second[0], second[-1]) == ((60, base), (99, base))
    assert [p for p in second if p[1] == top] == [(70, top)]
    assert plot.gaps(runs, 100) == [(30, 59)]
    early, _late = read_back(plot.band_path(bins, 0, axis, runs))
    assert min(x for x, _y in early) == 4
    assert {y for _x, y in early} == set(axis.y(np.array([0.0, 2.0])).tolist())


def test_a_value_from_another_world_does_not_flatten_the_rest() -> None:
    """The axis keeps to the usual values and says that it is cut."""
    bins = spiky()
    bins.high[0, 70] = 1e30
    bins.low[0, :30] = 0.5
    axis = plot.axis_of(bins, 0)
    assert axis.cut
    assert axis.high < 100


def test_a_constant_series_has_an_axis() -> None:
    """Its value lies inside."""
    bins = Bins(Span(0, 10), 5)
    bins.grow(1)
    for level in (0.0, 5.0, -3e9):
        bins.low[0], bins.high[0], bins.count[0] = level, level, 1
        axis = plot.axis_of(bins, 0)
        assert axis.low < level < axis.high
        assert plot.ticks(axis)


def test_heat_is_the_worst_of_a_device() -> None:
    """A cell without samples, one without a score, a calm one, and one far beyond the line."""
    bins = Bins(Span(0, 8), 8)
    bins.grow(2)
    bins.count[:, 2:] = 1
    bins.worst[0, 4:] = 0.4
    bins.worst[1, 7] = 7.0
    assert plot.heat_of(bins, [0, 1], 4) == ".u05"
    assert plot.heat_of(bins, [], 4) == "...."
    assert plot.heat_paths("..u5") == [
        (".", "M0 0h2v10h-2z"),
        ("5", "M3 0h1v10h-1z"),
        ("u", "M2 0h1v10h-1z"),
    ]


@pytest.mark.parametrize("hours", [0.2, 3, 24, 24 * 7, 24 * 60, 24 * 900])
def test_time_marks_are_few_and_round(hours: float) -> None:
    """At least one and no more than fit, within the period."""
    marks = plot.time_marks(Span(T0 + 12_345, round(T0 + 12_345 + hours * HOUR)))
    assert 1 <= len(marks) <= plot.MARKS_MAX + 1
    assert all(0 <= at < 1 and text for at, text in marks)
