"""Bad CSV for score, backtest and explain, and bad times in their options: exit 2 and the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from door import KEY, file_at, files_of, refused, through

from plexus_detect import clock

ALL_BYTES = bytes(range(256))

SCORE: dict[str, tuple[str | bytes, str]] = {
    "one field": ("1\n2\n", "line 1: it has 1 fields"),
    "a header of one field": ("ts\n1,2\n", "line 1: it has 1 fields"),
    "a field too few": ("1,2\n2\n", "line 2: it has 1 fields"),
    "a field too many": ("1,2\n2,3,4\n", "line 2: it has 3 fields"),
    "a word as a value": ("1,x\n", "line 1: could not convert"),
    "a word as a time": ("1,2\nx,3\n", "line 2: could not convert"),
    "the header twice": ("ts,v0\nts,v0\n", "line 2: could not convert"),
    "no time": ("1,2\n,3\n", "line 2: could not convert"),
    "NaN as a time": ("1,2\nnan,3\n", "line 2: time 'nan' is out of range"),
    "infinity as a time": ("1,2\ninf,3\n", "line 2: time 'inf' is out of range"),
    "a time too large": ("1,2\n1e300,3\n", "line 2: time '1e300' is out of range"),
    "nanoseconds": ("1e18,2\n", "line 1: time '1e18' is out of range"),
    "a NUL as a time": (b"1,2\n\0,3\n", "line 2: could not convert"),
    "a NUL as a value": (b"1,2\n2,\0\n", "line 2: could not convert"),
    "all bytes": (ALL_BYTES, "is not UTF-8 text"),
    "UTF-16": ("1,2\n2,3\n".encode("utf-16"), "line 1 or one after it is not UTF-8 text"),
    "Latin-1": (b"1,2\n\xe9,3\n", "is not UTF-8 text"),
    "half a character": (b"1,\xed\xa0\x80\n", "is not UTF-8 text"),
    "a quote that never ends": ('1,"2\n3,4\n', "line 2: could not convert"),
    "a long field": ("1," + "9" * 200_000 + "\n", "line 1: field larger than field limit"),
    "a long word": ("1," + "x" * 100_000 + "\n", "line 1: could not convert"),
    "semicolons": ("1;2\n2;3\n", "line 1: it has 1 fields"),
    "tabs": ("1\t2\n2\t3\n", "line 1: it has 1 fields"),
    "commas in numbers": ("1,2,5\n2,3\n", "line 2: it has 2 fields"),
    "a mistake after a carriage return": ("1,2\r\n2,x\r\n", "line 2: could not convert"),
    "old line ends": ("1,2\r2,x\r", "line 2: could not convert"),
    "hexadecimal": ("1,0x10\n", "line 1: could not convert"),
    "underscores": ("1,2\n1,1__0\n", "line 2: could not convert"),
    "5000 columns, then two": ("1," + ",".join("1" * 5000) + "\n1,2\n", "line 2: it has 2 fields"),
    "a web page": ("<html>\n<body>\n", "line 1: it has 1 fields"),
    "JSON": ('{"a":1}\n', "line 1: it has 1 fields"),
    "dates": ("2026-01-01T00:00:00Z,1\n2026-01-01T00:00:01Z,1\n", "line 2: could not convert"),
    "an emoji": ("1,\N{GRINNING FACE}\n", "line 1: could not convert"),
    "an escape sequence": ("1,\x1b[31mred\n", "line 1: could not convert"),
    "a formula": ("1,=cmd|x\n", "line 1: could not convert"),
    "a switch": ("1,true\n", "line 1: could not convert"),
    "Python's None": ("1,None\n", "line 1: could not convert"),
    "a key": (f"1,2\n2,{KEY}\n", "line 2: could not convert"),
}


@pytest.mark.parametrize(("content", "words"), SCORE.values(), ids=SCORE)
def test_bad_rows_for_score(tmp_path: Path, content: str | bytes, words: str) -> None:
    """The line, what is wrong, and what a row looks like; no score is printed."""
    refused(through(tmp_path, ["score"], content), 2, words)
    assert files_of(tmp_path) == {}


ODD_BUT_GOOD = {
    "nothing": "",
    "blank lines": "\n\n\n",
    "a header alone": "ts,v0\n",
    "times before 1970": "-1,2\n-2,3\n",
    "infinite values": "1,inf\n2,-inf\n",
    "a value too large": "1,1e400\n",
    "no value": "1,\n2,\n",
    "the largest values": "".join(f"{i},{(-1) ** i * 1.7e308}\n" for i in range(80)),
    "the smallest values": "".join(f"{i},{5e-324 * (i % 3)}\n" for i in range(80)),
    "5000 digits": "1," + "9" * 5000 + "\n",
    "a byte order mark": "\ufeff1,2\n2,3\n",
    "the same time": "1,2\n" * 50,
    "fractions of a millisecond": "0.00001,1\n0.00002,1\n",
}


@pytest.mark.parametrize("content", ODD_BUT_GOOD.values(), ids=ODD_BUT_GOOD)
def test_odd_rows_for_score(tmp_path: Path, content: str) -> None:
    """What is odd but has a meaning gets a score a row, silently."""
    said = through(tmp_path, ["score"], content)
    assert (said.code, said.err) == (0, "")
    rows = [line for line in content.splitlines() if line and not line.startswith("ts")]
    assert len(said.out.splitlines()) == len(rows)


@pytest.mark.parametrize("name", ["nope", "", "auto ", KEY, "x\ny", "\x1b[31m", "x" * 100_000])
def test_a_detector_that_is_none(tmp_path: Path, name: str) -> None:
    """The names that there are; the one given is shown short, on one line, and harmless."""
    refused(through(tmp_path, ["score", "--detector", name], "1,2\n"), 2, "no detector", "season")


HEAD = "timestamp,source,metric,value\n"
GOOD = HEAD + "".join(f"{1_790_000_000 + i},dev,t,{20 + i % 5}\n" for i in range(50))
POINTS: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "there is no row in it"),
    "blank lines": ("\n\n", "there is no row in it"),
    "a header alone": (HEAD, "there is no value in it"),
    "empty values": (HEAD + "1,a,t,\n", "there is no value in it"),
    "no source": ("timestamp,metric,value\n1,t,2\n", "p.csv:2: could not convert"),
    "no time": ("source,metric,value\na,t,1\n", "p.csv:1: the header names no column 'timestamp'"),
    "a field too few": (HEAD + "1,a,t\n", "p.csv:2: the row has 3 fields"),
    "a field too many": (HEAD + "1,a,t,2,3\n", "p.csv:2: the row has 5 fields"),
    "a word as a time": (HEAD + "x,a,t,2\n", "p.csv:2: Invalid isoformat"),
    "a word as a value": (HEAD + "1,a,t,x\n", "p.csv:2: could not convert"),
    "a time before 1970": (HEAD + "-5,a,t,1\n", "p.csv:2: -5 is out of range"),
    "a time too large": (HEAD + "9e15,a,t,1\n", "p.csv:2: 9e15 is out of range"),
    "NaN as a time": (HEAD + "nan,a,t,1\n", "p.csv:2: nan is out of range"),
    "infinity as a time": (HEAD + "inf,a,t,1\n", "p.csv:2: inf is out of range"),
    "the year 1": (HEAD + "0001-01-01,a,t,1\n", "p.csv:2: 0001-01-01 is out of range"),
    "before the year 1": (HEAD + "0001-01-01T00:00:00+23:59,a,t,1\n", "p.csv:2: 0001-01-01T"),
    "after the year 9999": (HEAD + "9999-12-31T23:59:59-23:59,a,t,1\n", "p.csv:2: 9999-12-31T"),
    "the thirteenth month": (HEAD + "2026-13-01,a,t,1\n", "p.csv:2: month must be in 1..12"),
    "a zone that is none": (HEAD + "2026-01-01T00:00:00+99:00,a,t,1\n", "p.csv:2: offset must be"),
    "UTF-16": (HEAD.encode("utf-16"), "it is not UTF-8 text"),
    "all bytes": (ALL_BYTES, "it is not UTF-8 text"),
    "half a character": (HEAD.encode() + b"1,\xed\xa0\x80,t,1\n", "it is not UTF-8 text"),
    "a NUL as a value": (HEAD + "1,a,t,\0\n", "p.csv:2: could not convert"),
    "a long name": (HEAD + "1," + "a" * 200_000 + ",t,1\n", "p.csv:2: field larger than field limit"),
    "a long value": (HEAD + "1,a,t," + "x" * 100_000 + "\n", "p.csv:2: could not convert"),
    "an own name": (HEAD + "1,a,t.zscore,1\n", "none of the 1 series in the file is selected"),
    "one field": ("1\n", "p.csv:1: the row has one field"),
    "one field in the header": ("ts\n", "p.csv:1: the row has one field"),
    "words": ("a,b\nc,d\n", "p.csv:2: Invalid isoformat"),
    "a quote that never ends": (HEAD + '"1,a,t,1\n', "p.csv:2: the row has 1 fields"),
    "a web page": ("<html>\n<b>", "p.csv:1: the row has one field"),
    "a key": (HEAD + f"1,a,t,{KEY}\n", "p.csv:2: could not convert"),
}


@pytest.fixture(name="_midnight", autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still."""
    monkeypatch.setattr(clock, "now_ms", lambda: 1_800_000_000_000)


