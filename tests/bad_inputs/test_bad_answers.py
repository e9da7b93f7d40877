"""Bad answers of the platform, through the commands that ask.

Each ends with the documented exit code and one sentence that names the call or the answer, without a key,
and no cursor moves.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from door import KEY, Said, file_at, refused, through
from fake_platform import FakeClock, FakePlatform
from worker_desk import history, opened, quick, tick

from plexus_detect import client as client_module
from plexus_detect.store import Store

PERCENTS = "".join(f"%{byte:02x}" for byte in KEY.encode())
URL = "https://platform.test"
JSON = "application/json"
D = 100_000
ROW = '{"source_id":"dev","metric":"t","value":1.5,"timestamp":"2027-01-15 08:00:00.000"}'
Ask = Callable[[list[str], str, Any], Said]
Answer = str | bytes | httpx.Response


def page(row: str = ROW) -> str:
    """A page of telemetry with this row."""
    return f'{{"data":[{row}],"count":1,"query":{{"to":"2027-01-15T08:00:00.000Z"}}}}'


def field(name: str, text: str) -> str:
    """A page whose row has this text, which need not be JSON, in one field."""
    row = {key: json.dumps(value) for key, value in json.loads(ROW).items()} | {name: text}
    return page("{" + ",".join(f'"{key}":{value}' for key, value in row.items()) + "}")


def response(
    body: str | bytes, status: int = 200, kind: str = "application/json", **headers: str
) -> httpx.Response:
    """An answer with this body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else body.encode()
    return httpx.Response(status, headers={"content-type": kind, **named}, content=content)


TELEMETRY, FLEET, SOURCES, MONITORS, INGEST = (
    "/api/v1/telemetry",
    "/api/fleet/health",
    "/api/sources",
    "/api/monitors",
    "/ingest",
)
GOOD = {
    TELEMETRY: page(),
    FLEET: '{"fleet":[{"source_id":"dev","metrics":{"t":{}}}]}',
    SOURCES: '{"sources":[{"slug":"dev","id":"1","source_type":"device"}]}',
    MONITORS: '{"monitors":[]}',
    INGEST: '{"success":true,"count":0}',
    "/v1/sources/dev/metrics": '["t"]',
}
RUN, PLAN = ["run", "--once"], ["monitors", "plan", "m.json"]
EXPLAIN, BACKTEST = ["explain", "dev", "t", "now"], ["backtest", "--jobs", "1"]


