"""Batch models: fitted at once from rows, scored at once, kept on disk under name and backend."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from plexus_detect import clock
from plexus_detect.columns import under
from plexus_detect.errors import ModelError, PlexusDetectError
from plexus_detect.learn.model import Model, array_json, json_array
from plexus_detect.learn.models import MODELS
from plexus_detect.series import F64
from plexus_detect.serve.encoders import Encoder
from plexus_detect.serve.normal import Scale
from plexus_detect.serve.refused import Refused
from plexus_detect.training.trainer import FIT_S_MAX
from plexus_detect.training.versions import folder_name, packed, unpacked, written

T = TypeVar("T")

# Models in memory; the others are read again when they are asked for.
LIVE_MAX = 64

SEED = 42


class Caller(Protocol):
    """Something that runs functions elsewhere."""

    def call(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Run a function there."""
        ...

    def restart(self) -> None:
        """End whatever runs there."""
        ...


@dataclass(frozen=True)
class Card:
    """What is known of a batch model besides its arrays; ``centre`` stands in for missing values."""

    name: str
    base_name: str
    backend: str
    normalization: str
    contamination: float
    created: str
    rows: int
    input_dim: int
    centre: list[float]
    description: str | None
    schema: dict[str, str] | None
    seen: dict[str, dict[str, int]] | None
    scale: dict[str, Any]


@dataclass(frozen=True)
class BatchModel:
    """A fitted model and its card."""

    card: Card
    model: Model

    @property
    def scale(self) -> Scale:
        """The scale of its scores."""
        return Scale(**self.card.scale)

    @property
    def encoder(self) -> Encoder | None:
        """How rows of objects become numbers; None for rows of numbers."""
        return None if self.card.schema is None else Encoder(self.card.schema, self.card.seen)

    def raw(self, x: F64) -> F64:
        """The backend's scores of rows (m, f), NaN for what is missing: each depends on its row alone."""
        rows = np.where(np.isfinite(x), x, np.array(self.card.centre))
        with np.errstate(all="ignore"):
            raw = self.model.raw(rows)
        return np.nan_to_num(raw, nan=np.finfo(np.float64).max)


@dataclass(frozen=True)
class Wanted:
    """What is to be fitted."""

    name: str
    backend: str
    normalization: str
    contamination: float
    overwrite: bool
    description: str | None


def fit_rows(backend: str, x: F64, contamination: float) -> tuple[Model, F64]:
    """The model of rows (n, f), finite, and its scores of these rows; runs where fits run.

    Raises whatever the backend does.
    """
    from plexus_detect.training.backends import FIT

    model = FIT[backend](x, contamination, SEED)
    return model, model.raw(x)


def fittable(backend: str) -> None:
    """Raise Refused (400) for a backend that nothing here can fit."""
    from plexus_detect.training.backends import FIT

    if backend not in FIT:
        raise Refused(
            400, f"{backend} models cannot be fitted from rows; use one of: {', '.join(sorted(FIT))}"
        )


