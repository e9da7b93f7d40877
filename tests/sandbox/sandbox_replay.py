"""Recorded exchanges of the real platform, and how to play them against a sandbox and compare.

The rule of comparison, field by field:

- status, and every recorded header; the host of a ``location`` does not count;
- a UUID stands for whatever UUID the sandbox gave the same thing, the same one throughout a scene;
- a Postgres time (``2026-11-22 01:54:01.99706+00``) stands for any Postgres time;
- fields named in ``VOLATILE`` count by type only;
- an array that the recorder cut short counts by its first items and its length;
- floats are equal within 1e-12; the text of an HTML page does not count.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import httpx

from plexus_detect.sandbox import Key, Sandbox, Settings

FIXTURES = Path(__file__).parent.parent / "fixtures"
TARGET = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"

KEYS = {
    "full": Key("org_a", ("read", "write")),
    "read": Key("org_a", ("read",)),
    "write": Key("org_a", ("write",)),
    "none": Key("org_a", ()),
    "star": Key("org_a", ("*",)),
    "custom": Key("org_a", ("custom",)),
    "disabled": Key("org_a", ("read", "write"), access_enabled=False),
    "expired": Key("org_a", ("read", "write"), expired=True),
    "otherorg": Key("org_b", ("read", "write")),
}
UNKNOWN = "plx_" + "UnknownKey".ljust(32, "0")
# Keys that the recorder wrote out; their text was masked, their kind is in the name of the exchange.
LITERALS = {
    "key_not_plx": "abc_" + "x" * 32,
    "key_badlen": "plx_short",
    "lowercase_prefix_wrong": "PLX_" + "x" * 32,
    "dev_key": "plx_dev_internal_telemetry_key",
}
VOLATILE = {
    "uptime_s",
    "server_time_ms",
    "loop_age_seconds",
    # Statistics over all that the engine ever saw, which the recorder partly made up.
    "distribution",
    "alert_stats",
}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PG_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00")
CUT = re.compile(r"\.\.\. (\d+) more trimmed.*")
ORIGIN = re.compile(r"http(://|%3A%2F%2F)[\w.]+(:|%3A)\d+")


def exchanges() -> dict[str, dict[str, Any]]:
    """Return the recorded exchanges by name, in the order they were recorded."""
    lines = (FIXTURES / "exchanges.jsonl").read_text().splitlines()
    return {exchange["name"]: exchange for exchange in map(json.loads, lines)}


def recorded_slack() -> list[dict[str, Any]]:
    """Return the recorded bodies that the Slack webhook got, in order."""
    return [json.loads(line) for line in (FIXTURES / "slack.jsonl").read_text().splitlines()]


def key_text(name: str) -> str:
    """Return the whole key of a recorded key name."""
    return "plx_" + f"Recorded{name}".ljust(32, "0")


def ms(text: str) -> int:
    """Return the ms of an ISO or row text, UTC."""
    at = datetime.fromisoformat(text)
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


class Scene:
    """A sandbox in a recorded state, with a clock that is set by hand."""

    def __init__(self, at: str, **given: Any) -> None:
        self.now_ms = ms(at)
        keys = {key_text(name): key for name, key in KEYS.items()}
        settings = Settings(keys=keys, notification_targets=(TARGET,), **given)
        self.box = Sandbox(settings, now_ms=lambda: self.now_ms)
        self.ids: dict[str, str] = {TARGET: TARGET}
        self.seen: list[str] = []

    def __enter__(self) -> Self:
        self.box.__enter__()
        self.client = httpx.Client(base_url=self.box.url, trust_env=False)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.box.__exit__(None, None, None)

    def ask(self, exchange: dict[str, Any]) -> httpx.Response:
        """Send a recorded request, its ids replaced by the sandbox's."""
        request = exchange["request"]
        query = request.get("query")
        url = self._ours(request["path"])
        if query is not None:
            url += "?" + (query if isinstance(query, str) else urlencode(query, safe="*"))
        headers = dict(request.get("headers", {}))
        if "key" in request:
            headers["x-api-key"] = self._key(exchange["name"], request["key"])
        content = _content(exchange["name"], request)
        if isinstance(content, str):
            content = self._ours(content).encode()
        return self.client.request(request["method"], self._ours(url), headers=headers, content=content)

    def play(self, exchange: dict[str, Any]) -> list[str]:
        """Ask, and return what differs from the recorded answer."""
        self.seen.append(exchange["name"])
        want, got = exchange["response"], self.ask(exchange)
        found = list(_differing_head(want, got))
        if "json" in want:
            try:
                found += differences(want["json"], got.json(), self.ids)
            except ValueError:
                found.append(f"body is not JSON: {got.text[:100]!r}")
        elif want.get("text") != "<html>":
            ours, theirs = (ORIGIN.sub("<origin>", text) for text in (got.text, want.get("text", "")))
            if ours != theirs:
                found.append(f"text {ours!r} instead of {theirs!r}")
        return found

    def post(self, path: str, body: Any) -> httpx.Response:
        """Post JSON of the test's own."""
        return self.client.post(path, json=body, headers={"x-api-key": key_text("full")})

    def source(self, slug: str, **columns: Any) -> None:
        """Insert a source as the recorder did, its stored status online."""
        self.box._plexus.stores.sources.create("org_a", slug, **({"status": "online"} | columns))

    def ingest(self, metric: str, value: float, at: str | None = None, source: str = "dev-1") -> None:
        """Send one point, stamped with the clock unless told otherwise."""
        stamp = self.now_ms if at is None else ms(at)
        point = {"metric": metric, "value": value, "timestamp": stamp}
        answer = self.post("/ingest", {"source_id": source, "points": [point]})
        assert answer.json()["count"] == 1

    def after(self, seconds: float) -> None:
        """Step the clock."""
        self.now_ms += round(seconds * 1000)

    def _ours(self, text: str) -> str:
        return UUID.sub(lambda match: self.ids.get(match[0], match[0]), text)

    def _key(self, name: str, key: str) -> str:
        if key != "<literal>":
            return key_text(key)
        return next((text for part, text in LITERALS.items() if part in name), UNKNOWN)


