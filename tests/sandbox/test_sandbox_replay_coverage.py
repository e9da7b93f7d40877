"""No recorded exchange lies about unplayed, and every exception has its reason."""

from __future__ import annotations

import test_sandbox_monitors as monitors
import test_sandbox_replay_app as app
import test_sandbox_replay_gateway as gateway
import test_sandbox_replay_read_api as read_api
from sandbox_replay import RECORDED


def test_every_recorded_exchange_is_played() -> None:
    """The replay tests together play every exchange of the fixture."""
    played = app.PLAYED | gateway.PLAYED | read_api.PLAYED | monitors.PLAYED
    assert RECORDED.keys() - played == set()


def test_every_exception_is_recorded_and_explained() -> None:
    """An exchange that cannot match exists, is played, and says why."""
    for module in (app, gateway, read_api):
        for name, reason in module.CANNOT.items():
            assert name in module.PLAYED
            assert reason
