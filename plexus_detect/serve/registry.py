"""The streaming detectors: the used ones in memory, the others on disk, the forgotten ones dropped."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from plexus_detect import clock
from plexus_detect.errors import PlexusDetectError
from plexus_detect.learn.job import Trainer
from plexus_detect.logs import event
from plexus_detect.serve.detector import Detector, about_of
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.settings import Settings
from plexus_detect.training.versions import packed, unpacked, written

log = logging.getLogger(__name__)

T = TypeVar("T")


class Registry:
    """Detectors by id. All methods belong to one event loop; only files are read and written beside it.

    ``live`` are in memory, the longest unused first; ``stored`` are the figures of those that are on disk
    only. ``door`` is held while a detector comes, goes or is written, so that there is never a second one of
    an id.
    """

    def __init__(self, settings: Settings, trainer: Trainer) -> None:
        self.settings = settings
        self.trainer = trainer
        self.home = settings.state / "detectors"
        self.live: OrderedDict[str, Detector] = OrderedDict()
        self.stored: dict[str, dict[str, Any]] = {}
        self.touched_ms: dict[str, int] = {}
        self.door = asyncio.Lock()
        self.failed_writes = 0

    def open(self) -> None:
        """Learn what is on disk; a damaged file is set aside and told of."""
        self.home.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.home.glob("*.npz")):
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                    about = about_of(held["detector"])
            except Exception as error:  # whatever is wrong with a file concerns this file only
                _set_aside(path, error)
                continue
            self.stored[about["model_id"]] = {**about["stats"], "status": _settled(about["stats"]["status"])}
            self.touched_ms[about["model_id"]] = about["touched_ms"]

    @property
    def size_bytes(self) -> int:
        """Memory of the live detectors, bytes, roughly."""
        return sum(detector.size_bytes for detector in self.live.values())

    def __len__(self) -> int:
        return len(self.live) + len(self.stored)

    def stats(self) -> list[dict[str, Any]]:
        """The figures of all detectors, by id."""
        found = {**self.stored, **{name: d.stats() for name, d in self.live.items()}}
        return [found[name] for name in sorted(found)]

    @asynccontextmanager
    async def use(self, model_id: str, make: Callable[[], Detector] | None = None) -> AsyncIterator[Detector]:
        """A detector that stays in memory meanwhile; an unknown one is made, or Refused (404)."""
        detector = self.live.get(model_id)
        if detector is None:
            detector = await self._entered(model_id, make)
        self.live.move_to_end(model_id)
        detector.users += 1
        detector.touched_ms = clock.now_ms()
        try:
            yield detector
        finally:
            detector.users -= 1

    async def _entered(self, model_id: str, make: Callable[[], Detector] | None) -> Detector:
        async with self.door:
            detector = self.live.get(model_id)
            if detector is not None:
                return detector
            if model_id in self.stored:
                detector = await self._read(model_id)
            if detector is None:
                if make is None:
                    raise Refused(404, f"Streaming detector not found: {model_id}")
                if len(self) >= self.settings.stored_max:
                    raise Refused(429, f"There are {len(self)} detectors, the most there may be; delete some")
                detector = make()
            self.live[model_id] = detector
            # Held while room is made, or it might be the one to go.
            detector.users += 1
            try:
                await self._make_room()
            finally:
                detector.users -= 1
            return detector

    async def _read(self, model_id: str) -> Detector | None:
        path = self._path(model_id)
        try:
            archive = await asyncio.to_thread(path.read_bytes)
            detector = Detector.of(await asyncio.to_thread(unpacked, archive), self.trainer)
        except (PlexusDetectError, KeyError, ValueError, TypeError, OSError) as error:
            _set_aside(path, error)
            detector = None
        self.stored.pop(model_id, None)
        self.touched_ms.pop(model_id, None)
        return detector

    def _path(self, model_id: str) -> Path:
        return self.home / f"{hashlib.sha256(model_id.encode()).hexdigest()[:40]}.npz"

    async def delete(self, model_id: str) -> bool:
        """Forget a detector; False if there is none."""
        async with self.door:
            detector = self.live.pop(model_id, None)
            known = detector is not None or model_id in self.stored
            if detector is not None:
                detector.gone = True
            self.stored.pop(model_id, None)
            self.touched_ms.pop(model_id, None)
            await asyncio.to_thread(self._path(model_id).unlink, missing_ok=True)
            return known

    # -- keeping within bounds

    async def _make_room(self) -> None:
        """Put the longest unused detectors on disk until the rest fits."""
        for model_id, detector in list(self.live.items()):
            fits = self.size_bytes <= self.settings.memory_bytes_max
            if len(self.live) <= self.settings.live_max and fits:
                return
            if (
                detector.users == 0
                and await self._write(detector)
                and detector.users == 0
                and not detector.dirty
            ):
                del self.live[model_id]
                self.stored[model_id] = {**detector.stats(), "status": _settled(detector.learner.status)}
                self.touched_ms[model_id] = detector.touched_ms

    async def _write(self, detector: Detector) -> bool:
        """Save a detector if it has changed; False if that failed, or it is at work. The door is held."""
        if not detector.dirty:
            return True
        # A first fit may take minutes, and everyone waits at the door: its detector is saved at another turn.
        if detector.lock.locked():
            return False
        async with detector.lock:
            arrays = detector.dump()
            detector.dirty = False
        try:
            archive = await asyncio.to_thread(packed, arrays)
            await asyncio.to_thread(written, self._path(detector.model_id), archive)
        except OSError as error:
            detector.dirty = True
            self.failed_writes += 1
            event(log, logging.ERROR, "detector_not_saved", err=f"{type(error).__name__}: {error.strerror}")
            return False
        return True

    async def save(self) -> None:
        """Save every detector that has changed, and no other."""
        for detector in [d for d in self.live.values() if d.dirty]:
            async with self.door:
                if not detector.gone and detector.model_id in self.live:
                    await self._write(detector)

    async def sweep(self) -> None:
        """Drop detectors that nobody used for so long, and put on disk what memory has no room for."""
        if self.settings.ttl_s > 0.0:
            before = clock.now_ms() - round(self.settings.ttl_s * 1000)
            old = [m for m, d in self.live.items() if d.touched_ms < before and d.users == 0]
            old += [m for m, touched in self.touched_ms.items() if touched < before]
            for model_id in old:
                await self.delete(model_id)
        async with self.door:
            await self._make_room()


def _settled(status: str) -> str:
    """What a detector on disk does: nothing is fitted there."""
    return "ready" if status == "retraining" else status


def _set_aside(path: Path, error: BaseException) -> None:
    """A file that cannot be used does not stop the server, and is kept for whoever wants to look."""
    event(log, logging.WARNING, "detector_unusable", file=path.name, err=f"{type(error).__name__}: {error}")
    try:
        path.replace(path.with_suffix(".damaged"))
    except OSError:
        path.unlink(missing_ok=True)
