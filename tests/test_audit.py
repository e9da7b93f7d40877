"""The audit of dependencies fails for what is found, and never passes off a missing answer as a good one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from deployment import ROOT

PATH = ROOT / ".ci/audit.py"
GOOD = {"name": "click", "version": "8.1.7", "vulns": []}
BAD = {
    "name": "idna",
    "version": "3.6",
    "vulns": [{"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["3.7"]}],
}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("audit", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "ignored", "code", "line"),
    [
        ([GOOD], {}, 0, "audited 1 of 1 packages: 0 known vulnerabilities"),
        ([GOOD, BAD], {}, 1, "FOUND: idna 3.6: PYSEC-2026-1, fixed by 3.7"),
        ([BAD], {"CVE-2026-1": "no such names"}, 0, "ignored: idna 3.6: PYSEC-2026-1, fixed by 3.7: no such"),
        ([GOOD], {"CVE-2026-2": "gone"}, 0, "no longer needed in audit_ignored: CVE-2026-2"),
        ([GOOD, UNKNOWN], {}, 0, "not audited: torch: not found"),
        ([UNKNOWN], {}, 75, "AUDIT SKIPPED, nothing was audited: the service knows none of the 1 packages"),
    ],
)
def test_verdicts(
    audit: ModuleType, packages: list[dict[str, Any]], ignored: dict[str, str], code: int, line: str
) -> None:
    """What is found fails unless it is ignored by a name of it; what was not looked at is said."""
    verdict = audit.judge(packages, ignored)
    assert verdict.code == code
    assert any(told.startswith(line) for told in verdict.lines), verdict.lines


def test_an_ignored_vulnerability_needs_a_reason(audit: ModuleType) -> None:
    """A line is an id and a reason; without one it is refused with its number."""
    assert audit.read_ignored("# none\n\nCVE-2026-1 only its server  # note\n") == {
        "CVE-2026-1": "only its server"
    }
    with pytest.raises(ValueError, match="line 2: CVE-2026-1 has no reason"):
        audit.read_ignored("\nCVE-2026-1\n")


def test_packages_are_asked_for_by_their_public_version(audit: ModuleType) -> None:
    """A build such as 2.13.0+cpu is asked for as 2.13.0; this project itself is not."""
    installed = {"torch": "2.13.0+cpu", "plexus-detect": "0.3.0", "click": "8.1.7"}
    assert audit.requirements(installed) == "click==8.1.7\ntorch==2.13.0\n"


def test_workflows_follow_their_schema() -> None:
    """Every workflow is one that the service that runs it takes."""
    workflows = [str(path) for path in sorted(Path(ROOT / ".github/workflows").iterdir())]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *workflows], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
