"""Ask whether what is installed here has known vulnerabilities: `python .ci/audit.py [--must-answer]`.

It fails (1) when one is found that `.ci/audit_ignored` does not name, and when an entry of that file has no
reason. A service that does not answer, or knows none of the packages (as a mirror may), fails nothing by
itself: the output then says that nothing was audited, and with `--must-answer` that is a failure (75) too.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORED = Path(__file__).with_name("audit_ignored")
OWN_NAME = "plexus-detect"
TIMEOUT_S = 300
EXIT_FOUND, EXIT_NO_ANSWER = 1, 75


@dataclass(frozen=True)
class Verdict:
    """What is to be printed, and the exit code."""

    lines: list[str]
    code: int


def requirements(installed: dict[str, str]) -> str:
    """The packages by their public versions: of 2.13.0+cpu, a build of 2.13.0, no service has heard."""
    pins = sorted(f"{name}=={version.partition('+')[0]}" for name, version in installed.items())
    return "".join(f"{pin}\n" for pin in pins if not pin.startswith(f"{OWN_NAME}=="))


def read_ignored(text: str) -> dict[str, str]:
    """The reasons by the ids of vulnerabilities: a line is `ID reason`, `#` begins a comment.

    Raises ValueError for a line without a reason.
    """
    ignored = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split(maxsplit=1)
        if not words:
            continue
        if len(words) == 1:
            raise ValueError(f"line {number}: {words[0]} has no reason; say why it does not concern us")
        ignored[words[0]] = words[1].strip()
    return ignored


def judge(dependencies: list[dict[str, Any]], ignored: dict[str, str]) -> Verdict:
    """Judge what the service said of each package: its `vulns`, or a `skip_reason` where it knew nothing."""
    answered = [d for d in dependencies if "vulns" in d]
    if not answered:
        return no_answer(f"the service knows none of the {len(dependencies)} packages")
    lines, used, found = [], set(), 0
    for package in answered:
        for vulnerability in package["vulns"]:
            names = {vulnerability["id"], *vulnerability.get("aliases", ())}
            reasons = sorted(names & ignored.keys())
            used.update(reasons)
            found += not reasons
            fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
            what = f"{package['name']} {package['version']}: {vulnerability['id']}, fixed by {fixed}"
            lines.append(f"ignored: {what}: {ignored[reasons[0]]}" if reasons else f"FOUND: {what}")
    lines += [f"not audited: {d['name']}: {d['skip_reason']}" for d in dependencies if "vulns" not in d]
    lines += [f"no longer needed in {IGNORED.name}: {name}" for name in sorted(ignored.keys() - used)]
    lines.append(f"audited {len(answered)} of {len(dependencies)} packages: {found} known vulnerabilities")
    return Verdict(lines, EXIT_FOUND if found else 0)


def no_answer(why: str) -> Verdict:
    """The verdict that there is none."""
    return Verdict([f"AUDIT SKIPPED, nothing was audited: {why}"], EXIT_NO_ANSWER)


def ask(pins: str) -> list[dict[str, Any]] | str:
    """What the service says of the packages, or one line that says why there is no answer."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text(pins, "utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return f"the service took longer than {TIMEOUT_S} s"
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"])[-1]
        return f"the service did not answer ({re.sub(r'https?://[^ ]+', 'its address', last)[:300]})"
    return dependencies


def main() -> int:
    """Print the verdict on this environment; the exit code."""
    try:
        ignored = read_ignored(IGNORED.read_text("utf-8"))
    except ValueError as error:
        print(f"{IGNORED.name}: {error}")
        return EXIT_FOUND
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    answer = ask(requirements(installed))
    verdict = no_answer(answer) if isinstance(answer, str) else judge(answer, ignored)
    print("\n".join(verdict.lines))
    excused = verdict.code == EXIT_NO_ANSWER and "--must-answer" not in sys.argv[1:]
    return 0 if excused else verdict.code


if __name__ == "__main__":
    sys.exit(main())
