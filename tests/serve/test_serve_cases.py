"""The documented interface, case by case."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_room import TestClient, served

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "fixtures" / "streaming_cases.jsonl")
    .read_text("utf-8")
    .splitlines()
]
TYPES = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(tmp_path_factory.mktemp("state")) as made:
        yield made


def at(document: Any, pointer: str) -> Any:
    """What a JSON pointer of the cases names; ``#len`` is a length."""
    measured = pointer.endswith("#len")
    for part in pointer.removesuffix("#len").split("/")[1:]:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return len(document) if measured else document


@pytest.mark.parametrize("case", [c for c in CASES if c["level"] != "quirk"], ids=lambda case: case["id"])
def test_documented_cases_are_kept(client: TestClient, case: dict[str, Any]) -> None:
    """Every example case of the interface is answered as documented."""
    before: float | None = None
    for step in case["steps"]:
        expect = step["expect"]
        answer = client.request(step["method"], step["path"], json=step.get("json"))
        assert answer.status_code == expect["status"], answer.text
        body = answer.json()
        for pointer, value in expect.get("exact", {}).items():
            assert at(body, pointer) == value, pointer
        for pointer, kind in expect.get("types", {}).items():
            assert isinstance(at(body, pointer), TYPES[kind]), pointer
        for pointer, text in expect.get("contains_text", {}).items():
            assert text in at(body, pointer), pointer
        score = (body.get("results") or [{}])[-1].get("score")
        if "relation" in expect:
            assert before is not None
            assert score is not None
            assert score > before
        before = score
