"""Whose a monitor is: by the manifest of what we applied, and by the mark where the platform can hold one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plexus_detect.monitors.documents import LEAVE, Targets
from plexus_detect.monitors.marks import OWNER

Key = tuple[str, str, str]
"""Source slug, metric ("" for an offline monitor) and part (``threshold``, ``event`` or ``offline``)."""


@dataclass(frozen=True)
class Owned:
    """One monitor of ours: what the platform had of it when it was last seen as wanted.

    ``settings`` is None until then; ``sent`` is what a run was about to make of it and has not confirmed: it
    was, or was not, carried out. ``id`` is the platform's, which tells offline monitors apart.
    """

    key: Key
    settings: Mapping[str, Any] | None
    targets: Targets
    id: str
    origin: str
    applied: str
    sent: Mapping[str, Any] | None = None

    def made(self, settings: Mapping[str, Any], targets: tuple[str, ...] | None) -> bool:
        """Whether these settings are what we left there, and nobody else changed since."""
        if self.sent is not None and dict(self.sent) == dict(settings):
            return True
        same = self.settings is not None and dict(self.settings) == dict(settings)
        return same and self.targets in (LEAVE, targets)


@dataclass(frozen=True)
class Ownership:
    """Who we are and what is ours. ``overwrite``: also what a person changed, or somebody else made."""

    owner: str = OWNER
    owned: tuple[Owned, ...] = ()
    mark: bool = True
    overwrite: bool = False
    _by_key: dict[Key, list[Owned]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.owned:
            self._by_key.setdefault(entry.key, []).append(entry)

    def of(self, key: Key) -> list[Owned]:
        """Our entries for a key; several only for offline monitors."""
        return self._by_key.get(key, [])
