"""Good inputs, damaged at random: whatever comes of it is a result or one of our own errors, in one line.

A failing seed is named; ``pytest -m soak tests/bad_inputs`` takes tens of thousands of them.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from mutations import mutated

from plexus_detect import wire
from plexus_detect.backtest.csvfile import read_points
from plexus_detect.backtest.labels import read_labels
from plexus_detect.config import load_config
from plexus_detect.errors import PlexusDetectError
from plexus_detect.monitors import KnownSources, existing_from, expand
from plexus_detect.provision.files import load_specs
from plexus_detect.redaction import sentence
from plexus_detect.scoring import read_csv, score_series
from plexus_detect.series import SeriesTable

ROOT = Path(__file__).parents[2]
SEEDS, SOAK_SEEDS = 40, 10_000
OPS = "5e9f1c52-6c40-4b0a-9d5e-2f4f3a0c1d77"

YAML = (ROOT / "examples" / "motor_group.yaml").read_bytes()
TOML = b"""[poll]
interval = "5s"
limit = 100
[[series]]
name = "a"
sources = ["dev-*"]
[detect]
threshold = 3.5
"""
JSON = b"""{"poll": {"interval": "5s"}, "log": {"level": "info"},
"series": [{"sources": ["dev-*"], "detect": {"window": "2h"}}]}"""
LONG = b"timestamp,source,metric,value\n" + b"".join(
    b"%d,dev-%d,temperature,%d.5\n" % (1_790_000_000 + i, i % 3, 20 + i % 7) for i in range(60)
)
WIDE = b"ts,a,b\n" + b"".join(b"%d,%d.25,%d\n" % (1_790_000_000 + i, i % 5, i % 3) for i in range(60))
LABELS = b"""source,metric,start,end,kind
dev-1,temperature,2026-09-01T00:00:00Z,2026-09-02,drift
,,1790000000,1790000100
"""
ROW = (
    b'{"org_id":"o","source_id":"dev-%d","metric":"t","value":%d.5,'
    b'"timestamp":"2026-09-21 14:13:%02d.000","tags":{}}'
)
PAGE = (
    b'{"data":['
    + b",".join(ROW % (i % 3, i, i) for i in range(20))
    + b'],"count":20,"query":{"from":"2026-09-21T14:13:00.000Z","to":"2026-09-21T14:14:00.000Z"}}'
)
MONITOR = (ROOT / "monitors" / "temperature.zscore.json").read_bytes()
ROOMS = b"""- for: {source: "room-*", metric: [temperature, "hum*"], exclude_source: room-7}
  ladder: {warning: "${line}", critical: 9.5}
  message: "{metric} of {source}"
- for: {source: room-1}
  offline: 15m
  targets: [ops]
- {source_id: room-1, metric: t, event: {delivery: per_row}}
"""
TABLES = b"""[[monitors]]
for = {source = "a", metric = "t"}
watch = "drift"
min = -1.5
[[monitors]]
source_id = "a"
offline.timeout_seconds = 300
"""
FLEET = b'{"fleet":[{"source_id":"dev-1","metrics":{"t":{"latest":1.5},"h":null},"point_count":3}]}'
SOURCES = b'{"sources":[{"slug":"dev-1","id":"5e9f","source_type":"device","name":null}]}'
RECEIPT = b'{"success":true,"count":5,"dropped":0}'
MONITORS = (
    b'{"monitors":[{"source_id":"5e9f","source_slug":"dev-1","metric":"t","threshold":{"id":"a","min":null,"max":3.5,'
    b'"severity":"warning","message":"m","notification_target_ids":["5e9f1c52-6c40-4b0a-9d5e-2f4f3a0c1d77"]}}]}'
)


def lines(body: bytes) -> io.TextIOWrapper:
    """A file of this text, as a command opens it."""
    return io.TextIOWrapper(io.BytesIO(body), "utf-8", newline="")


def config(suffix: str) -> Callable[[bytes, Path], None]:
    """Load a configuration file of this kind."""

    def load(body: bytes, folder: Path) -> None:
        path = folder / f"f.{suffix}"
        path.write_bytes(body)
        load_config([path], {}).warnings()

    return load


def specs(suffix: str) -> Callable[[bytes, Path], None]:
    """Load a monitor file of this kind and spread it over two devices."""

    def load(body: bytes, folder: Path) -> None:
        path = folder / f"m.{suffix}"
        path.write_bytes(body)
        loaded = load_specs(path, variables={"line": 3}, targets={"ops": OPS})
        names = ("temperature", "humidity", "t.zscore")
        expand(loaded, KnownSources({"room-1": "room-1"}, ("room-1", "room-7")), {"room-1": names})

    return load


def scored(body: bytes, _folder: Path) -> None:
    """Score a CSV."""
    score_series(*read_csv(lines(body)))


def points(body: bytes, _folder: Path) -> None:
    """Read points, as ``backtest`` does."""
    try:
        read_points(lines(body), "p.csv", "p")
    except UnicodeDecodeError:
        return  # the command says so


def labels(body: bytes, _folder: Path) -> None:
    """Read labels."""
    try:
        read_labels(lines(body), "l.csv")
    except UnicodeDecodeError:
        return


def page(body: bytes, _folder: Path) -> None:
    """Decode a page of telemetry; the table is left as it was when it is refused."""
    table = SeriesTable()
    try:
        wire.decode_telemetry(body, table)
    except PlexusDetectError:
        assert len(table) == 0
        raise


def listed(body: bytes, _folder: Path) -> None:
    """Decode a list of monitors."""
    existing_from(wire.decode_monitors(body))


DOORS: dict[str, tuple[Callable[[bytes, Path], object], bytes]] = {
    "YAML": (config("yaml"), YAML),
    "JSON": (config("json"), JSON),
    "TOML": (config("toml"), TOML),
    "monitors": (specs("json"), MONITOR),
    "monitors in YAML": (specs("yaml"), ROOMS),
    "monitors in TOML": (specs("toml"), TABLES),
    "rows for score": (scored, WIDE),
    "long points": (points, LONG),
    "wide points": (points, WIDE),
    "labels": (labels, LABELS),
    "a page": (page, PAGE),
    "a list of monitors": (listed, MONITORS),
    "a summary": (lambda body, _folder: wire.decode_fleet_health(body), FLEET),
    "sources": (lambda body, _folder: wire.decode_sources(body), SOURCES),
    "names": (lambda body, _folder: wire.decode_metric_names(body), b'["t","h","humidity"]'),
    "a receipt": (
        lambda body, _folder: wire.decode_ingest_reply(body, 5),
        b'{"success":true,"count":5,"dropped":0}',
    ),
}


def _through(door: str, folder: Path, seeds: range) -> None:
    take, good = DOORS[door]
    take(good, folder)
    for seed in seeds:
        body = mutated(good, random.Random(f"{door} {seed}"))
        try:
            take(body, folder)
        except PlexusDetectError as error:
            assert sentence(str(error)).isprintable()  # noqa: PT017  a result is as good
        except Exception as error:
            raise AssertionError(f"{door}, seed {seed}: {error!r}") from error


@pytest.mark.parametrize("door", DOORS)
def test_damaged_input(tmp_path: Path, door: str) -> None:
    """Forty seeds a door."""
    _through(door, tmp_path, range(SEEDS))


@pytest.mark.soak
@pytest.mark.parametrize("door", DOORS)
def test_much_damaged_input(tmp_path: Path, door: str) -> None:
    """Ten thousand seeds a door."""
    _through(door, tmp_path, range(SOAK_SEEDS))
