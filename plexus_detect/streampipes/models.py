"""The models that judge rows: versions from the models folder, as ``train`` left them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from plexus_detect.errors import ModelError
from plexus_detect.groups import GroupRule, model_name
from plexus_detect.learn.features import Features
from plexus_detect.learn.fitted import Fitted
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.learn.rows import aligned
from plexus_detect.learn.windowed import Threshold, Windowed, WindowStream
from plexus_detect.series import F64, I64
from plexus_detect.training.versions import ModelFolder


class RowModel(Protocol):
    """Rows of several devices in, scores out. ``version`` is the one in the models folder."""

    version: int

    @property
    def remembers(self) -> bool:
        """Whether a score depends on the rows before, so that an older row would spoil those that follow."""
        ...

    def score(self, feed: I64, t_ms: I64, x: F64) -> tuple[F64, Callable[[int], F64]]:
        """Of rows x, (m, k), each of a feed in order of time: 1.0 at the line, (m,), NaN for none; and what
        gives the shares, (k,), of the metrics in the score of one of these rows."""
        ...


class FittedRows:
    """A learned model, run in its ONNX form where it has one, with the features of each feed."""

    def __init__(self, fitted: Fitted, metrics: tuple[str, ...], version: int) -> None:
        self.fitted = fitted
        self.metrics = metrics
        self.version = version
        self._features = Features(len(fitted.names), fitted.features)

    @property
    def remembers(self) -> bool:
        """Whether there are features of rows before."""
        return bool(self.fitted.features.each)

    def score(self, feed: I64, t_ms: I64, x: F64) -> tuple[F64, Callable[[int], F64]]:
        """See ``RowModel``."""
        del t_ms
        x = aligned(x, self.metrics, self.fitted.names)
        self._features.grow(int(feed.max(initial=-1)) + 1)
        rows = np.empty((len(x), self.fitted.features.width(len(self.fitted.names))))
        for one in np.unique(feed).tolist() if self.fitted.features.each else [0]:
            at = np.flatnonzero(feed == one) if self.fitted.features.each else np.arange(len(x))
            rows[at] = self._features.full(one, x[at])
        with np.errstate(all="ignore"):
            ratio = self.fitted.score(rows).ratio

        def shares(row: int) -> F64:
            blame = self.fitted.blame(rows[row])
            mine: F64 = aligned(blame[None, :], self.fitted.names, self.metrics)[0]
            return mine

        return ratio, shares


class WindowedRows:
    """Autoencoders of windows, with the last rows of each feed."""

    remembers = True

    def __init__(self, windowed: Windowed, metrics: tuple[str, ...], version: int) -> None:
        self.windowed = windowed
        self.metrics = metrics
        self.version = version
        self._streams: dict[int, WindowStream] = {}

    def score(self, feed: I64, t_ms: I64, x: F64) -> tuple[F64, Callable[[int], F64]]:
        """See ``RowModel``."""
        x = aligned(x, self.metrics, self.windowed.names)
        ratio, blame = np.full(len(x), np.nan), np.full((len(x), len(self.metrics)), np.nan)
        for one in np.unique(feed).tolist():
            at = np.flatnonzero(feed == one)
            stream = self._streams.setdefault(one, self.windowed.stream())
            alarms = stream.step(x[at], t_ms[at])
            ratio[at] = alarms.ratio
            blame[at] = aligned(alarms.shares, self.windowed.names, self.metrics)
        return ratio, lambda row: blame[row]


def load_rows(folder: ModelFolder, rule: GroupRule, device: str, level: Threshold | None) -> RowModel | None:
    """The model of a device in the version in use; None when there is none. ``level`` is the line of
    autoencoders of windows, which all devices share; None for a learned model. Raises ModelError."""
    name = name_of(rule, device, level)
    version = folder.current(name)
    if version is None:
        return None
    arrays = folder.arrays(name, version)
    if level is not None:
        windowed = Windowed.of(arrays, rule.metrics)
        windowed = replace(windowed, params=replace(windowed.params, threshold=level))
        return WindowedRows(windowed, rule.metrics, version)
    fitted = Fitted.of(arrays)
    if missing := [metric for metric in fitted.names if metric not in rule.metrics]:
        raise ModelError(f"the model {name!r} was made for {', '.join(missing)} too; train it again")
    card = folder.card(name, version)
    if "fingerprint" in card:
        data = folder.path_of(name, version).with_suffix(".onnx").read_bytes()
        fitted = replace(fitted, model=OnnxModel.load(data, card, fitted.features.names(fitted.names)))
    return FittedRows(fitted, rule.metrics, version)


def name_of(rule: GroupRule, device: str, level: Threshold | None) -> str:
    """Under which name the model of a device is kept."""
    return rule.name if level is not None else model_name(rule, device)
