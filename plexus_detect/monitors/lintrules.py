"""The rules of lint by name, and a finding of one of them. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning"]

EXAMPLES = 3

_ERRORS: Final = {
    "unreadable": "a document that is no monitor",
    "claimed-twice": "two documents want the same source and metric",
    "unknown-source": "a source, named in full, that the platform does not know",
    "unknown-metric": "a metric, or what a score is made from, that the source never sent",
    "not-posted": "a score that this configuration does not post: see `post.series`, `series`, `detectors`",
    "late-score": "`.zscore_late`, which is for the record: old news would page people now",
    "never-fires": "no bound at all, or none that the score can pass: it is never below 0",
    "always-fires": "`min` above `max`, or a score outside its bound while all is normal",
    "event-on-stream": "an event monitor on a score: it looks at no value, each new row alerts",
    "message-too-long": "an event's message over 3,000 characters, which Slack refuses",
}
_WARNINGS: Final = {
    "reaches-nothing": "a glob without a source or metric for now",
    "silent-metric": "a metric that its source did not send in the last hour",
    "posted-by-others": "a score that this configuration does not post, but somebody did in the last hour",
    "fleet-too-small": "a fleet score of fewer sources than `fleet.group_min`",
    "one-value": "`min` equal to `max`: every other value alerts",
    "useless-bound": "a bound that the score cannot pass, beside one that it can",
    "below-line": "a bound inside the detector's own line",
    "one-sided": "a bound on one side only of a signed score (`_raw`)",
    "mostly-outside": "values that were outside most of the time in the last 7 days",
    "far-from-data": "bounds ten times as far away as the values of the last 7 days are apart",
    "unknown-target": "an integration neither in `monitors.targets` nor on any monitor of the platform",
    "offline-too-short": "a timeout under 30 s, or under two intervals of the source: it would flap",
    "busy-event": "an event monitor on a metric that is sent every five minutes or more often",
    "long-message": "an event's message over 300 characters",
    "no-message": "an event without a message, the only text that reaches Slack",
    "message-dropped": "an offline monitor's message, which the platform throws away",
}
RULES: Final = {**_ERRORS, **_WARNINGS}
"""What each rule finds. A name stays what it is: scripts rely on it."""

_AT_LINE = re.compile(r"(.+?):(\d+)(?::|$)")


def severity_of(rule: str) -> Severity:
    """Whether a rule finds errors or warnings."""
    return "error" if rule in _ERRORS else "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one document. ``where`` are the sources on which it is so, each with what
    there is to say of it alone; empty where it is so whatever the source."""

    rule: str
    origin: str
    what: str
    to_do: str
    where: tuple[tuple[str, str], ...] = ()

    @property
    def severity(self) -> Severity:
        """Whether it keeps a monitor from working, or only may."""
        return severity_of(self.rule)

    @property
    def place(self) -> tuple[str, int | None]:
        """The file, and the line where it is known."""
        at = _AT_LINE.match(self.origin)
        return (at[1], int(at[2])) if at else (self.origin.partition("#")[0], None)

    @property
    def sentence(self) -> str:
        """What is so, where, and what to do."""
        return f"{self.what}{self._on()}; {self.to_do}"

    def _on(self) -> str:
        if not self.where:
            return ""
        shown = [f"{source}: {detail}" if detail else source for source, detail in self.where[:EXAMPLES]]
        more = len(self.where) - len(shown)
        return f" ({', '.join(shown)}{f' and {more} more' if more else ''})"


def place_of(sentence: str) -> tuple[str, str]:
    """An error's sentence as the place with which it begins, file and line if any, and the rest."""
    at = _AT_LINE.match(sentence)
    if at is not None:
        return sentence[: at.end(2)], sentence[at.end(2) :].removeprefix(":").strip()
    file, _, rest = sentence.partition(": ")
    return (file, rest) if rest else ("", sentence)


class Findings:
    """Collects findings; the same one on several sources is told once."""

    def __init__(self) -> None:
        self._found: defaultdict[tuple[str, str, str, str], dict[str, str]] = defaultdict(dict)

    def add(self, rule: str, origin: str, what: str, to_do: str, *where: str) -> None:
        """Note one; ``where`` is the source because of which it is so, if any, and what to say of it."""
        noted = self._found[rule, origin, what, to_do]
        if where and where[0]:
            noted.setdefault(where[0], "".join(where[1:]))

    def all(self, origins: Sequence[str]) -> tuple[Finding, ...]:
        """In the order of the documents, and of each the errors first."""
        place = {origin: i for i, origin in enumerate(dict.fromkeys(origins))}
        found = [Finding(*key, tuple(where.items())) for key, where in self._found.items()]
        return tuple(sorted(found, key=lambda f: (place.get(f.origin, -1), f.severity)))
