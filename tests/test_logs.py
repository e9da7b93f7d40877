"""The log: one line an event, readable by machines, without keys."""

from __future__ import annotations

import io
import json
import logging
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexus_detect.logs import LogFormat, event, setup_logging
from plexus_detect.redaction import redact

KEY = "plx_0123456789abcdef+/=_-ABCDEF01"
FORMATS: list[LogFormat] = ["logfmt", "json", "text"]
WORKER = logging.getLogger("plexus_detect.worker")


def logged(name: str, layout: LogFormat = "logfmt", lowest: str = "info", /, **fields: object) -> str:
    """The text that one event leaves in the log."""
    stream = io.StringIO()
    setup_logging(lowest, layout, stream)
    event(WORKER, logging.INFO, name, **fields)
    return stream.getvalue()


def read_logfmt(line: str) -> dict[str, str]:
    """A logfmt line as a mapping: bare values as they stand, quoted ones read as JSON."""
    pairs = re.findall(r'([^\s=]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)(?: |$)', line)
    assert " ".join(f"{key}={value}" for key, value in pairs) == line
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


def test_a_logfmt_line_has_the_stable_keys_first() -> None:
    """ts, level, component and event lead, the event's own fields follow in their order."""
    line = logged("tick", points=3, dur_ms=1.5, note="two words", ok=True, err=None).rstrip("\n")
    said = read_logfmt(line)
    assert list(said) == ["ts", "level", "component", "event", "points", "dur_ms", "note", "ok", "err"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("ts"))
    assert line.split(" ", 1)[1] == (
        'level=info component=worker event=tick points=3 dur_ms=1.5 note="two words" ok=true err=null'
    )


def test_a_json_line_keeps_types() -> None:
    """Numbers, switches, lists and NumPy scalars are JSON's own; NaN, which JSON has not, is a word."""
    values = {"n": np.int64(3), "x": np.float32(0.5), "z": np.nan, "names": ("a", 1), "more": {1: [True]}}
    said = json.loads(logged("tick", "json", **values, path=io.StringIO))
    assert said["event"] == "tick"
    assert (said["n"], said["x"], said["z"]) == (3, 0.5, "nan")
    assert (said["names"], said["more"], said["path"]) == (["a", 1], {"1": [True]}, "<class '_io.StringIO'>")


def test_a_text_line_reads_like_a_sentence() -> None:
    """Text has time, level and component first and the event's name without a key."""
    assert re.fullmatch(
        r"\S+Z INFO    worker: anomaly opened source=dev-1 value=26.4\n",
        logged("anomaly opened", "text", source="dev-1", value=26.4),
    )


@given(name=st.text(), value=st.text(), format_=st.sampled_from(FORMATS))
def test_every_event_is_one_line(name: str, value: str, format_: LogFormat) -> None:
    """No content breaks a line or needs more than a terminal can show."""
    text = logged(name, format_, value=value)
    assert text.endswith("\n")
    assert text[:-1].isprintable()


@given(name=st.text(), value=st.text(), whole=st.integers(), number=st.floats(allow_nan=False))
def test_logfmt_reads_back(name: str, value: str, whole: int, number: float) -> None:
    """What was put in comes out of a logfmt reader, whatever quotes, spaces or breaks it has."""
    said = read_logfmt(logged(name, value=value, whole=whole, number=number).rstrip("\n"))
    assert (said["event"], said["value"]) == (name, value)
    assert (int(said["whole"]), float(said["number"])) == (whole, number)


@pytest.mark.parametrize("format_", FORMATS)
def test_no_key_is_ever_logged(format_: LogFormat) -> None:
    """Keys are blotted out of names, fields, nested fields, plain messages and errors."""
    stream = io.StringIO()
    setup_logging("debug", format_, stream)
    try:
        raise ValueError(f"key {KEY} was refused")
    except ValueError as error:
        event(WORKER, logging.ERROR, f"failed {KEY}", key=KEY, deep={"a": [KEY]}, exc_info=error)
    WORKER.info("x-api-key: %s", KEY)
    WORKER.exception("outside of any error %s", KEY)
    text = stream.getvalue()
    assert "plx_***" in text
    assert KEY[4:12] not in text
    assert len(text.splitlines()) == 3


def test_redaction_takes_the_key_and_nothing_else() -> None:
    """What surrounds a key stays, and a word that is too short to be one stays whole."""
    assert redact(f"a '{KEY}', {KEY}.") == "a 'plx_***', plx_***."
    assert redact("keys begin with plx_ or plx_1234567") == "keys begin with plx_ or plx_1234567"


def test_an_error_is_told_with_its_trace_on_the_same_line() -> None:
    """err is the error in short, trace says where; both are on the event's one line."""
    stream = io.StringIO()
    setup_logging("info", "json", stream)
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError as error:
        event(WORKER, logging.ERROR, "failed", exc_info=error)
    said = json.loads(stream.getvalue())
    assert (said["level"], said["err"]) == ("error", "RuntimeError: two\nlines")
    assert "test_logs.py" in said["trace"]


def test_a_field_cannot_displace_a_stable_key() -> None:
    """A field named like a stable key gets an underscore, so that ts and event stay what they are."""
    said = read_logfmt(logged("tick", ts=1, event="x", level="y", component="z").rstrip("\n"))
    assert (said["event"], said["level"], said["component"]) == ("tick", "info", "worker")
    assert (said["ts_"], said["event_"], said["level_"], said["component_"]) == ("1", "x", "y", "z")


def test_levels_and_other_libraries() -> None:
    """Our own events are shown from the level on, other libraries' only as warnings and worse."""
    assert logged("tick", "logfmt", "warning") == ""
    stream = io.StringIO()
    setup_logging("debug", "logfmt", stream)
    event(WORKER, logging.DEBUG, "tick")
    logging.getLogger("httpx").info("HTTP Request: GET %s", "http://x")
    logging.getLogger("httpx").warning("odd %s", "thing")
    lines = [read_logfmt(line) for line in stream.getvalue().splitlines()]
    assert [(said["component"], said["event"], said.get("msg")) for said in lines] == [
        ("worker", "tick", None),
        ("httpx", "log", "odd thing"),
    ]


def test_a_second_setup_replaces_the_first() -> None:
    """After a new setup an event is logged once, to the new stream; a foreign handler stays."""
    first, second, foreign = io.StringIO(), io.StringIO(), logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    setup_logging("info", "logfmt", first)
    setup_logging("info", "json", second)
    event(WORKER, logging.INFO, "tick")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["event"] == "tick"
    assert foreign in logging.getLogger().handlers


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stream the log goes to standard error, so that standard output stays data."""
    setup_logging()
    event(WORKER, logging.INFO, "tick")
    out, err = capsys.readouterr()
    assert (out, read_logfmt(err.rstrip("\n"))["event"]) == ("", "tick")
