"""Requests made from the OpenAPI description: whatever is sent, no bug is hit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from serve_room import listening

if TYPE_CHECKING:
    from schemathesis import Case
    from schemathesis.specs.openapi.schemas import OpenApiSchema


def fuzzed(url: str, examples: int) -> int:
    """Ask every operation with generated requests; how many there were. None may be answered with 5xx.

    Invalid ones are made for operations with a body: any text is an id, and little else can be wrong.
    """
    # Here and not above: every worker of a run imports every test file, and this takes seconds.
    import schemathesis

    valid, invalid = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    schema: OpenApiSchema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (valid, invalid) if operation.body else (valid,):

            @hypothesis.settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Case) -> None:
                nonlocal asked
                asked += 1
                answer = case.call(base_url=url)
                assert answer.status_code < 500, (case.as_curl_command(), answer.text)

            ask()
    return asked


def test_no_request_hits_a_bug(tmp_path: Path) -> None:
    """A few generated requests to every operation, valid and invalid ones: none is answered with 5xx."""
    with listening(tmp_path) as url:
        assert fuzzed(url, 3) > 50


@pytest.mark.soak
def test_no_request_hits_a_bug_for_long(tmp_path: Path) -> None:
    """The same with hundreds of requests an operation."""
    with listening(tmp_path) as url:
        assert fuzzed(url, 300) > 3000