@pytest.mark.parametrize(
    "command", [["backtest", "--jobs", "1"], ["explain", "a", "t", "now"]], ids=["backtest", "explain"]
)
@pytest.mark.parametrize(("content", "words"), POINTS.values(), ids=POINTS)
def test_bad_points(tmp_path: Path, command: list[str], content: str | bytes, words: str) -> None:
    """File, line, what is wrong and what a row looks like; nothing is printed or written."""
    file_at(tmp_path, "p.csv", content)
    before = files_of(tmp_path)
    known = command[0] == "backtest" or words.startswith("p.csv")
    refused(through(tmp_path, [*command, "--csv", "p.csv"]), 2, *((words,) if known else ()))
    assert files_of(tmp_path) == before


ODD_POINTS = {
    "no number": HEAD + "1,a,t,nan\n2,a,t,nan\n",
    "infinite": HEAD + "1,a,t,inf\n2,a,t,-inf\n",
    "one point": HEAD + "1,a,t,1\n",
    "136 years": HEAD + "0,a,t,1\n4.3e9,a,t,1\n",
    "one point many times": HEAD + "1,a,t,1\n" * 50,
    "a NUL in a name": HEAD + "1,a\0,t,1\n",
    "a line break in a name": HEAD + '1,"a\nb",t,1\n',
    "an escape sequence in a name": HEAD + "1,\x1b[31ma,\u202et,1\n",
    "names of nothing": HEAD + "1,,,1\n",
    "the largest values": HEAD + "".join(f"{1790000000 + i},a,t,{(-1) ** i * 1.7e308}\n" for i in range(99)),
}


