"""The manifests under examples/kubernetes are valid and hardened, fit one another, and their worker runs."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from deployment import EXAMPLES, ROOT, documents, options
from test_examples import environment

from plexus_detect import __version__
from plexus_detect.config import load_config
from plexus_detect.provision.files import load_specs
from plexus_detect.sandbox import Sandbox, Settings

FOLDER = EXAMPLES / "kubernetes"
MANIFESTS = [document for path in sorted(FOLDER.glob("*.yaml")) for document in documents(path)]
OPERATORS = documents(FOLDER / "prometheus-operator/podmonitor.yaml")
# The oldest one that anybody supports, and the newest one whose schema we have.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]


def of_kind(kind: str) -> dict[str, Any]:
    """The one manifest of this kind."""
    (found,) = (document for document in MANIFESTS if document["kind"] == kind)
    return found


WORKER = of_kind("StatefulSet")["spec"]
MONITORS = of_kind("CronJob")["spec"]
PODS = {"worker": WORKER["template"], "monitors": MONITORS["jobTemplate"]["spec"]["template"]}
pods = pytest.mark.parametrize("name", PODS)


def container(name: str) -> dict[str, Any]:
    """The one container of a pod."""
    (only,) = PODS[name]["spec"]["containers"]
    return only


def variables(name: str) -> dict[str, str]:
    """The variables of a pod's container."""
    return {entry["name"]: entry["value"] for entry in container(name)["env"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_follow_the_schemas(version: str) -> None:
    """Every manifest is one that the cluster takes, with no key it does not know."""
    assert len(MANIFESTS) == 6
    for document in MANIFESTS:
        kubernetes_validate.validate(document, version, strict=True)


@pods
def test_pods_are_hardened(name: str) -> None:
    """What the strictest standard for pods asks: no root, no capability, nothing writable but volumes; and no
    token of the cluster, bounded memory, an image by its version."""
    pod, inside = PODS[name]["spec"], container(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert inside["resources"]["limits"]["memory"]
    assert inside["resources"]["requests"].keys() == {"cpu", "memory"}
    assert inside["image"].endswith(f":{__version__}")


@pods
def test_pods_are_whole(name: str) -> None:
    """The program knows the command; every mount has its volume; the key comes from the Secret's file."""
    pod, inside = PODS[name]["spec"], container(name)
    options(inside["args"])
    claims = {claim["metadata"]["name"] for claim in WORKER["volumeClaimTemplates"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in inside["volumeMounts"]}
    assert mounts.keys() == volumes.keys() | (claims if name == "worker" else set())
    assert variables(name)["PLEXUS_API_KEY_FILE"] == f"{mounts['key']}/api_key"
    assert volumes["key"]["secret"]["secretName"] == "plexus-detect"


def test_labels_select_what_is_meant() -> None:
    """StatefulSet, Service and PodMonitor select the worker alone, the NetworkPolicy both pods."""
    worker, monitors = (PODS[name]["metadata"]["labels"] for name in ("worker", "monitors"))
    monitor = OPERATORS[0]["spec"]
    selectors = [WORKER["selector"]["matchLabels"], of_kind("Service")["spec"]["selector"]]
    for selector in [*selectors, monitor["selector"]["matchLabels"]]:
        assert selector.items() <= worker.items()
        assert not selector.items() <= monitors.items()
    policy = of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= worker.items()
    assert policy.items() <= monitors.items()
    ports = {port["name"] for port in container("worker")["ports"]}
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports


def test_one_worker_that_may_leave_in_time() -> None:
    """There is one; it gets more time to leave than it needs, and only /livez ends it."""
    pod, inside = PODS["worker"]["spec"], container("worker")
    config = load_config([], variables("worker") | {"PLEXUS_API_KEY_FILE": ""})
    assert WORKER["replicas"] == 1
    assert WORKER["serviceName"] == of_kind("Service")["metadata"]["name"]
    assert pod["terminationGracePeriodSeconds"] * 1000 > config.health.stop_within_ms
    paths = {probe: inside[probe]["httpGet"]["path"] for probe in inside if probe.endswith("Probe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert config.health.listen == f"0.0.0.0:{inside['ports'][0]['containerPort']}"
    assert config.state.path.parent == Path("/var/lib/plexus-detect")


def test_runs_of_the_monitors_do_not_overlap() -> None:
    """A slow run and the next one are kept apart, and a run that hangs is ended."""
    assert MONITORS["concurrencyPolicy"] == "Forbid"
    assert MONITORS["jobTemplate"]["spec"]["activeDeadlineSeconds"] <= 900


def test_the_manifest_outlives_a_run() -> None:
    """What is ours is written where the pod has its claim mounted, the only place that it may write to."""
    config = load_config([], variables("monitors") | {"PLEXUS_API_KEY_FILE": ""})
    mounts = {mount["name"]: mount["mountPath"] for mount in container("monitors")["volumeMounts"]}
    (volume,) = (v for v in PODS["monitors"]["spec"]["volumes"] if "persistentVolumeClaim" in v)
    assert str(config.manifest().parent) == mounts[volume["name"]]
    claim = of_kind("PersistentVolumeClaim")["metadata"]["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim


def test_monitors_are_read_as_the_kubelet_mounts_them(tmp_path: Path) -> None:
    """A mounted ConfigMap is links into a hidden folder of its version: each monitor is read from it once."""
    version = tmp_path / "..2026_11_27_10_00_00.1"
    version.mkdir()
    (tmp_path / "..data").symlink_to(version.name)
    for path in (ROOT / "monitors").iterdir():
        (version / path.name).write_bytes(path.read_bytes())
        (tmp_path / path.name).symlink_to(f"..data/{path.name}")
    mounted, here = load_specs(tmp_path), load_specs(ROOT / "monitors")
    assert [replace(spec, origin="") for spec in mounted] == [replace(spec, origin="") for spec in here]


def test_the_worker_of_the_manifest_runs(tmp_path: Path) -> None:
    """With the ConfigMap's file, the mounted key and the pod's own variables it polls the sandbox."""
    config, key = tmp_path / "config.yaml", tmp_path / "api_key"
    config.write_text(of_kind("ConfigMap")["data"]["config.yaml"], "utf-8")
    now = int(time.time() * 1000)
    with Sandbox(Settings()) as box:
        box.load(
            (source, "temperature", now - 1000 * k, 20.0 + k % 3)
            for source in ("cold-1", "greenhouse-1", "cold-1-test")
            for k in range(60)
        )
        key.write_text(box.key, "utf-8")
        own = {"PLEXUS_API_KEY_FILE": str(key), "PLEXUS_API_KEY": "", "PLEXUS_DETECT_HEALTH__LISTEN": "off"}
        env = environment(box, tmp_path / "state.db") | variables("worker") | own
        env["PLEXUS_DETECT_STATE__PATH"] = str(tmp_path / "state.db")
        command = [sys.executable, "-m", "plexus_detect", "run", "--once", "--config", str(config)]
        done = subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 0, done.stderr
    assert '"series":2,' in done.stderr.replace(" ", "")
