"""Batch models: the documented formulas, the encoders, and the bugs that are not copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serve_room import TestClient, served

from plexus_detect.serve.encoders import CATEGORIES_MAX, Encoder
from plexus_detect.serve.normal import Scale

BATCH = "/v1/ml/anomaly"
DATA = [[10.0 + i * 7 % 11, 1000.0 + i * 5 % 13] for i in range(40)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(tmp_path_factory.mktemp("state")) as made:
        yield made


def ask(client: TestClient, what: str, status: int = 200, **body: Any) -> dict[str, Any]:
    """The answer of a batch route."""
    answer = client.post(f"{BATCH}/{what}", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_scales_are_the_documented_formulas() -> None:
    """Standardization is a logistic curve of median and quartiles, zscore counts deviations, raw is raw."""
    raw = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    scale = Scale.of(raw, 0.2)
    assert scale.scores(raw, "standardization") == pytest.approx(1 / (1 + np.exp(-(raw - 3.0) / (2 * 2.0))))
    assert scale.scores(raw, "zscore") == pytest.approx((raw - raw.mean()) / raw.std())
    assert scale.scores(raw, "raw").tolist() == raw.tolist()
    assert scale.thresholds["raw"] == pytest.approx(np.percentile(raw, 80))


def test_scores_that_are_all_alike_have_a_scale() -> None:
    """Training scores without any spread divide by nothing."""
    scale = Scale.of(np.full(5, 3.0), 0.1)
    assert scale.scores(np.array([3.0, 4.0]), "standardization").tolist() == [0.5, pytest.approx(0.6224593)]
    assert np.isfinite(scale.scores(np.array([1e308, -1e308]), "standardization")).all()


def test_a_row_scores_the_same_in_any_company(client: TestClient) -> None:
    """A row's score does not depend on the other rows of a request."""
    ask(client, "fit", model="company", backend="ecod", data=DATA)
    row = [14.0, 1012.0]
    alone = ask(client, "score", model="company", backend="ecod", data=[row])["data"][0]
    among = ask(client, "score", model="company", backend="ecod", data=[row, *[[900.0, 9e5]] * 40])["data"]
    assert among[0] == alone
    assert all(other["is_anomaly"] for other in among[1:])


def test_a_refit_takes_the_new_settings(client: TestClient) -> None:
    """A model that is fitted again has the contamination and threshold of the new fit."""
    first, second = (
        ask(client, "fit", model="again", backend="hbos", data=DATA, contamination=share)["model_params"]
        for share in (0.05, 0.5)
    )
    assert (first["contamination"], second["contamination"]) == (0.05, 0.5)
    assert second["threshold"] < first["threshold"]


def test_a_model_scores_on_every_scale(client: TestClient) -> None:
    """A model is known by name and backend, so that any normalization may be asked of it."""
    ask(client, "fit", model="scales", backend="ecod", data=DATA, normalization="zscore")
    own = ask(client, "score", model="scales", backend="ecod", data=[[500.0, 0.0]])
    asked = ask(client, "score", model="scales", backend="ecod", data=[[500.0, 0.0]], normalization="raw")
    assert own["data"][0]["score"] != own["data"][0]["raw_score"]
    assert asked["data"][0]["score"] == asked["data"][0]["raw_score"] == own["data"][0]["raw_score"]
    assert own["data"][0]["is_anomaly"] == asked["data"][0]["is_anomaly"] is True
    ask(client, "score", model="scales", backend="hbos", data=[[1.0, 1.0]], status=400)


def test_a_threshold_of_zero_is_one(client: TestClient) -> None:
    """Threshold 0 is applied and shown; detect gives only what is above it, without is_anomaly."""
    ask(client, "fit", model="zero", backend="ecod", data=DATA)
    body = {"model": "zero", "backend": "ecod", "data": DATA[:3]}
    scored = ask(client, "score", **body, threshold=0)
    assert scored["summary"] == {"total_points": 3, "anomaly_count": 3, "anomaly_rate": 1.0, "threshold": 0.0}
    found = ask(client, "detect", **body, threshold=0)
    assert found["summary"] == {"anomalies_detected": 3, "threshold": 0.0}
    assert set(found["data"][0]) == {"index", "score", "raw_score"}


def test_names_that_look_alike_have_files_of_their_own(client: TestClient) -> None:
    """Models whose names differ only in unusual characters do not overwrite each other."""
    names = ["a b", "a_b", "a/b", "é", "n" * 250]
    paths = {ask(client, "fit", model=name, backend="ecod", data=DATA)["saved_path"] for name in names}
    assert len(paths) == len(names)
    assert {one["name"] for one in client.get(f"{BATCH}/models").json()["data"]} >= set(names)


