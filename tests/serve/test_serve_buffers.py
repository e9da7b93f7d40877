"""Polars buffers: features as documented, types that mix, and bounds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_room import TestClient, served

from plexus_detect.serve.buffers import WAITING_ROWS, Buffer

POLARS = "/v1/ml/polars"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(tmp_path_factory.mktemp("state"), buffers_max=6) as made:
        yield made


@pytest.fixture
def buffer(client: TestClient) -> Iterator[str]:
    client.post(f"{POLARS}/buffers", json={"buffer_id": "b", "window_size": 50})
    yield "b"
    client.delete(f"{POLARS}/buffers/b")


def ask(client: TestClient, what: str, **body: Any) -> dict[str, Any]:
    """The answer of a buffer route for buffer b, which must be 200."""
    answer = client.post(f"{POLARS}/{what}", json={"buffer_id": "b", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_two_columns_become_twenty_six(client: TestClient, buffer: str) -> None:
    """Two columns with three windows and no lags are 26 columns, as the documents count them."""
    ask(client, "append", data=[{"amount": float(i), "count": i} for i in range(30)])
    found = ask(client, "features", rolling_windows=[5, 10, 20], include_lags=False)
    assert len(found["columns"]) == 26
    assert found["columns"][2:6] == [f"amount_rolling_{stat}_5" for stat in ("mean", "std", "min", "max")]
    assert found["data"][-1]["count_rolling_mean_20"] == 19.5


def test_none_yet_is_zero_or_null_as_asked(client: TestClient, buffer: str) -> None:
    """Before a window is full there stands 0.0 as documented, or null with fill: null."""
    ask(client, "append", data=[{"v": 3.0}, {"v": 5.0}])
    zero, null = (
        ask(client, "features", rolling_windows=[2], lag_periods=[1], fill=fill)["data"]
        for fill in ("zero", "null")
    )
    assert (zero[0]["v_rolling_mean_2"], zero[0]["v_lag_1"]) == (0.0, 0.0)
    assert (null[0]["v_rolling_mean_2"], null[0]["v_lag_1"]) == (None, None)
    assert zero[1] == null[1]


def test_wanted_statistics_only(client: TestClient, buffer: str) -> None:
    """include_rolling_stats says which statistics there are, and a window given twice is one."""
    ask(client, "append", data=[{"v": 1}])
    found = ask(client, "features", rolling_windows=[2, 2], include_lags=False, include_rolling_stats=["max"])
    assert found["columns"] == ["v", "v_rolling_max_2"]


def test_types_that_mix_become_text(client: TestClient, buffer: str) -> None:
    """Numbers widen, text beside numbers makes a column of text, nested values come back as they went in."""
    data = [{"a": 1, "b": True, "c": {"k": [1]}, "d": None}, {"a": 2.5, "b": "x", "d": 10**30}, {}, {"e": 1}]
    assert ask(client, "append", data=data)["buffer_size"] == 3
    found = client.get(f"{POLARS}/buffers/b/data").json()["data"]
    assert found[0] == {"a": 1.0, "b": "true", "c": {"k": [1]}, "d": None, "e": None}
    assert found[1]["d"] == 1e30
    assert client.get(f"{POLARS}/buffers/b").json()["numeric_columns"] == ["a", "d", "e"]


def test_any_text_is_a_name(client: TestClient, buffer: str) -> None:
    """Names that Polars reads as patterns, or that are empty, are columns like others."""
    names = ["", "*", "^.*$", "^a$", "a", "é\n", "v_lag_1", "v"]
    for i in range(3):
        ask(client, "append", data={name: float(i) for name in names})
    found = ask(client, "features", rolling_windows=[2], include_rolling_stats=["max"], lag_periods=[1])
    assert [name for name in names if name not in found["columns"]] == []
    assert (found["data"][-1]["^.*$"], found["data"][-1]["*_rolling_max_2"], found["data"][-1]["_lag_1"]) == (
        2,
        2,
        1,
    )


def test_rows_are_the_same_however_they_came() -> None:
    """One row after another, in batches or looked at in between: a buffer holds the same window."""
    chance = random.Random(3)
    made = [{chance.choice("abc"): chance.choice([1, 2.5, "t", None, [1]])} for _ in range(2 * WAITING_ROWS)]
    single, batch, watched = (Buffer(name, 100) for name in ("single", "batch", "watched"))
    batch.append(made)
    for i, row in enumerate(made):
        single.append([row])
        watched.append([row])
        if i % 37 == 0:
            watched.frame()
    expected = batch.rows_of(batch.frame())
    assert len(expected) == 100
    for other in (single, watched):
        frame = other.frame()
        assert other.rows_of(frame) == expected
        assert frame.n_chunks() == 1


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("features", {"rolling_windows": [0]}, 422),
        ("features", {"rolling_windows": [-5]}, 422),
        ("features", {"lag_periods": [-1]}, 422),
        ("features", {"rolling_windows": list(range(1, 100))}, 422),
        ("features", {"fill": "nothing"}, 422),
        ("append", {"data": 5}, 422),
        ("append", {"data": {f"c{i}": i for i in range(600)}}, 400),
        ("buffers", {"window_size": 9}, 422),
        ("buffers", {}, 409),
        ("buffers", {"buffer_id": "a\\b"}, 400),
    ],
)
def test_bad_requests_are_refused(
    client: TestClient, buffer: str, what: str, body: dict[str, Any], status: int
) -> None:
    """What cannot be done is answered with its status, never with 500."""
    answer = client.post(f"{POLARS}/{what}", json={"buffer_id": buffer, **body})
    assert answer.status_code == status, answer.text


def test_buffers_and_answers_are_bounded(tmp_path: Path) -> None:
    """No more buffers than allowed, no rows beyond the memory, and no answer of millions of values."""
    with served(tmp_path, buffers_max=1, memory_bytes_max=1000) as client:
        client.post(f"{POLARS}/buffers", json={"buffer_id": "b", "window_size": 100_000})
        assert client.post(f"{POLARS}/buffers", json={"buffer_id": "c"}).status_code == 429
        many = [{f"c{j}": float(j) for j in range(20)}] * WAITING_ROWS
        ask(client, "append", data=many)
        refused = client.post(f"{POLARS}/append", json={"buffer_id": "b", "data": many})
        assert refused.status_code == 429
        large = {"buffer_id": "b", "rolling_windows": list(range(1, 33)), "lag_periods": [1]}
        assert client.post(f"{POLARS}/features", json=large).status_code == 200
