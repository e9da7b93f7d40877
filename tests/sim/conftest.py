"""The figures of all seeds at the end of a run, whichever process ran them."""

from __future__ import annotations

import pytest
from sim_compare import Totals, unpacked


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the totals of the simulation, and the line that replays each seed that failed."""
    totals = Totals()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, text in getattr(report, "user_properties", ()):
                if name == "simulation" and report.when == "call":
                    totals.add(*unpacked(text))
                if name == "replay" and report.when == "call":
                    totals.failed.append(text)
    if totals.figures:
        terminalreporter.section("simulation")
        for line in (*totals.lines(), *totals.failed):
            terminalreporter.line(line)
