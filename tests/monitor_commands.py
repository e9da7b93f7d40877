"""The monitors commands in this process, against a sandbox whose answers can be spoiled."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import trustme
from click.testing import CliRunner, Result
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from subprocess_worker import environment

from plexus_detect.cli import cli
from plexus_detect.sandbox import Sandbox


class Spoiled:
    """A platform that spoils the answer of one request, and leaves sources out of its list of monitors.

    The request at index ``at`` is refused with 422, or with ``after`` takes effect and its answer is lost.
    The next ``hide_reads`` lists lack the sources ``hidden``. ``calls`` holds (method, path) of all.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.calls: list[tuple[str, str]] = []
        self.at: int | None = None
        self.after = False
        self.hidden: Sequence[str] = ()
        self.hide_reads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["headers"] == ():
            await self.app(scope, receive, send)
            return
        self.calls.append((scope["method"], scope["path"]))
        if self.at == len(self.calls) - 1:
            if not self.after:
                await self._say(send, 422, b"application/json", b'{"error":"not now"}')
                return
            await self._heard(scope, receive)
            await self._say(send, 200, b"text/html", b"<html>")
        elif self.calls[-1] == ("GET", "/api/monitors") and self.hide_reads:
            self.hide_reads -= 1
            listed = json.loads(await self._heard(scope, receive))["monitors"]
            rows = [row for row in listed if row["source_slug"] not in self.hidden]
            await self._say(send, 200, b"application/json", json.dumps({"monitors": rows}).encode())
        else:
            await self.app(scope, receive, send)

    async def _heard(self, scope: Scope, receive: Receive) -> bytes:
        """What the platform answers, which goes no further."""
        body = bytearray()

        async def keep(message: Message) -> None:
            body.extend(message.get("body", b""))

        await self.app(scope, receive, keep)
        return bytes(body)

    @staticmethod
    async def _say(send: Send, status: int, kind: bytes, body: bytes) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body})


class Room:
    """A folder with documents, and the commands run in it; the manifest is ``m.json`` there."""

    def __init__(self, box: Sandbox, front: Spoiled, folder: Path, ca_file: Path) -> None:
        self.box, self.front, self.folder, self.ca_file = box, front, folder, ca_file
        self.manifest = folder / "m.json"
        self.env = environment(
            box.url,
            box.key,
            monitors__path=str(folder / "monitors"),
            monitors__manifest=str(self.manifest),
            heartbeat__enabled="false",
            # One certificate: reading all that this machine trusts takes half the time of a command.
            plexus__ca_file=str(ca_file),
            state__path=str(folder / "s.db"),
        )

    def wish(self, documents: Sequence[dict[str, Any]], name: str = "a.json") -> None:
        """Write the documents."""
        (self.folder / "monitors").mkdir(exist_ok=True)
        (self.folder / "monitors" / name).write_text(json.dumps(documents))

    def run(self, *arguments: str, **env: str) -> Result:
        """``plexus-detect monitors ...``, with everything that it printed."""
        return CliRunner().invoke(cli, ["monitors", *arguments], env={**self.env, **env})

    def ask(self, method: str, **more: Any) -> Any:
        """A request of somebody else, past everything that spoils."""
        url = f"{self.box.url}/api/monitors"
        answer = httpx.request(method, url, headers={"x-api-key": self.box.key}, **more)
        return answer.raise_for_status().json()

    def listed(self, source: str = "") -> list[tuple[str, str, str, Any]]:
        """What the platform has: source, metric, part and what it watches for, in order."""
        rows = self.ask("GET")["monitors"]
        parts = {"threshold": "max", "event": "severity", "offline": "timeout_seconds"}
        return sorted(
            (row["source_slug"], row["metric"], part, row[part][value])
            for row in rows
            for part, value in parts.items()
            if row[part] is not None and source in ("", row["source_slug"])
        )


def sentence(result: Result, code: int) -> str:
    """What a command said that ended with ``code`` by an error of ours."""
    error = result.exception
    assert error is not None, result.output
    assert getattr(error, "exit_code", None) == code, (error, result.output)
    return str(error)


@contextmanager
def rooms(folder: Path, fleet: dict[str, Sequence[str]]) -> Iterator[Room]:
    """A room with a platform that has these devices."""
    box = Sandbox()
    front = box.app = Spoiled(box.app)
    now_ms = time.time_ns() // 1_000_000
    box.load((slug, metric, now_ms, 1.0) for slug, metrics in fleet.items() for metric in metrics)
    trustme.CA().cert_pem.write_to_path(folder / "ca.pem")
    with box:
        yield Room(box, front, folder, folder / "ca.pem")
