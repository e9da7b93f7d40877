"""What a check found, as a line or as values; and that no secret is in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plexus_detect.errors import PlexusDetectError

Level = Literal["ok", "warn", "FAIL"]

_KEY = re.compile(r"plx_[A-Za-z0-9+/=_-]{4,}")
_USER = re.compile(r"//[^/@\s]*@")
MASK = "plx_***"


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``found`` says what is so, ``to_do`` what to do about it, ``exit_code`` with
    what a command ends that finds this wrong."""

    level: Level
    name: str
    found: str
    to_do: str = ""
    exit_code: int = 0


def ok(name: str, found: str) -> Finding:
    """All is well."""
    return Finding("ok", name, found)


def warn(name: str, found: str, to_do: str = "") -> Finding:
    """The worker runs, but perhaps not as it is meant to."""
    return Finding("warn", name, found, to_do)


def fail(name: str, found: str, to_do: str = "", *, exit_code: int = 1) -> Finding:
    """The worker cannot do its work."""
    return Finding("FAIL", name, found, to_do, exit_code)


def failed(name: str, error: PlexusDetectError) -> Finding:
    """One of our own errors, whose sentence says what to do."""
    return fail(name, str(error), exit_code=error.exit_code)


def exit_code(findings: Sequence[Finding]) -> int:
    """That of the first check that failed; 0 when none did."""
    return next((finding.exit_code for finding in findings if finding.level == "FAIL"), 0)


class Censor:
    """Takes secrets out of all that is shown: the ``key`` itself, whatever looks like one, and the user and
    password of an address. What could move the cursor goes too."""

    def __init__(self, key: str = "") -> None:
        self._key = key

    def clean(self, text: str) -> str:
        """The text on one line, without secrets."""
        if self._key:
            text = text.replace(self._key, MASK)
        text = _USER.sub("//", _KEY.sub(MASK, text))
        return " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())

    def lines(self, findings: Sequence[Finding]) -> list[str]:
        """The report, one line a finding, names in one column."""
        width = max((len(finding.name) for finding in findings), default=0)
        return [self._line(finding, width) for finding in findings]

    def _line(self, finding: Finding, width: int) -> str:
        text = f"{finding.found}; {finding.to_do}" if finding.to_do else finding.found
        return f"{finding.level:<4}  {finding.name:<{width}}  {self.clean(text)}"

    def values(self, findings: Sequence[Finding]) -> list[dict[str, Any]]:
        """The report as values for JSON."""
        return [
            {
                "level": finding.level,
                "name": finding.name,
                "found": self.clean(finding.found),
                "to_do": self.clean(finding.to_do),
            }
            for finding in findings
        ]


def tally(findings: Sequence[Finding]) -> str:
    """The last line of the report."""
    n = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warn", "FAIL")}
    warnings = "1 warning" if n["warn"] == 1 else f"{n['warn']} warnings"
    return f"{n['ok']} ok, {warnings}, {n['FAIL']} failed"