def test_versions_are_kept_and_the_newest_is_found(client: TestClient) -> None:
    """Fits without overwrite have names of their own; -latest is the newest, for every backend."""
    fitted = [
        ask(client, "fit", model="dated", backend="ecod", data=[*DATA, [v, v]], overwrite=False)
        for v in (1.0, 2.0)
    ]
    assert fitted[0]["versioned_name"] != fitted[1]["versioned_name"]
    latest = ask(client, "load", model="dated-latest", backend="ecod")
    assert latest["model"] == fitted[1]["versioned_name"]


def test_models_are_listed_and_removed(client: TestClient) -> None:
    """A model is listed with what is known of it, and is unknown after its removal."""
    ask(client, "fit", model="listed", backend="ecod", data=DATA, description="of the first week")
    (entry,) = [one for one in client.get(f"{BATCH}/models").json()["data"] if one["name"] == "listed"]
    assert (entry["backend"], entry["description"], entry["is_versioned"]) == (
        "ecod",
        "of the first week",
        False,
    )
    assert client.delete(f"{BATCH}/models/{entry['filename']}").json()["deleted"] is True
    assert client.delete(f"{BATCH}/models/{entry['filename']}").status_code == 404
    ask(client, "score", model="listed", backend="ecod", data=DATA, status=400)
    assert "Available models" in ask(client, "load", model="listed", backend="ecod", status=404)["detail"]


def test_objects_are_encoded_by_a_schema(client: TestClient) -> None:
    """A model of objects is fitted by its schema and scores objects with the categories it has learned."""
    data = [{"ms": 100.0 + i % 7, "agent": "curl" if i % 3 else "wget", "ok": "yes"} for i in range(40)]
    schema = {"ms": "numeric", "agent": "onehot", "ok": "binary"}
    fitted = ask(client, "fit", model="objects", backend="ecod", data=data, schema=schema)
    assert fitted["encoder"]["schema"] == schema
    assert fitted["encoder"]["features"] == ["ms", "agent", "ok"]
    assert fitted["model_params"]["input_dim"] == 4
    usual, odd = ask(
        client,
        "score",
        model="objects",
        backend="ecod",
        data=[data[0], {"ms": 900, "agent": "nc", "ok": "no"}],
    )["data"]
    assert odd["score"] > usual["score"]
    ask(client, "score", model="objects", backend="ecod", data=[[1.0, 2.0, 3.0, 4.0]], status=400)


@pytest.mark.parametrize(
    ("kind", "values", "numbers"),
    [
        ("numeric", [1, "2.5", "x", None, True, "nan"], [1.0, 2.5, None, None, 1.0, None]),
        ("label", ["a", "b", "a", None, "zz"], [0.0, 1.0, 0.0, None, -1.0]),
        ("binary", ["Yes", "off", 1, 0, True, "maybe"], [1.0, 0.0, 1.0, 0.0, 1.0, None]),
        ("frequency", ["a", "a", "b", "zz"], [2 / 3, 2 / 3, 1 / 3, 0.0]),
    ],
)
def test_each_encoding(kind: str, values: list[object], numbers: list[float | None]) -> None:
    """Each kind of encoding gives the documented numbers; what was not learned is unknown, not an error."""
    encoder = Encoder({"c": kind})
    encoder.learn({"c": value} for value in values if value != "zz")
    assert [encoder.encoded({"c": value}).get("c") for value in values] == numbers


def test_hashes_and_categories_are_bounded() -> None:
    """A hash is the same everywhere and in 0..1; no column learns categories without end."""
    encoder = Encoder({"h": "hash", "c": "label"})
    encoder.learn({"c": i} for i in range(3 * CATEGORIES_MAX))
    assert len(encoder.seen["c"]) == CATEGORIES_MAX
    assert encoder.encoded({"h": "curl/8.0", "x": 1}) == {"x": 1, "h": pytest.approx(0.21, abs=1.0)}
    assert 0.0 <= encoder.encoded({"h": "curl/8.0"})["h"] <= 1.0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"data": [[1.0, 2.0], [3.0]]}, 400),
        ({"data": [[], []]}, 400),
        ({"data": [{"a": 1.0}], "schema": {"a": "no such kind"}}, 422),
        ({"data": [[1.0]], "backend": "no such"}, 422),
        ({"data": [[1.0]], "contamination": 0.6}, 422),
        ({"data": [[1.0], [2.0]], "backend": "onnx"}, 400),
        ({"data": [[1.0] * 600] * 3}, 400),
        ({"model": "../x", "data": DATA}, 400),
        ({}, 422),
    ],
)
def test_bad_fits_are_refused(client: TestClient, body: dict[str, Any], status: int) -> None:
    """What cannot be fitted is answered with its documented status."""
    ask(client, "fit", status=status, **body)
