"""The pipelines under examples/ci follow their schemas, run commands that exist, give nothing away."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from deployment import EXAMPLES, documents, options

from plexus_detect import __version__
from plexus_detect.config import load_config
from plexus_detect.monitors.markdown import MARK

FOLDER = EXAMPLES / "ci"
GITHUB, GITLAB = FOLDER / "monitors.yml", FOLDER / "monitors.gitlab-ci.yml"
JOBS: dict[str, Any] = documents(GITHUB)[0]["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
PIPELINE = documents(GITLAB)[0]


def commands() -> Iterator[str]:
    """Every command of the program in the pipelines, without what a shell does with its result."""
    scripts = [step["run"] for step in STEPS if "run" in step]
    scripts += [line for job in PIPELINE.values() for line in job.get("script", ())]
    for line in "\n".join(scripts).splitlines():
        if line.strip().startswith("plexus-detect "):
            yield re.split(r" (?:>|\|\||#)", line.strip())[0]


@pytest.mark.parametrize(
    ("schema", "path"), [("vendor.github-workflows", GITHUB), ("vendor.gitlab-ci", GITLAB)]
)
def test_pipelines_follow_their_schemas(schema: str, path: Any) -> None:
    """Each file is what its service takes."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_are_the_programs() -> None:
    """Lint and plan before a merge; after it a saved plan, and apply of just that."""
    found = [shlex.split(line)[1:] for line in commands()]
    assert len(found) == 8
    for words in found:
        options(words)
    assert [words[1] for words in found] == ["lint", "plan", "plan", "apply"] * 2
    assert options(found[1])["output"] == "markdown"
    assert found[2][found[2].index("-o") + 1] == found[3][2]


def test_everything_has_a_version() -> None:
    """Actions are named by their commit, the program and the image by their version."""
    for step in STEPS:
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", step["uses"])
    for path in (GITHUB, GITLAB):
        assert re.findall(r"plexus-detect(==[\w.]+)", path.read_text("utf-8")) == [f"=={__version__}"] * len(
            re.findall("pip install", path.read_text("utf-8"))
        )
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", PIPELINE[".monitors"]["image"])


def test_least_rights() -> None:
    """No right but those that a job names; code of a fork runs nowhere near the key; texts that somebody else
    wrote are no part of a script; no key stands in a file."""
    assert documents(GITHUB)[0]["permissions"] == {}
    assert JOBS["plan"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert JOBS["apply"]["permissions"] == {"contents": "read"}
    assert "head.repo.full_name == github.repository" in JOBS["plan"]["if"]
    assert "refs/heads/main" in JOBS["apply"]["if"]
    for step in STEPS:
        assert "${{" not in step.get("run", "")
        variables = step.get("env", {})
        keys = {name: text for name, text in variables.items() if "KEY" in name or "TOKEN" in name}
        assert all(text in ("${{ secrets.PLEXUS_API_KEY }}", "${{ github.token }}") for text in keys.values())
        assert len(keys) <= 1
    for path in (GITHUB, GITLAB):
        text = path.read_text("utf-8")
        assert "pull_request_target" not in text
        assert not re.search(r"plx_\w", text)


def test_one_comment_is_found_again() -> None:
    """By the first line of the plan as Markdown; two applies never run at a time."""
    (script,) = (step["run"] for step in STEPS if "PATCH" in step.get("run", ""))
    assert f'startswith("{MARK}")' in script
    assert JOBS["apply"]["concurrency"] == {"group": "monitors-apply", "cancel-in-progress": False}
    assert PIPELINE["monitors-apply"]["resource_group"]


def test_the_manifest_is_kept() -> None:
    """What is ours is in the cached folder, which only applying writes."""
    for variables in (documents(GITHUB)[0]["env"], PIPELINE[".monitors"]["variables"]):
        assert str(load_config([], variables).manifest().parent) == ".plexus-detect"
    saved = [step for step in JOBS["plan"]["steps"] if "cache/save" in step.get("uses", "")]
    assert saved == []
    assert PIPELINE[".monitors"]["cache"]["policy"] == "pull"
