"""What a sandbox is started with: address, store, pace and keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

FULL_KEY = "plx_" + "SandboxFullKey".ljust(32, "0")
READ_KEY = "plx_" + "SandboxReadKey".ljust(32, "0")
WRITE_KEY = "plx_" + "SandboxWriteKey".ljust(32, "0")
DEFAULT_ORG = "org_sandbox"
SLACK_TARGET = "5e9f1c52-6c40-4b0a-9d5e-2f4f3a0c1d77"
NOTIFICATIONS = ("alert.triggered", "alert.resolved", "alert.acknowledged", "device.offline", "device.online")


class Key(NamedTuple):
    """One API key's standing. ``access_enabled=False`` is a billing pause; ``scopes`` may be empty."""

    org: str = DEFAULT_ORG
    scopes: tuple[str, ...] = ("read", "write")
    expired: bool = False
    access_enabled: bool = True


def default_keys() -> dict[str, Key]:
    """Return the keys a sandbox knows unless told otherwise: full, read only and write only, one org."""
    return {
        FULL_KEY: Key(),
        READ_KEY: Key(scopes=("read",)),
        WRITE_KEY: Key(scopes=("write",)),
    }


@dataclass(frozen=True)
class Settings:
    """Everything a sandbox is told at its start.

    ``port`` 0 takes a free one. ``path`` is an SQLite file or ``:memory:``. ``time_scale`` divides every
    interval of the platform (60 turns the 30 s recovery into half a second). ``keys`` maps the whole key
    to its ``Key``. ``slack_events`` are the notifications the Slack integration subscribes to, and
    ``notification_targets`` the integration ids that a monitor may name.
    """

    host: str = "127.0.0.1"
    port: int = 0
    path: str = ":memory:"
    time_scale: float = 1.0
    slack_webhook: str | None = None
    keys: Mapping[str, Key] = field(default_factory=default_keys)
    slack_events: tuple[str, ...] = NOTIFICATIONS
    notification_targets: tuple[str, ...] = (SLACK_TARGET,)

    def __post_init__(self) -> None:
        if not self.time_scale > 0:
            raise ValueError("time_scale must be greater than 0")

    @property
    def full_key(self) -> str | None:
        """The first key that may read and write, to be printed at start."""
        for text, key in self.keys.items():
            both = "*" in key.scopes or {"read", "write"} <= set(key.scopes)
            if both and not key.expired and key.access_enabled:
                return text
        return None

    @property
    def default_org(self) -> str:
        """The org of the full key: where bulk loads and inspection go unless told otherwise."""
        return self.keys[self.full_key].org if self.full_key else DEFAULT_ORG

    def span_ms(self, seconds: float) -> int:
        """Return an interval of the platform in scaled milliseconds."""
        return int(seconds * 1000 / self.time_scale)
