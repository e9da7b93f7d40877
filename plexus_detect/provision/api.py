"""The calls that provisioning makes, as a protocol: the client has them, and so has a test's fake."""

from __future__ import annotations

from typing import Any, Protocol


class MonitorApi(Protocol):
    """The calls that provisioning makes; ``client.Client`` has them, tests bring a fake."""

    async def monitors(self) -> bytes:
        """GET {app}/api/monitors."""

    async def sources(self) -> bytes:
        """GET {app}/api/sources."""

    async def fleet_health(self) -> bytes:
        """GET {app}/api/fleet/health: which metrics each source sent in the last hour."""

    async def create_source(self, slug: str, name: str) -> None:
        """POST {app}/api/sources: one that exists counts as made."""

    async def create_monitor(self, body: dict[str, Any]) -> None:
        """POST {app}/api/monitors: creates or replaces; an offline monitor is always added."""

    async def patch_monitor(self, body: dict[str, Any]) -> None:
        """PATCH {app}/api/monitors: changes notification targets and nothing else."""

    async def delete_pair(self, source: str, metric: str) -> None:
        """DELETE {app}/api/monitors: threshold and event of a pair at once; what is gone counts as done."""

    async def delete_offline(self, monitor_id: str) -> None:
        """DELETE {app}/api/monitors: one offline monitor; one that is gone counts as done."""
