"""wire: requests, and the answers that are not telemetry."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import body_of

from plexus_detect import wire
from plexus_detect.errors import ContractError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TIMES_MS = st.integers(0, 4_133_980_799_999)  # 1970 to the end of 2100

# --- requests ---------------------------------------------------------------------------------------------


def test_params_of_a_narrow_request() -> None:
    """Times go out as ISO with Z and three digits; nothing else is sent than what was asked for."""
    assert wire.telemetry_params("dev-1", ["a", "b c"], 1795312298005, 1795312299000, 200) == {
        "source": "dev-1",
        "metric": "a,b c",
        "from": "2026-11-22T01:51:38.005Z",
        "to": "2026-11-22T01:51:39.000Z",
        "limit": "200",
    }


def test_params_of_a_wide_request() -> None:
    """No source, no metrics and no end leave those parameters out."""
    assert wire.telemetry_params(None, [], 0, None, 100_000) == {
        "from": "1970-01-01T00:00:00.000Z",
        "limit": "100000",
    }


@pytest.mark.parametrize("name", ["a,b", " a", "a\t", "", "\ufeffa"])
def test_a_name_that_cannot_be_listed_drops_the_filter(name: str) -> None:
    """The platform splits at commas and trims: such a name is read without a filter."""
    assert "metric" not in wire.telemetry_params("s", ["ok", name], 0, None, 1)


def test_a_filter_that_is_too_long_is_dropped() -> None:
    """The escaped list stays within its bytes, since addresses are bounded along the way."""
    assert "metric" in wire.telemetry_params(None, ["é" * 10], 0, None, 1, filter_bytes_max=60)
    assert "metric" not in wire.telemetry_params(None, ["é" * 10], 0, None, 1, filter_bytes_max=59)


@given(TIMES_MS)
def test_iso_times_are_exact(t_ms: int) -> None:
    """What goes out as ``from`` reads back as the same millisecond."""
    text = wire.telemetry_params(None, [], t_ms, None, 1)["from"]
    assert (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1) == t_ms
    assert text.endswith("Z")
    assert len(text) == 24


@given(
    st.lists(
        st.tuples(
            NAMES,
            NAMES,
            st.integers(1, 4_133_980_799_999),
            st.floats(allow_nan=False, allow_infinity=False),
        )
    )
)
def test_points_read_back_as_they_were(points: list[tuple[str, str, int, float]]) -> None:
    """The gateway's reading of a body (small stamps are seconds) gives back every name, time and value."""
    body = wire.encode_points(
        [p[0] for p in points],
        [p[1] for p in points],
        np.array([p[2] for p in points], np.int64),
        np.array([p[3] for p in points], np.float64),
    )
    read = json.loads(body)["points"]
    assert all(type(p["value"]) is float for p in read)
    stamps = [p["timestamp"] for p in read]
    assert [round(t * 1000) if t < 1e12 else t for t in stamps] == [p[2] for p in points]
    assert [(p["source_id"], p["metric"], p["value"]) for p in read] == [(p[0], p[1], p[3]) for p in points]


def test_modern_times_go_out_as_whole_milliseconds() -> None:
    """The body is exactly the contract's, with nothing added."""
    body = wire.encode_points(["dev-1"], ["t.zscore"], np.array([1795312945797]), np.array([0.0]))
    assert body == (
        b'{"points":[{"source_id":"dev-1","metric":"t.zscore","value":0.0,"timestamp":1795312945797}]}'
    )


@pytest.mark.parametrize(
    ("sources", "t_ms", "value"),
    [
        (["s"], 1795312945797, math.nan),
        (["s"], 1795312945797, math.inf),
        (["s"], 0, 1.0),
        (["s"], -5, 1.0),
        (["s", "s"], 1795312945797, 1.0),
    ],
)
def test_what_cannot_be_posted_is_a_bug_of_the_caller(sources: list[str], t_ms: int, value: float) -> None:
    """Non-finite values, times the gateway would replace and ragged columns are refused, never sent."""
    with pytest.raises(ValueError, match=r"posted|length"):
        wire.encode_points(sources, ["m"] * len(sources), np.array([t_ms]), np.array([value]))


# --- the other answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "sent", "accepted"),
    [
        (b'{"success":true,"count":3,"source_id":"s"}', 3, 3),
        (b'{"success":true,"count":0}', 0, 0),
        (b'{"success":true,"count":0,"source_id":"dev-1"}', 1, 0),
        (b'{"success":true,"count":7}', 10, 7),
        (b'{"success":true,"count":10,"dropped":4}', 10, 6),
        (b'{"success":true,"count":5,"dropped":5}', 10, 5),
        (b'{"success":true,"count":12}', 10, 10),
        (b'{"success":true,"count":0,"dropped":12}', 10, 0),
    ],
)
def test_loss_is_the_larger_of_both_accounts(body: bytes, sent: int, accepted: int) -> None:
    """accepted = sent - max(dropped, sent - count), within 0 and sent."""
    assert wire.decode_ingest_reply(body, sent) == accepted


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"success":true}',
        b'{"success":false,"count":1}',
        b'{"success":true,"count":"1"}',
        b'{"success":true,"count":-1}',
    ],
)
def test_another_ingest_reply_is_a_contract_error(body: bytes) -> None:
    """Nothing is counted as stored on the word of an answer that we do not understand."""
    with pytest.raises(ContractError, match="ingest answer"):
        wire.decode_ingest_reply(body, 1)


def test_recorded_lists_decode() -> None:
    """Fleet health, sources, metric names and monitors of the real platform come out whole."""
    assert wire.decode_fleet_health(body_of("fleet_health")) == {
        "dev-1": ("_frame", "pressure", "temperature"),
        "dev-2": ("future", "precision", "same_ts"),
    }
    sources = wire.decode_sources(body_of("sources.list"))
    assert [(s.slug, s.source_type) for s in sources] == [
        ("pg-1", "connection"),
        ("dev-1", "device"),
        ("dev-2", "device"),
    ]
    assert sources[1].id == "6eb5572a-35ce-44f3-96aa-7e2080b04ee7"
    assert wire.decode_metric_names(body_of("v1.metrics"))[-2:] == ("temperature", "temperature.anomaly")
    assert wire.decode_metric_names(body_of("v1.metrics_unknown")) == ()
    assert (
        list(wire.decode_monitors(body_of("monitors.list_all")))
        == (json.loads(body_of("monitors.list_all"))["monitors"])
    )
    assert wire.decode_monitors(body_of("monitors.list_empty")) == ()


@pytest.mark.parametrize(
    "decode",
    [wire.decode_fleet_health, wire.decode_sources, wire.decode_metric_names, wire.decode_monitors],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error":"x"}', b'"x"', b"[1]", b"{"])
def test_another_list_is_a_contract_error(decode: Any, body: bytes) -> None:
    """An error body or HTML is never read as an empty list."""
    with pytest.raises(ContractError, match="answer: "):
        decode(body)


@given(st.binary(max_size=400), st.integers(1, 200))
def test_an_excerpt_is_one_short_line(body: bytes, chars_max: int) -> None:
    """Any bytes give one printable line within the limit."""
    text = wire.excerpt(body, chars_max)
    assert len(text) <= chars_max
    assert text == " ".join(text.split())


@given(st.integers(0, 400), st.integers(1, 250))
def test_an_excerpt_shows_no_part_of_a_key(before: int, chars_max: int) -> None:
    """A key is masked wherever it stands and wherever the excerpt ends."""
    key = "plx_" + "Zq7/+" * 7
    assert "Z" not in wire.excerpt(b"x " * before + key.encode() + b" after", chars_max)