@pytest.fixture(name="ask")
def _ask(tmp_path: Path, stopped: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A command against a platform that answers well, but for one path; waiting takes no time."""
    monkeypatch.setattr(client_module, "trusted", lambda _file: False)
    file_at(tmp_path, "m.json", '{"source_id": "dev*", "metric": "t", "threshold": {"max": 1}}')

    def ask(command: list[str], path: str, answer: Answer) -> Said:
        with respx.mock(assert_all_called=False) as router:
            for known, body in GOOD.items():
                told = answer if known == path else body
                given = told if isinstance(told, httpx.Response) else response(told)
                router.route(path=known).mock(return_value=given)
            router.route().mock(return_value=response('{"error":"not found"}', 404))
            return through(tmp_path, command, env={"PLEXUS_DETECT_STATE__PATH": ":memory:"}, url=URL)

    return ask


ANYWHERE: dict[str, tuple[Answer, int, str]] = {
    "nothing": ("", 1, "truncated"),
    "a web page": (response("<html>x", kind="text/html"), 1, "this is not JSON: check the address"),
    "a web page that claims to be JSON": ("<html>", 1, "malformed"),
    "text": (response("hello", kind="text/plain"), 1, "this is not JSON"),
    "cut off": ('{"data":[{"a"', 1, "truncated"),
    "null": ("null", 1, "got `null`"),
    "a number": ("5", 1, "got `int`"),
    "a text": ('"x"', 1, "got `str`"),
    "a list": ("[]", 1, "got `array`"),
    "an empty object": ("{}", 1, "missing required field"),
    "brackets without end": ("[" * D, 1, "got `array`"),
    "braces without end": ('{"a":' * D, 1, "nested too deep"),
    "deep in what is skipped": ('{"x":' + "[" * D + "]" * D + "}", 1, "nested too deep"),
    "UTF-16": (page().encode("utf-16"), 1, "malformed"),
    "UTF-16 that says so": (
        response(page().encode("utf-16"), kind=f"{JSON}; charset=utf-16"),
        1,
        "malformed",
    ),
    "a NUL": ("\0", 1, "malformed"),
    "all bytes": (bytes(range(256)), 1, "malformed"),
    "a byte order mark": ("\ufeff{}", 1, "malformed"),
    "lines of JSON": ("{}\n{}\n", 1, "missing required field"),
    "moved": (response("", 301, location="https://evil.test/x"), 1, "301 to https://evil.test/x"),
    "moved nowhere": (response("", 302), 1, "302 to nowhere"),
    "moved to where one signs in": (
        response("", 302, location=f"{URL}/sign-in?key={KEY}"),
        3,
        "asks to sign in",
    ),
    "not modified": (response("", 304), 1, "redirects are not followed"),
    "no content": (response("", 204), 1, "truncated"),
    "a part": (response('{"data":[', 206), 1, "truncated"),
    "400": (response('{"error":"points[99999999999999999999] bad"}', 400), 1, "400"),
    "401": (response("{}", 401), 3, "the key is unknown"),
    "402": (response("", 402), 3, "billing"),
    "403 with the key": (response(f'{{"error":"key {KEY} lacks"}}', 403), 3, "key plx_*** lacks"),
    "404": (response("nope", 404), 1, "not that of the platform"),
    "408": (response("", 408), 75, "408"),
    "413": (response("", 413), 1, "too large"),
    "418 with an escape sequence": (response("\x1b[31mtea\x07", 418), 1, "\\u001b[31mtea"),
    "429 for a lifetime": (response("", 429, retry_after="1e9"), 75, "429"),
    "429 into the past": (response("", 429, retry_after="-5"), 75, "429"),
    "429 of 400 digits": (response("", 429, retry_after="9" * 400), 75, "429"),
    "429 until a day that is none": (response("", 429, retry_after="Fri, 99 Foo 2027"), 75, "429"),
    "429 until the end of time": (response("", 429, retry_after="Fri, 31 Dec 9999 23:59:59 GMT"), 75, "429"),
    "429 since the year 1": (response("", 429, retry_after="Mon, 01 Jan 0001 00:00:00 +2359"), 75, "429"),
    "500 of 5000 characters": (response("x" * 5000, 500), 75, "500: xxx"),
    "500 with the key": (response(KEY, 500), 75, "500: plx_***"),
    "500 with the key in percents": (
        response("".join(f"%{b:02x}" for b in KEY.encode()), 500),
        75,
        "plx_***",
    ),
    "500 with the key in base64": (response(base64.b64encode(KEY.encode()), 500), 75, "plx_***"),
    "500 with the key in escapes": (response(KEY.replace("S3", "\\u0053\\u0033"), 500), 75, "plx_***"),
    "503": (response("", 503), 75, "503"),
    "599": (response("", 599), 75, "599"),
    "999": (response("", 999), 75, "999"),
    "400 of 100,000 characters": (response('{"error":"' + "e" * D + '"}', 400), 1, "400"),
    "400 in three lines": (response("a\nb\r\nc", 400), 1, "400: a b c"),
}


@pytest.mark.parametrize(("command", "path"), [(RUN, TELEMETRY), (PLAN, MONITORS)], ids=["run", "plan"])
@pytest.mark.parametrize("answer", ANYWHERE.values(), ids=ANYWHERE)
def test_a_bad_answer_to_anything(
    ask: Ask, command: list[str], path: str, answer: tuple[Answer, int, str]
) -> None:
    """Whoever asks says what came, and ends with the code for it."""
    given, code, words = answer
    sentence = refused(ask(command, path, given), code, words)
    assert path in sentence or "answer" in sentence
    for piece in ("S3cret", "%53%33", "UzNjcmV0", "\\u0053"):
        assert piece not in sentence


TELEMETRY_ANSWERS: dict[str, tuple[str, str]] = {
    "a row of a list": (page("[]"), "$.data[0]"),
    "a row of null": (page("null"), "$.data[0]"),
    "rows of text": ('{"data":"x"}', "$.data"),
    "rows of null": ('{"data":null}', "$.data"),
    "rows twice": ('{"data":5,"data":[]}', "$.data"),
    "5000 digits of rows": ('{"data":' + "9" * 5000 + "}", "$.data"),
    "a source of a number": (field("source_id", "5"), "$.data[0].source_id"),
    "a source of null": (field("source_id", "null"), "$.data[0].source_id"),
    "half a character in a source": (field("source_id", '"\\ud800"'), "surrogate pair"),
    "no source": (page('{"metric":"t","value":1,"timestamp":"2027-01-15 08:00:00.000"}'), "source_id"),
    "a metric of an object": (field("metric", "{}"), "$.data[0].metric"),
    "a value of a word": (field("value", '"x"'), "$.data[0].value"),
    "a value in quotes": (field("value", '"1.5"'), "$.data[0].value"),
    "a value of a list": (field("value", "[]"), "$.data[0].value"),
    "a value of a switch": (field("value", "true"), "$.data[0].value"),
    "a value too large": (field("value", "1e999"), "$.data[0].value"),
    "a value of 400 digits": (field("value", "9" * 400), "$.data[0].value"),
    "NaN": (field("value", "NaN"), "malformed"),
    "a time in ISO form": (field("timestamp", '"2027-01-15T08:00:00.000Z"'), "row 0 has the timestamp"),
    "a day": (field("timestamp", '"2027-01-15"'), "row 0 has the timestamp"),
    "a time of a number": (field("timestamp", "5"), "$.data[0].timestamp"),
    "no time": (field("timestamp", '""'), "row 0 has the timestamp"),
    "the 99th month": (field("timestamp", '"2027-99-15 08:00:00.000"'), "row 0 has the timestamp"),
    "a leap day that was none": (field("timestamp", '"2027-02-29 08:00:00.000"'), "row 0 has the timestamp"),
    "month 0": (field("timestamp", '"0000-00-00 00:00:00.000"'), "row 0 has the timestamp"),
    "a line break in a time": (field("timestamp", '"2027-01-15 08:00:00.00\\n"'), "row 0 has the timestamp"),
    "other digits": (field("timestamp", '"\u0662027-01-15 08:00:00.000"'), "row 0 has the timestamp"),
    "100,000 digits of time": (field("timestamp", f'"{"2" * D}"'), "row 0 has the timestamp"),
    "deep tags": (page(f'{ROW[:-1]},"tags":{"[" * D}{"]" * D}}}'), "nested too deep"),
    "a deep query": ('{"data":[],"query":' + "[" * D + "]" * D + "}", "nested too deep"),
}


@pytest.mark.parametrize("command", [EXPLAIN, BACKTEST], ids=lambda c: c[0])
@pytest.mark.parametrize(("answer", "words"), TELEMETRY_ANSWERS.values(), ids=TELEMETRY_ANSWERS)
def test_a_bad_page(ask: Ask, tmp_path: Path, command: list[str], answer: str, words: str) -> None:
    """Exit 1 with the place in the answer; an answer of an unknown shape is not an empty one."""
    refused(ask(command, TELEMETRY, answer), 1, "telemetry answer", words)


def test_no_bad_page_moves_a_cursor(stopped: FakeClock) -> None:
    """A worker at work gets each of them once: an error in the report, and nothing is taken or recorded."""
    bodies = [body for body, _words in TELEMETRY_ANSWERS.values()]
    bodies += [str(answer) for answer, code, _words in ANYWHERE.values() if isinstance(answer, str) and code]
    platform, store = FakePlatform(history(stopped.t_ms)), Store(":memory:")
    worker = opened(platform, quick(), store)
    tick(worker)
    covered, ticks = worker.running.cursors.covered_ms.copy(), len(list(store.journal(0)))
    for body in bodies:
        stopped.t_ms += 1000
        platform.script["telemetry"] = [body.encode()]
        report = tick(worker)
        assert len(report.errors) == 1, body[:80]
        assert "telemetry answer" in report.errors[0]
        assert (worker.running.cursors.covered_ms == covered).all()
    assert len(list(store.journal(0))) == ticks
    platform.rows.append(("dev-0", "t", stopped.t_ms, 20.0))
    assert tick(worker).points == 1


ODD_PAGES = {
    "null as a value": field("value", "null"),
    "a query of null": '{"data":[],"query":null}',
    "a query of a list": '{"data":[],"query":[]}',
    "an end of a number": '{"data":[],"query":{"to":5}}',
    "an end in the year 1": '{"data":[],"query":{"to":"0001-01-01T00:00:00+23:59"}}',
    "an end after the year 9999": '{"data":[],"query":{"to":"9999-12-31T23:59:59-23:59"}}',
    "a row of the year 0": field("timestamp", '"0000-01-01 00:00:00.000"'),
    "a row of the year 9999": field("timestamp", '"9999-12-31 23:59:59.999"'),
    "a row of 1970": field("timestamp", '"1970-01-01 00:00:00.000"'),
    "a row of the future": field("timestamp", '"2030-01-15 08:00:00.000"'),
    "a NUL in a name": field("source_id", '"a\\u0000b"'),
    "an escape sequence as a name": field("source_id", '"\\u001b[2J"'),
    "a line break in a name": field("metric", '"a\\nb"'),
    "no name": field("metric", '""'),
    "a name of 100,000 characters": field("source_id", f'"{"s" * D}"'),
    "the same row many times": page(",".join([ROW] * 5000)),
    "a path as a name": field("source_id", '"../../etc/passwd"'),
}


@pytest.mark.parametrize("answer", ODD_PAGES.values(), ids=ODD_PAGES)
def test_an_odd_page(ask: Ask, answer: str) -> None:
    """What has a meaning, however odd, is taken or left out, and the worker ends well."""
    said = ask(RUN, TELEMETRY, answer)
    assert (said.code, said.sentences) == (0, [])


THRESHOLD = '{"monitors":[{"source_slug":"dev","metric":"t","threshold":%s}]}'
OTHERS: dict[str, tuple[list[str], str, str, str]] = {
    "sources of null": (PLAN, SOURCES, '{"sources":null}', "sources answer"),
    "a source of a number": (PLAN, SOURCES, '{"sources":[5]}', "$.sources[0]"),
    "a source without a slug": (PLAN, SOURCES, '{"sources":[{"id":"1","source_type":"device"}]}', "slug"),
    "a slug of a number": (PLAN, SOURCES, '{"sources":[{"slug":5,"id":"1","source_type":"x"}]}', "slug"),
    "monitors of null": (PLAN, MONITORS, '{"monitors":null}', "monitors answer"),
    "a monitor of a number": (PLAN, MONITORS, '{"monitors":[5]}', "$.monitors[0]"),
    "a threshold of a number": (PLAN, MONITORS, THRESHOLD % "5", "monitors[0]"),
    "a threshold of a list": (PLAN, MONITORS, THRESHOLD % "[]", "monitors[0]"),
    "a bound of a word": (PLAN, MONITORS, THRESHOLD % '{"min":"x"}', "the threshold of dev t"),
    "a bound of an object": (PLAN, MONITORS, THRESHOLD % '{"min":{}}', "the threshold of dev t"),
    "a bound of 400 digits": (
        PLAN,
        MONITORS,
        THRESHOLD % ('{"min":' + "9" * 400 + "}"),
        "the threshold of dev t",
    ),
    "a bound too large": (PLAN, MONITORS, THRESHOLD % '{"min":1e999}', "monitors answer"),
    "targets of a number": (PLAN, MONITORS, THRESHOLD % '{"notification_target_ids":5}', "of dev t"),
    "a deep message": (PLAN, MONITORS, THRESHOLD % f'{{"message":{"[" * D}{"]" * D}}}', "nested too deep"),
    "a slug that is a number": (
        PLAN,
        MONITORS,
        '{"monitors":[{"source_slug":5,"threshold":{}}]}',
        "monitors[0]",
    ),
    "a metric that is a number": (
        PLAN,
        MONITORS,
        '{"monitors":[{"source_slug":"a","metric":5,"event":{}}]}',
        "[0]",
    ),
    "a monitor of nobody": (PLAN, MONITORS, '{"monitors":[{"metric":"t","threshold":{}}]}', "monitors[0]"),
}


@pytest.mark.parametrize(("command", "path", "answer", "words"), OTHERS.values(), ids=OTHERS)
def test_a_bad_list(ask: Ask, command: list[str], path: str, answer: str, words: str) -> None:
    """Exit 1 with the place in the answer."""
    refused(ask(command, path, answer), 1, words)


DEVICE = '{"sources":[{"slug":"%s","id":"1","source_type":"device"}]}'
ODD_LISTS: dict[str, tuple[list[str], str, str]] = {
    "no summary": (RUN, FLEET, '{"fleet":null}'),
    "a summary of numbers": (RUN, FLEET, '{"fleet":[5]}'),
    "metrics of a list": (RUN, FLEET, '{"fleet":[{"source_id":"d","metrics":["a"]}]}'),
    "deep metrics": (RUN, FLEET, f'{{"fleet":[{{"source_id":"d","metrics":{{"a":{"[" * D}{"]" * D}}}}}]}}'),
    "names that a terminal obeys": (RUN, FLEET, '{"fleet":[{"source_id":"\\u001b[2J","metrics":{"\\n":1}}]}'),
    "no sources": (RUN, SOURCES, '{"sources":null}'),
    "a slug that climbs": (
        RUN,
        SOURCES,
        '{"sources":[{"slug":"../../x?y#z","id":"1","source_type":"device"}]}',
    ),
    "a slug of dots": (RUN, SOURCES, DEVICE % ".."),
    "a slug of nothing": (RUN, SOURCES, DEVICE % ""),
    "a slug of a NUL": (RUN, SOURCES, DEVICE % "a\\u0000"),
    "a long slug": (RUN, SOURCES, DEVICE % ("s" * D)),
    "a slug for the terminal": (
        PLAN,
        SOURCES,
        '{"sources":[{"slug":"dev\\u001b[31m\\n","id":"1","source_type":"device"}]}',
    ),
    "a message for the terminal": (PLAN, MONITORS, THRESHOLD % '{"message":"\\u001b[31m\\nx","max":1}'),
    "a long message": (PLAN, MONITORS, THRESHOLD % f'{{"message":"{"m" * D}"}}'),
    "a severity of a list": (PLAN, MONITORS, THRESHOLD % '{"severity":[1]}'),
    "a target of a list": (PLAN, MONITORS, THRESHOLD % '{"notification_target_ids":[[]]}'),
    "a message 900 deep": (PLAN, MONITORS, THRESHOLD % f'{{"message":{"[" * 900}{"]" * 900}}}'),
}


@pytest.mark.parametrize(("command", "path", "answer"), ODD_LISTS.values(), ids=ODD_LISTS)
def test_an_odd_list(ask: Ask, command: list[str], path: str, answer: str) -> None:
    """What need not be understood stops nobody, and nothing of it reaches the terminal as it came."""
    said = ask(command, path, answer)
    # A monitor that the document wants otherwise is somebody else's: the plan says so and ends with 1.
    assert (said.code, said.sentences) == (int(path == MONITORS), [])
    assert (said.out + said.err).replace("\n", "").isprintable()
