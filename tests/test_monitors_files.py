"""The files of monitors on disk: which are read, the set of this repository, the example of cron."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from fakes import FakeMonitorApi

from plexus_detect import monitors
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import MonitorSpec
from plexus_detect.provision.applying import ApplyResult, apply_plan
from plexus_detect.provision.files import load_specs
from plexus_detect.provision.reading import make_plan

ROOT = Path(__file__).parent.parent
SLACK = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"


def test_directory_is_read_in_name_order(tmp_path: Path) -> None:
    """All JSON, YAML and TOML files of a directory count, in name order; schemas and other files do not."""
    for name in ("b.json", "a.json"):
        (tmp_path / name).write_text(json.dumps({"source_id": name[0], "offline": {}}), "utf-8-sig")
    (tmp_path / "c.yml").write_text("for: {source: c}\noffline: ${silence}\ntargets: [ops]\n")
    (tmp_path / "d.toml").write_text("offline = 60\nfor.source = 'd'\n")
    (tmp_path / "monitor.schema.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("?")
    specs = load_specs(tmp_path, variables={"silence": "5m"}, targets={"ops": SLACK})
    assert [spec.source for spec in specs] == ["a", "b", "c", "d"]
    assert (specs[2].parts["offline"], specs[2].targets) == ({"timeout_seconds": 300}, (SLACK,))
    (alone,) = load_specs(tmp_path / "b.json")
    assert alone.origin == str(tmp_path / "b.json")


def test_nothing_to_load(tmp_path: Path) -> None:
    """A path without monitors is an error, never the wish to have none."""
    with pytest.raises(ConfigError, match="no such file or directory"):
        load_specs(tmp_path / "gone")
    with pytest.raises(ConfigError, match="no monitor in it"):
        load_specs(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ConfigError, match="no monitor in it"):
        load_specs(tmp_path)


def test_unreadable_files(tmp_path: Path) -> None:
    """A file that is too large, not text or not a file is named in one sentence."""
    (tmp_path / "a.json").write_bytes(b'"\xff"')
    with pytest.raises(ConfigError, match=r"a\.json: not UTF-8 text: .* at byte 1"):
        load_specs(tmp_path)
    with pytest.raises(ConfigError, match=r"a\.json: larger than 2 bytes"):
        load_specs(tmp_path, size_bytes_max=2)
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").mkdir()
    with pytest.raises(ConfigError, match=r"a\.json: cannot be read: Is a directory"):
        load_specs(tmp_path)


def test_default_set_applies_to_a_fleet() -> None:
    """The monitors of this repository give each device those of the metrics it sends, and one to the worker's
    own source, which is made first; a second run finds nothing to do."""
    api = FakeMonitorApi({"dev-1": ("temperature", "humidity"), "dev-2": ("temperature",)})
    specs = load_specs(ROOT / "monitors")
    plan = asyncio.run(make_plan(api, specs, "plexus-detect"))
    assert monitors.render(plan)[0] == "+ create source plexus-detect"
    assert api.writes() == []
    said: list[str] = []
    result = asyncio.run(apply_plan(api, plan, said.append))
    assert result.ok
    assert said[0] == "created source plexus-detect"
    assert [slug for slug, _fields in api.offline] == ["plexus-detect"]
    assert asyncio.run(make_plan(api, specs, "plexus-detect")).empty
    assert sorted(key[:2] for key in api.pairs) == [
        ("dev-1", "humidity.zscore"),
        ("dev-1", "temperature.fleet_zscore"),
        ("dev-1", "temperature.zscore"),
        ("dev-2", "temperature.fleet_zscore"),
        ("dev-2", "temperature.zscore"),
    ]


async def _apply(api: FakeMonitorApi, specs: tuple[MonitorSpec, ...]) -> ApplyResult:
    return await apply_plan(api, await make_plan(api, specs), lambda line: None)