def _content(name: str, request: dict[str, Any]) -> str | bytes | None:
    """Return the body; what the recorder only described is made anew."""
    point = {"metric": "bulk", "value": 1}
    if "points" in name and "1000" in name:
        count = 10_001 if "10001" in name else 10_000
        return json.dumps({"source_id": "dev-2", "points": [point] * count})
    if "too_large" in name:
        return b" " * (5 * 1024 * 1024 + 32)
    if "expands_past" in name:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return packer.compress(b" " * (20 * 1024 * 1024)) + packer.flush()
    if "source_limit" in name:
        return json.dumps({"source_id": "dev-1", "points": [point]})
    if "raw" in request:
        return request["raw"].encode("latin-1")
    return json.dumps(request["json"]) if "json" in request else None


def _differing_head(want: dict[str, Any], got: httpx.Response) -> Iterator[str]:
    if want["status"] != got.status_code:
        yield f"status {got.status_code} instead of {want['status']}"
    for name, theirs in want.get("headers", {}).items():
        ours = got.headers.get(name, "")
        if ORIGIN.sub("<origin>", ours) != ORIGIN.sub("<origin>", theirs):
            yield f"{name} {ours!r} instead of {theirs!r}"


def differences(want: Any, got: Any, ids: dict[str, str], at: str = "$") -> Iterator[str]:
    """Yield what differs between a recorded value and ours."""
    if isinstance(want, dict) and isinstance(got, dict):
        for name in want.keys() ^ got.keys():
            yield f"{at}.{name} is {'missing' if name in want else 'too much'}"
        for name in want.keys() & got.keys():
            if name in VOLATILE:
                yield from _other_kind(want[name], got[name], f"{at}.{name}")
            else:
                yield from differences(want[name], got[name], ids, f"{at}.{name}")
    elif isinstance(want, list) and isinstance(got, list):
        yield from _lists(want, got, ids, at)
    elif isinstance(want, str) and isinstance(got, str):
        yield from _texts(want, got, ids, at)
    elif isinstance(want, float) and isinstance(got, int | float) and not isinstance(got, bool):
        if not math.isclose(want, got, rel_tol=1e-12, abs_tol=1e-12):
            yield f"{at} is {got!r} instead of {want!r}"
    elif want != got or isinstance(want, bool) != isinstance(got, bool):
        yield f"{at} is {got!r} instead of {want!r}"