@pytest.mark.parametrize("content", ODD_POINTS.values(), ids=ODD_POINTS)
def test_odd_points(tmp_path: Path, content: str) -> None:
    """What is odd but has a meaning is replayed and drawn, and no terminal obeys a device's name."""
    file_at(tmp_path, "p.csv", content)
    said = through(tmp_path, ["backtest", "--csv", "p.csv", "--jobs", "1", "--html", "o.html"])
    assert (said.code, said.err) == (0, "")
    assert "\x1b" not in said.out
    assert "\u202e" not in said.out
    assert (tmp_path / "o.html").exists()


def test_no_terminal_obeys_a_name(tmp_path: Path) -> None:
    """A device, and a metric, whose name is an escape sequence, in the receipt of a score and in figures."""
    name = "\x1b]0;gotcha\x07\x1b[2J"
    rows = [f"{1_790_000_000 + i},{name},{name},{20 + i % 5 + 80 * (i > 280)}\n" for i in range(300)]
    file_at(tmp_path, "p.csv", HEAD + "".join(rows))
    asked = through(tmp_path, ["explain", "--csv", "p.csv", name, name, "1790000290"])
    figures = through(tmp_path, ["backtest", "--csv", "p.csv", "--jobs", "1"])
    for said in (asked, figures):
        assert (said.code, said.err) == (0, "")
        assert "gotcha" in said.out
        assert "\x1b" not in said.out
        assert "\x07" not in said.out


