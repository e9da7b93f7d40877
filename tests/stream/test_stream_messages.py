"""From the bytes of messages to readings: what is read, in which shapes, and why a message is rejected."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from bus import T0
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from pydantic import ValidationError

from plexus_detect.config.mapping import SourceMapping
from plexus_detect.stream.messages import Batch, Decoder, Readings
from plexus_detect.stream.rejects import SENTENCES, Reject
from plexus_detect.stream.shape import Shape

SECOND = T0 // 1000


def read(
    *values: Any, shape: Shape | None = None, key: bytes | None = b"pump"
) -> tuple[Readings, list[Reject]]:
    """Messages (bytes, or anything that is made JSON) as they come at T0."""
    raw = [v if isinstance(v, bytes) or v is None else json.dumps(v).encode() for v in values]
    n = len(raw)
    return Decoder(shape or Shape()).read(Batch(raw, [key] * n, [T0] * n, list(range(10, 10 + n))))


def mapped(**keys: Any) -> Shape:
    """The shape of a mapping in the configuration."""
    return SourceMapping.model_validate(keys).shape()


def test_the_usual_message_becomes_a_reading() -> None:
    """Device from the key, time in seconds, the index, names and numbers in their order."""
    readings, rejects = read({"timestamp": SECOND + 0.25, "sample_index": 7, "sensors": {"b": 1, "a": 2.5}})
    assert (readings.device, readings.t_ms.tolist(), readings.sample_index) == (["pump"], [T0 + 250], [7])
    assert (readings.names, readings.values.tolist(), rejects) == ([("b", "a")], [1.0, 2.5], [])


@pytest.mark.parametrize(
    "stamp",
    [
        SECOND,
        float(SECOND),
        T0,
        T0 * 1000,
        T0 * 1_000_000,
        "2023-11-14T22:13:20Z",
        "2023-11-14T23:13:20+01:00",
    ],
)
def test_times_say_their_unit_themselves(stamp: Any) -> None:
    """Seconds, milli-, micro- and nanoseconds and ISO text of one moment are one moment."""
    assert read({"timestamp": stamp, "sensors": {"a": 1}})[0].t_ms.tolist() == [T0]


@pytest.mark.parametrize(("unit", "each"), [("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)])
def test_a_unit_that_is_given_counts(unit: str, each: int) -> None:
    """With a unit in the mapping the size of the number says nothing, and text is no time."""
    shape = mapped(unit=unit)
    readings, rejects = read(
        {"timestamp": 1000 * each, "sensors": {"a": 1}},
        {"timestamp": "2023-11-14", "sensors": {"a": 1}},
        shape=shape,
    )
    assert readings.t_ms.tolist() == [1_000_000]
    assert [r.reason for r in rejects] == ["bad_timestamp"]


def test_what_cannot_be_used_is_left_out_and_the_rest_counts() -> None:
    """NaN, null, text, true, infinities and numbers beyond reason leave a sensor out, not its message."""
    body = (
        b'{"timestamp": %d, "sample_index": "x", "sensors": {"a": NaN, "b": 2, "c": null, "d": "3", ' % SECOND
    )
    readings, rejects = read(body + b'"e": true, "f": -Infinity, "g": 1e400, "h": 1e300, "i": [1]}}')
    assert not rejects
    assert readings.values_of(0) == {"b": 2.0}
    assert readings.sample_index == [None]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[1]", "not_an_object"),
        (b"7", "not_an_object"),
        (b"{}", "no_timestamp"),
        ({"timestamp": None, "sensors": {"a": 1}}, "no_timestamp"),
        ({"timestamp": True, "sensors": {"a": 1}}, "bad_timestamp"),
        ({"timestamp": "soon", "sensors": {"a": 1}}, "bad_timestamp"),
        (b'{"timestamp": NaN, "sensors": {"a": 1}}', "bad_timestamp"),
        (b'{"timestamp": 1e400, "sensors": {"a": 1}}', "bad_timestamp"),
        ({"timestamp": -5, "sensors": {"a": 1}}, "time_impossible"),
        ({"timestamp": SECOND + 301, "sensors": {"a": 1}}, "time_ahead"),
        ({"timestamp": SECOND}, "no_sensors"),
        ({"timestamp": SECOND, "sensors": {}}, "no_sensors"),
        ({"timestamp": SECOND, "sensors": [1]}, "no_sensors"),
        ({"timestamp": SECOND, "sensors": {"a": None}}, "no_numbers"),
        ({"timestamp": SECOND, "sensors": {"a": "1"}}, "no_numbers"),
        ({"timestamp": SECOND, "sensors": {str(i): i for i in range(1025)}}, "too_many_sensors"),
        (b'{"timestamp": 1, "sensors": {"a": 1}}' + b" " * 10_000_000, "too_large"),
    ],
)
def test_every_poison_has_its_word_and_sentence(value: Any, reason: str) -> None:
    """A message that is none is rejected with its offset, a word for programs and a sentence for people."""
    good = {"timestamp": SECOND, "sensors": {"a": 1}}
    readings, rejects = read(good, value, good)
    assert len(readings) == 2
    assert [(r.at, r.offset, r.reason) for r in rejects] == [(1, 11, reason)]
    assert rejects[0].text
    assert "{" not in rejects[0].text.replace("{", "", 0)
    assert len(rejects[0].text) < 250


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "no_device"),
        (b"", "bad_device"),
        (b"\xff", "bad_device"),
        (b"a\nb", "bad_device"),
        (b"x" * 257, "bad_device"),
    ],
)
def test_a_key_that_names_no_device_is_rejected(key: bytes | None, reason: str) -> None:
    """Without a field for it the key names the device."""
    assert [r.reason for r in read({"timestamp": SECOND, "sensors": {"a": 1}}, key=key)[1]] == [reason]


def test_a_mapping_with_paths_reads_other_shapes() -> None:
    """Time, device and single fields from anywhere in the object; what is missing is left out."""
    shape = mapped(
        timestamp="meta.time",
        unit="ms",
        device="meta.id",
        sample_index=None,
        fields={"heat": "data.t", "wet": "data.x.h"},
    )
    meta = {"time": T0, "id": "oven"}
    readings, rejects = read(
        {"meta": meta, "data": {"t": 3, "x": {"h": 4}}},
        {"meta": meta, "data": {"t": 5}},
        {"meta": meta},
        shape=shape,
    )
    assert [readings.values_of(i) for i in range(2)] == [{"heat": 3.0, "wet": 4.0}, {"heat": 5.0}]
    assert readings.device == ["oven", "oven"]
    assert [r.reason for r in rejects] == ["no_numbers"]


def test_the_long_form_has_one_metric_a_message() -> None:
    """A metric and its value; without a name there is no sensor."""
    shape = mapped(metric="name", value="v")
    readings, rejects = read(
        {"timestamp": SECOND, "name": "heat", "v": 3}, {"timestamp": SECOND, "v": 3}, shape=shape
    )
    assert readings.values_of(0) == {"heat": 3.0}
    assert [r.reason for r in rejects] == ["no_sensors"]


@pytest.mark.parametrize(
    "keys",
    [
        {"metric": "m"},
        {"fields": {"a": "x"}, "metric": "m", "value": "v"},
        {"timestamp": "sensors.time"},
        {"device": "a..b"},
        {"fields": {"a.zscore": "x"}},
        {"unit": "h"},
        {"colour": "red"},
    ],
)
def test_a_mapping_that_means_two_things_is_refused(keys: dict[str, Any]) -> None:
    """Half a form, two forms, a path inside another and names of our own are mistakes."""
    with pytest.raises(ValidationError):
        SourceMapping.model_validate(keys)


@given(st.lists(st.one_of(st.binary(max_size=60), st.none()), max_size=20))
@examples(300)
def test_any_bytes_are_read_or_rejected(values: list[bytes | None]) -> None:
    """Whatever comes, each message is a reading or a reject with a known word."""
    readings, rejects = read(*values)
    assert sorted([*readings.at.tolist(), *(r.at for r in rejects)]) == list(range(len(values)))
    assert all(r.reason in SENTENCES for r in rejects)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {}, optional={"timestamp": JSON | st.just(T0), "sample_index": JSON, "sensors": JSON}
    )
)
@examples(300)
def test_fast_and_patient_reading_agree(body: dict[str, Any]) -> None:
    """A message says the same alone and among others, read by types or patiently."""
    one, refused = read(body)
    many, also = read(body, {"timestamp": SECOND, "sensors": {"a": 1}}, body)
    assert len(also) == 2 * len(refused)
    assert len(many) == 1 + 2 * len(one)
    if len(one):
        assert many.values_of(0) == one.values_of(0)
        assert all(math.isfinite(x) for x in one.values_of(0).values())
        assert np.all((one.t_ms > 0) & (one.t_ms <= T0 + 300_000))