class BatchModels:
    """The batch models of a folder, by name and backend. Files are read and written in threads."""

    def __init__(self, home: Path, process: Caller) -> None:
        self.home = home
        self.process = process
        self.live: OrderedDict[tuple[str, str], BatchModel] = OrderedDict()
        self._lock = threading.Lock()

    async def fit(self, wanted: Wanted, x: F64, encoder: Encoder | None) -> tuple[BatchModel, Path]:
        """Fit, save and keep a model; raises Refused (400) when it cannot be fitted."""
        fittable(wanted.backend)
        if len(x) < 2:
            raise Refused(400, f"Need at least 2 samples for training, got {len(x)}")
        known = np.isfinite(x)
        if not x.shape[1] or not known.any():
            raise Refused(400, "The rows hold no numbers; send at least one numeric column")
        centre = [float(np.median(x[k, i])) if (k := known[:, i]).any() else 0.0 for i in range(x.shape[1])]
        filled = np.where(known, x, centre)
        model, raw = await self._fitted(wanted, filled)
        if not np.isfinite(raw).all():
            raise Refused(400, f"{wanted.backend} could not be fitted: its scores are not finite numbers")
        name = wanted.name if wanted.overwrite else self._versioned(wanted)
        card = Card(
            name,
            wanted.name,
            wanted.backend,
            wanted.normalization,
            wanted.contamination,
            datetime.fromtimestamp(clock.now_ms() / 1000, UTC).isoformat(timespec="milliseconds"),
            len(x),
            x.shape[1],
            centre,
            wanted.description,
            None if encoder is None else encoder.schema,
            None if encoder is None else encoder.seen,
            Scale.of(raw, wanted.contamination).facts(),
        )
        fitted = BatchModel(card, model)
        return fitted, await asyncio.to_thread(self.save, fitted)

    async def _fitted(self, wanted: Wanted, x: F64) -> tuple[Model, F64]:
        """The model and its scores of its rows, made in the process that fits."""
        future = self.process.call(fit_rows, wanted.backend, x, wanted.contamination)
        try:
            async with asyncio.timeout(FIT_S_MAX):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self.process.restart()
            raise Refused(400, f"The fit took longer than {FIT_S_MAX:.0f} s and was given up") from None
        except Exception as error:
            # A backend may raise anything for bad data, or end its process: the next fit has another.
            raise Refused(400, f"{wanted.backend} could not be fitted: {_sentence(error)}") from error

    def _versioned(self, wanted: Wanted) -> str:
        stamp = datetime.fromtimestamp(clock.now_ms() / 1000, UTC).strftime("%Y%m%d_%H%M%S")
        name, n = f"{wanted.name}_{stamp}", 1
        while self.path(name, wanted.backend).exists():
            n += 1
            name = f"{wanted.name}_{stamp}_{n}"
        return name

    def path(self, name: str, backend: str) -> Path:
        """The file of a model; different names have different files."""
        return self.home / f"{folder_name(name)}_{backend}.npz"

    def save(self, fitted: BatchModel) -> Path:
        """Write a model's file and keep the model; its path."""
        card = fitted.card
        arrays = {f"model.{name}": column for name, column in fitted.model.arrays().items()}
        path = self.path(card.name, card.backend)
        written(path, packed({**arrays, "card": json_array(card.__dict__)}))
        self._keep(fitted)
        return path

    def _keep(self, fitted: BatchModel) -> None:
        key = (fitted.card.name, fitted.card.backend)
        with self._lock:
            self.live[key] = fitted
            self.live.move_to_end(key)
            while len(self.live) > LIVE_MAX:
                self.live.popitem(last=False)

    def get(self, name: str, backend: str) -> BatchModel | None:
        """A model, from memory or its file; ``<base>-latest`` is the newest of that base name."""
        with self._lock:
            found = self.live.get((name, backend))
            if found is not None:
                self.live.move_to_end((name, backend))
                return found
        path = self.path(name, backend)
        if path.exists():
            fitted = self.load(path)
            self._keep(fitted)
            return fitted
        if name.endswith("-latest"):
            base = name.removesuffix("-latest")
            versions = [c for _, c in self.cards() if (c.base_name, c.backend) == (base, backend)]
            if versions:
                newest = max(versions, key=lambda card: (card.created, card.name))
                return self.get(newest.name, backend)
        return None

    def load(self, path: Path) -> BatchModel:
        """The model of a file; raises Refused (400) for a file that is none."""
        try:
            arrays = unpacked(path.read_bytes())
            card = _card(arrays)
            return BatchModel(card, MODELS[card.backend].of(under(arrays, "model.")))
        except (ModelError, KeyError, ValueError, TypeError, OSError) as error:
            raise Refused(
                400, f"{path.name} cannot be used ({_sentence(error)}); fit the model again"
            ) from None

    def cards(self) -> list[tuple[Path, Card]]:
        """The cards of all files, the newest first; files that cannot be used are left out."""
        found = []
        for path in self.home.glob("*.npz"):
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                    found.append((path, _card(held)))
            except Exception:  # noqa: S112 - whatever is wrong with a file concerns this file only
                continue
        return sorted(found, key=lambda one: (one[1].created, one[1].name), reverse=True)

    def delete(self, filename: str) -> bool:
        """Remove a model's file, and the model from memory; False if there is none."""
        path = self.home / filename
        if path.suffix != ".npz" or path.parent != self.home or not path.is_file():
            return False
        path.unlink()
        with self._lock:
            for name, backend in list(self.live):
                if self.path(name, backend) == path:
                    del self.live[name, backend]
        return True


def _card(arrays: Mapping[str, Any]) -> Card:
    return Card(**array_json(arrays["card"]))


def _sentence(error: BaseException) -> str:
    first: Sequence[str] = str(error).splitlines()
    if isinstance(error, PlexusDetectError):
        return str(error)
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
