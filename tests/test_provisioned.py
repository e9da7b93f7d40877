"""What a worker and doctor tell of the monitors' manifest: the last run, and nothing that could fail them."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from prometheus_client import CollectorRegistry

from plexus_detect import monitors
from plexus_detect.config import Config, load_config
from plexus_detect.doctor import local
from plexus_detect.monitors.manifest import LastRun, Manifest, text_of
from plexus_detect.monitors.model import Expansion
from plexus_detect.outside import Outside
from plexus_detect.provision.figures import Provisioned
from plexus_detect.provision.manifestfile import ManifestFile, manifest_file
from plexus_detect.provision.shared import ledger_of

RUN = LastRun("2026-11-27T10:00:00Z", 4, 3, 1, 2)


EMPTY: dict[str, object] = {"owner": "plexus-detect", "endpoint": "", "monitors": []}


def told(path: Path) -> dict[str, float]:
    """The value of each sample of a scrape, by state where there is one."""
    return scraped(Provisioned(ManifestFile(path, "plexus-detect", "")))


def scraped(provisioned: Provisioned) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(provisioned)
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {sample.labels.get("state", sample.name): sample.value for sample in samples}


def kept(path: Path, run: LastRun | None = RUN, endpoint: str = "") -> Path:
    path.write_text(text_of([replace(Manifest(endpoint=endpoint), last_run=run)]), "utf-8")
    return path


def test_the_last_run_is_told(tmp_path: Path) -> None:
    """Its time and how many monitors were planned, applied, drifted and failed; nothing before the first."""
    path = tmp_path / "m.json"
    provisioned = Provisioned(ManifestFile(path, "plexus-detect", ""))
    assert scraped(provisioned) == {}
    kept(path)
    stamp = {"plexus_detect_monitors_last_run_timestamp_seconds": 1795773600.0}
    assert scraped(provisioned) == {"planned": 4, "applied": 3, "drifted": 1, "failed": 2} | stamp
    kept(path, None)
    assert scraped(provisioned) == {}


def test_a_file_is_read_when_it_has_changed(tmp_path: Path) -> None:
    """The same file is read once however often is asked; one that was replaced is read again."""
    path = kept(tmp_path / "m.json")
    provisioned = Provisioned(ManifestFile(path, "plexus-detect", ""))
    scraped(provisioned)
    before = path.stat()
    path.write_text(path.read_text("utf-8").replace('"failed": 2', '"failed": 9'), "utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scraped(provisioned)["failed"] == 2
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert scraped(provisioned)["failed"] == 9


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(list(vars(RUN))), inner),
    max_leaves=6,
)
_ATS = st.sampled_from(["0001-01-01T00:00:00+23:59", "x", RUN.at])


@examples(300)
@given(run=st.fixed_dictionaries(dict.fromkeys(vars(RUN), _values) | {"at": _ATS | _values}) | _values)
def test_no_manifest_fails_a_scrape(tmp_path_factory: pytest.TempPathFactory, run: object) -> None:
    """Whatever stands in the file, the other metrics are told."""
    path = tmp_path_factory.mktemp("any") / "m.json"
    path.write_text(json.dumps({"version": 1, "manifests": [EMPTY | {"last_run": run}]}), "utf-8")
    told(path)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"last_run": {"at": 3}}'])
def test_no_manifest_at_all_fails_a_scrape(tmp_path: Path, content: bytes) -> None:
    """Nor does what is no manifest, or a folder."""
    (tmp_path / "m.json").write_bytes(content)
    assert told(tmp_path / "m.json") == {}
    assert told(tmp_path) == {}


def test_a_run_with_nothing_to_do_is_a_run(tmp_path: Path) -> None:
    """Its time is written down, so that who waits for the next one knows that there was one."""
    config = config_of(tmp_path)
    ledger_of(config).adopt(monitors.plan(Expansion((), (), ()), ()))
    found = scraped(Provisioned(manifest_file(config)))
    assert found.pop("plexus_detect_monitors_last_run_timestamp_seconds") > 1.7e9
    assert found == {"planned": 0, "applied": 0, "drifted": 0, "failed": 0}


# ---- doctor ----------------------------------------------------------------------------------------------


def config_of(folder: Path) -> Config:
    return load_config([], {"PLEXUS_DETECT_MONITORS__MANIFEST": str(folder / "m.json")})


def test_doctor_tells_of_the_manifest(tmp_path: Path) -> None:
    """How many monitors are ours and when they were last applied; that there is none yet is no trouble."""
    config = config_of(tmp_path)
    (first,) = local.manifest(config)
    assert (first.level, first.found) == ("ok", f"{tmp_path}/m.json: none yet; the first apply writes it")
    owned = monitors.Owned(("dev-1", "t", "threshold"), None, None, "", "m.json", "")
    manifest = Manifest(endpoint=config.plexus.endpoint, owned=(owned,), last_run=RUN)
    (tmp_path / "m.json").write_text(text_of([manifest]), "utf-8")
    (then,) = local.manifest(config)
    assert then.found.endswith("m.json: monitors of plexus-detect: 1, last applied 2026-11-27T10:00:00Z")


def test_doctor_warns_of_a_manifest_that_is_no_use(tmp_path: Path) -> None:
    """A damaged one: the worker runs, provisioning would not."""
    (tmp_path / "m.json").write_text("{}")
    (found,) = local.manifest(config_of(tmp_path))
    assert found.level == "warn"
    assert "no manifest of monitors" in found.found
    (missing,) = local.manifest(config_of(tmp_path / "nowhere"))
    assert (missing.level, missing.found) == ("warn", f"{tmp_path}/nowhere does not exist")


def test_the_worker_tells_it(tmp_path: Path) -> None:
    """The manifest of its configuration is among the worker's own figures."""
    kept(tmp_path / "m.json", endpoint=config_of(tmp_path).plexus.endpoint)
    registry = Outside(config_of(tmp_path), asyncio.Event(), {}).meters.registry
    assert registry.get_sample_value("plexus_detect_monitors", {"state": "failed"}) == 2