def _lists(want: list[Any], got: list[Any], ids: dict[str, str], at: str) -> Iterator[str]:
    cut = CUT.fullmatch(want[-1]) if want and isinstance(want[-1], str) else None
    items = want[:-1] if cut else want
    length = len(items) + (int(cut[1]) if cut else 0)
    if len(got) != length:
        yield f"{at} has {len(got)} items instead of {length}"
    if at == "$.sources":
        # Rows written in one statement share their time of creation; Postgres owes them no order.
        items, got = (sorted(rows, key=lambda row: row["slug"]) for rows in (items, got))
    for i, (theirs, ours) in enumerate(zip(items, got, strict=False)):
        yield from differences(theirs, ours, ids, f"{at}[{i}]")


def _texts(want: str, got: str, ids: dict[str, str], at: str) -> Iterator[str]:
    if UUID.fullmatch(want) and UUID.fullmatch(got):
        if ids.setdefault(want, got) != got:
            yield f"{at} is another id than before"
    elif PG_TIME.fullmatch(want):
        if not PG_TIME.fullmatch(got):
            yield f"{at} is {got!r}, no Postgres time"
    elif ORIGIN.sub("<origin>", want) != ORIGIN.sub("<origin>", got):
        yield f"{at} is {got!r} instead of {want!r}"


def _other_kind(want: Any, got: Any, at: str) -> Iterator[str]:
    numbers = isinstance(want, int | float) and isinstance(got, int | float)
    if type(want) is not type(got) and not numbers:
        yield f"{at} is a {type(got).__name__} instead of a {type(want).__name__}"
    elif isinstance(want, dict) and want.keys() != got.keys():
        yield f"{at} has other fields: {sorted(want.keys() ^ got.keys())}"


RECORDED = exchanges()


def named(pattern: str) -> list[str]:
    """Return the recorded names that match a pattern in full, in order of recording."""
    return [name for name in RECORDED if re.fullmatch(pattern, name)]


def replay(
    scene: Scene,
    names: list[str],
    cannot: Mapping[str, str],
    before: Mapping[str, Callable[[Scene], object]] | None = None,
) -> None:
    """Play exchanges in order and check that exactly those on the list of exceptions differ.

    The clock follows the recorded one where an answer shows it.
    """
    assert names, "nothing to play"
    failed = {}
    for name in names:
        if before and name in before:
            before[name](scene)
        body = RECORDED[name]["response"].get("json")
        query = RECORDED[name]["request"].get("query") or {}
        if isinstance(body, dict) and "to" in body.get("query", {}) and "to" not in query:
            scene.now_ms = ms(body["query"]["to"])
        found = scene.play(RECORDED[name])
        if bool(found) != (name in cannot):
            failed[name] = found or ["matches now: take it off the list"]
    assert not failed, json.dumps(failed, indent=1)


def without_host(body: Mapping[str, Any]) -> Any:
    """Return a Slack body with the host of its button taken out."""
    return json.loads(ORIGIN.sub("<origin>", json.dumps(body)))


def load_answers(scene: Scene, names: list[str]) -> None:
    """Put the rows that telemetry answers show into the store: each once, ties in reverse order."""
    rows: dict[str, dict[tuple[Any, ...], int]] = {}
    for name in names:
        counts: Counter[tuple[Any, ...]] = Counter()
        data = RECORDED[name]["response"]["json"]["data"]
        for row in [row for row in data if isinstance(row, dict)]:
            value = float("nan") if row["value"] is None else float(row["value"])
            tags = json.dumps(row["tags"], separators=(",", ":"))
            # As text, since a NaN does not equal itself.
            counts[
                row["org_id"], row["source_id"], row["metric"], ms(row["timestamp"]), repr(value), tags
            ] += 1
        for key, count in counts.items():
            kept = rows.setdefault(key[0], {})
            kept[key[1:]] = max(count, kept.get(key[1:], 0))
    for org, found in rows.items():
        scene.box.load(
            (
                (source, metric, t_ms, float(value), tags)
                for (source, metric, t_ms, value, tags), count in reversed(found.items())
                for _ in range(count)
            ),
            org=org,
        )