OPTIONS = [
    *(
        ("--from", text)
        for text in ("x", "", "1e30", "9" * 5000, "1e308d", "0001-01-01", "\x1b[31m", "x\ny", "now")
    ),
    *(("--to", text) for text in ("nan", "-5", "inf", "9999-12-31T23:59:59-23:59", "99999d")),
    *(("--max-alerts", text) for text in ("x", "-1/week", "nan/week", "1/year", "1e400/day")),
    *(("--fail-under", text) for text in ("x", "recall=0.5", "recall=nan", "recall=2", "speed=1")),
    *(("--jobs", text) for text in ("0", "-1", "x", "1e9")),
    *(("--html", text) for text in ("nowhere/x.html", ".", "x" * 300)),
    *(("--labels", text) for text in ("nowhere", ".", "x" * 5000)),
    *(("--csv", text) for text in ("nowhere", ".", "/dev/null", "x" * 5000)),
    ("--output", "xml"),
]


@pytest.mark.parametrize(("option", "text"), OPTIONS, ids=lambda value: value[:20])
def test_a_bad_option(tmp_path: Path, option: str, text: str) -> None:
    """Exit 2 with the option or the file that it names."""
    file_at(tmp_path, "p.csv", GOOD)
    said = through(tmp_path, ["backtest", "--csv", "p.csv", "--jobs", "1", option, text])
    assert said.code == 2, said
    assert len(said.sentences) == 1
    assert (option if option not in ("--csv", "--labels", "--to") else "") in said.err


LABELS = "source,metric,start,end\n"
BAD_LABELS: dict[str, tuple[str | bytes, str]] = {
    "no end": ("source,metric,start\na,b,1\n", "l.csv:1: the header names no column 'end'"),
    "a field too few": (LABELS + "a,b,1\n", "l.csv:2: the row has 3 fields"),
    "a word as a time": (LABELS + "a,b,x,2\n", "l.csv:2: Invalid isoformat"),
    "the end before the start": (LABELS + "a,b,5,2\n", "l.csv:2: the end 2 is before the start"),
    "NaN": (LABELS + "a,b,nan,2\n", "l.csv:2: nan is out of range"),
    "a time too large": (LABELS + "a,b,1,1e300\n", "l.csv:2: 1e300 is out of range"),
    "the year 1": (LABELS + "a,b,0001-01-01,2026-01-01\n", "l.csv:2: 0001-01-01 is out of range"),
    "UTF-16": (LABELS.encode("utf-16"), "it is not UTF-8 text"),
    "all bytes": (ALL_BYTES, "it is not UTF-8 text"),
    "a long field": (LABELS + "a,b,1," + "2" * 200_000, "l.csv:2: field larger than field limit"),
    "a quote that never ends": (LABELS + '"a,b,1,2\n', "l.csv:2: the row has 1 fields"),
    "JSON": ('{"a": 1}', "l.csv:1: the row has 1 fields"),
}


@pytest.mark.parametrize(("content", "words"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels(tmp_path: Path, content: str | bytes, words: str) -> None:
    """File, line and what is wrong, before any point is read."""
    file_at(tmp_path, "p.csv", GOOD)
    file_at(tmp_path, "l.csv", content)
    refused(through(tmp_path, ["backtest", "--csv", "p.csv", "--labels", "l.csv"]), 2, words)


QUESTIONS = {
    "an unknown source": (["de", "t", "1790000030"], "did you mean 'dev'"),
    "an unknown metric": (["dev", "tt", "1790000030"], "did you mean 't'"),
    "a time before the data": (["dev", "t", "1"], "no sample at or before"),
    "no time": (["dev", "t", "x"], "is no time"),
    "a time too large": (["dev", "t", "1e300"], "is no time"),
    "a duration too long": (["dev", "t", "1e15d"], "is no time"),
    "a time of years back": (["dev", "t", "99999999999999d"], "TIME"),
    "the year 1": (["dev", "t", "0001-01-01"], "is no time"),
    "nothing at all": (["", "", ""], "is no time"),
    "an escape sequence": (["\x1b[31m", "t", "1790000030"], "is not known here"),
    "a line break": (["a\nb", "t", "1790000030"], "is not known here"),
    "a start after it": (["dev", "t", "1790000030", "--from", "1790000040"], "is not before TIME"),
    "arguments missing": (["dev"], "Missing argument 'METRIC'"),
}


@pytest.mark.parametrize(("arguments", "words"), QUESTIONS.values(), ids=QUESTIONS)
def test_a_bad_question(tmp_path: Path, arguments: list[str], words: str) -> None:
    """Exit 2 with the argument that is wrong and what is near it."""
    file_at(tmp_path, "p.csv", GOOD)
    refused(through(tmp_path, ["explain", "--csv", "p.csv", *arguments]), 2, words)
