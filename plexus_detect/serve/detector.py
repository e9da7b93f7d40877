"""One streaming detector: a learner, its threshold, and what is known of its past."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from plexus_detect import clock
from plexus_detect.columns import under
from plexus_detect.errors import ConfigError
from plexus_detect.learn.features import FeatureParams
from plexus_detect.learn.job import Trainer
from plexus_detect.learn.model import array_json, json_array
from plexus_detect.learn.rows import read_records
from plexus_detect.learn.stream import METRICS_MAX, Judged, Learner, LearnParams
from plexus_detect.learn.windowed import CRITICAL
from plexus_detect.series import F64
from plexus_detect.serve.encoders import Encoder
from plexus_detect.serve.models import fittable
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.settings import COLUMNS_MAX, FEATURES_MAX
from plexus_detect.serve.shapes import AnomalyStreamRequest

FORM = 1

# Model versions of which the time of training is told.
HISTORY = 10

# Lags when there are to be some but it is not said which.
LAGS = (1, 2, 3)

# What a detector takes besides its rows and models, bytes, roughly.
BASE_BYTES = 20_000


def params_of(asked: AnomalyStreamRequest) -> LearnParams:
    """How a detector learns that this request creates; raises Refused (400)."""
    fittable(asked.backend)
    try:
        params = LearnParams(
            backend=asked.backend,
            min_samples=asked.min_samples,
            retrain_interval=asked.retrain_interval,
            window_size=asked.window_size,
            contamination=asked.contamination,
            rolling=tuple(_once(asked.rolling_windows)),
            lags=tuple(_lags(asked)),
        )
        _ = FeatureParams(params.rolling, params.lags)
    except ConfigError as error:
        raise Refused(400, str(error)) from None
    return params


class Detector:
    """``lock`` is held while rows are taken; ``users`` of it keep it in memory; ``gone`` when deleted.

    ``dirty`` says that it differs from what is saved.
    """

    def __init__(
        self,
        model_id: str,
        params: LearnParams,
        threshold: float,
        schema: Mapping[str, str] | None,
        trainer: Trainer,
    ) -> None:
        self.model_id = model_id
        self.learner = Learner(params, trainer)
        self.threshold = threshold
        self.encoder = Encoder(schema) if schema else None
        self.touched_ms = self.created_ms = clock.now_ms()
        self.lock = asyncio.Lock()
        self.users = 0
        self.dirty, self.gone = True, False
        self.history: list[dict[str, Any]] = []
        self.last_score_ms: int | None = None
        self._model_bytes = (0, 0)

    # -- rows

    def read(self, rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], F64]:
        """Rows as numbers by name, (m, k), NaN for none; raises Refused (400) for too many columns."""
        records = _bounded(rows)
        if self.encoder is not None:
            records = _bounded(self.encoder.stream(rows))
        names, x = read_records(records)
        known = len(set(names) | set(self.learner.names))
        features = self.learner.params.features.width(known)
        if known > METRICS_MAX or features > FEATURES_MAX:
            raise Refused(
                400,
                f"The detector would have {known} columns and {features} features of them; "
                f"at most {METRICS_MAX} and {FEATURES_MAX} can be",
            )
        return names, x

    def step(self, names: Sequence[str], x: F64) -> list[dict[str, Any]]:
        """Score and learn rows; one result a row, without its index."""
        version = self.learner.version
        # A value near the limits of a float may overflow in a model; the score is then far beyond the line.
        with np.errstate(all="ignore"):
            judged = self.learner.step(x, names)
        self.dirty = True
        if self.learner.version != version:
            self._remember()
        return self.results(judged)

    def results(self, judged: Judged) -> list[dict[str, Any]]:
        """The documented result of each row, and for flagged ones how far and by which metrics."""
        out: list[dict[str, Any]] = []
        names = self.learner.names
        ratios, raws, untils = judged.ratio.tolist(), judged.raw.tolist(), judged.until_ready.tolist()
        for i, (ratio, raw, until) in enumerate(zip(ratios, raws, untils, strict=True)):
            # NaN is the one number that differs from itself.
            if ratio != ratio:
                result = {"score": None, "is_anomaly": None, "raw_score": None, "samples_until_ready": until}
            else:
                score = ratio / (1.0 + ratio)
                flagged = score > self.threshold
                result = {
                    "score": score,
                    "is_anomaly": flagged,
                    "raw_score": raw,
                    "samples_until_ready": until,
                }
                if flagged:
                    result["severity"] = "critical" if ratio >= CRITICAL else "warning"
                    result["contributors"] = _contributors(names, judged.shares[i])
            out.append(result)
        return out

    def _remember(self) -> None:
        fitted = self.learner.fitted
        if fitted is None:
            return
        now = clock.now_ms()
        about = {"version": self.learner.version, "trained_at": _iso(now), "rows": fitted.card.rows}
        self.history = [*self.history, about][-HISTORY:]
        size = sum(a.nbytes for a in fitted.arrays().values())
        self._model_bytes = (self._model_bytes[1], size)

    def reset(self) -> None:
        """Begin anew with the same parameters."""
        self.learner.reset()
        if self.encoder is not None:
            self.encoder = Encoder(self.encoder.schema)
        self.history, self._model_bytes = [], (0, 0)
        self.dirty = True

    def roll_back(self) -> bool:
        """Use the model before the one in use again; False if there is none."""
        if not self.learner.roll_back():
            return False
        self._remember()
        self.dirty = True
        return True

    # -- what is told

    @property
    def until_ready(self) -> int:
        """Rows that are missing for the first model."""
        if self.learner.fitted is not None:
            return 0
        return max(0, self.learner.params.min_samples - self.learner.collected)

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, bytes, roughly."""
        return BASE_BYTES + self.learner.window.nbytes + sum(self._model_bytes)

    def stats(self) -> dict[str, Any]:
        """The documented figures, and what else there is to know."""
        learner, p = self.learner, self.learner.params
        return {
            "model_id": self.model_id,
            "backend": p.backend,
            "status": learner.status,
            "model_version": learner.version,
            "samples_collected": learner.collected,
            "total_processed": learner.processed,
            "samples_since_retrain": learner.since_retrain,
            "min_samples": p.min_samples,
            "retrain_interval": p.retrain_interval,
            "window_size": p.window_size,
            "threshold": self.threshold,
            "is_ready": learner.fitted is not None,
            "contamination": p.contamination,
            "rolling_windows": list(p.rolling),
            "lag_periods": list(p.lags),
            "schema": self.encoder.schema if self.encoder else None,
            "columns": list(learner.names),
            "last_error": learner.error,
            "failed_fits": learner.failures,
            "trained_at": self.history[-1]["trained_at"] if self.history else None,
            "model_versions": list(self.history),
            "created_at": _iso(self.created_ms),
            "last_used_at": _iso(self.touched_ms),
            "memory_bytes": self.size_bytes,
        }

    def differing(self, asked: AnomalyStreamRequest) -> list[str]:
        """What the request sets otherwise than it is stored, a sentence each."""
        p = self.learner.params
        stored = {
            "backend": p.backend,
            "min_samples": p.min_samples,
            "retrain_interval": p.retrain_interval,
            "window_size": p.window_size,
            "contamination": p.contamination,
            "threshold": self.threshold,
            "schema_": self.encoder.schema if self.encoder else None,
        }
        wanted: dict[str, Any] = {
            name: getattr(asked, name) for name in stored.keys() & asked.model_fields_set
        }
        if asked.model_fields_set & {"rolling_windows"}:
            stored["rolling_windows"], wanted["rolling_windows"] = (
                list(p.rolling),
                _once(asked.rolling_windows),
            )
        if asked.model_fields_set & {"include_lags", "lag_periods"}:
            stored["lag_periods"], wanted["lag_periods"] = list(p.lags), _lags(asked)
        return [
            f"{name.rstrip('_')} stays {stored[name]!r}, not {value!r}: delete the detector to change it"
            for name, value in sorted(wanted.items())
            if value != stored[name]
        ]

    # -- saving and loading

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything as named arrays."""
        about = {
            "form": FORM,
            "model_id": self.model_id,
            "params": asdict(self.learner.params),
            "threshold": self.threshold,
            "schema": self.encoder.schema if self.encoder else None,
            "seen": self.encoder.seen if self.encoder else None,
            "history": self.history,
            "created_ms": self.created_ms,
            "touched_ms": self.touched_ms,
            "stats": self.stats(),
        }
        out = {f"learner.{name}": column for name, column in self.learner.dump().items()}
        return out | {"detector": json_array(about)}

    @staticmethod
    def of(arrays: Mapping[str, npt.NDArray[np.generic]], trainer: Trainer) -> Detector:
        """What ``dump`` gave; raises ModelError, KeyError, ValueError or TypeError for anything else."""
        about = about_of(arrays["detector"])
        known: dict[str, Any] = about["params"]
        params = LearnParams(**known | {name: tuple(known[name]) for name in ("rolling", "lags")})
        out = Detector(about["model_id"], params, about["threshold"], about["schema"], trainer)
        if out.encoder is not None:
            out.encoder = Encoder(about["schema"], about["seen"])
        out.learner.load(under(arrays, "learner."))
        models = (out.learner.previous, out.learner.fitted)
        before, now = (0 if m is None else sum(a.nbytes for a in m.arrays().values()) for m in models)
        out._model_bytes = (before, now)
        out.history, out.created_ms, out.touched_ms = (
            about["history"],
            about["created_ms"],
            about["touched_ms"],
        )
        out.dirty = False
        return out


def about_of(column: npt.NDArray[np.generic]) -> dict[str, Any]:
    """What a saved detector says of itself; raises ValueError."""
    about = array_json(column)
    if not isinstance(about, dict) or about.get("form") != FORM:
        raise ValueError("it is not a detector of this version")
    return about


def _bounded(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The rows, if a matrix of them is not too wide; raises Refused (400)."""
    keys = {key for row in rows for key in row}
    if len(keys) > COLUMNS_MAX:
        raise Refused(400, f"The rows have {len(keys)} columns; at most {COLUMNS_MAX} can be")
    return rows


def _lags(asked: AnomalyStreamRequest) -> list[int]:
    """The lags that a request asks for."""
    return _once(LAGS if asked.lag_periods is None else asked.lag_periods) if asked.include_lags else []


def _once(values: Sequence[int] | None) -> list[int]:
    return list(dict.fromkeys(values or ()))


def _contributors(names: Sequence[str], shares: F64) -> list[dict[str, Any]]:
    """The metrics of a flagged row, the largest share first; none where the model's line was not reached."""
    found = [(share, name) for share, name in zip(shares.tolist(), names, strict=True) if share > 0.0]
    return [{"metric": name, "share": share} for share, name in sorted(found, key=lambda f: (-f[0], f[1]))]


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
