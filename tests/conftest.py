"""What several test modules share as fixtures."""

from __future__ import annotations

import pytest
from fake_platform import FakeClock


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The one clock of worker and platform, which moves only when a test or a wait moves it."""
    return FakeClock(monkeypatch)
