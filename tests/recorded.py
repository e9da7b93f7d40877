"""Answers of the real platform, as recorded; the requests that concern the client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "fixtures" / "client_exchanges.jsonl"

# name -> {name, method, path, status, headers, body}
RECORDED: dict[str, dict[str, Any]] = {
    exchange["name"]: exchange for exchange in map(json.loads, _FILE.read_text(encoding="utf-8").splitlines())
}


def body_of(name: str) -> bytes:
    """The recorded answer's body."""
    return str(RECORDED[name]["body"]).encode()
