"""A new model and the one in use: which rows neither has learned, and what comes of comparing them there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from plexus_detect.config import DetectorConfig
from plexus_detect.errors import ModelError
from plexus_detect.learn.comparing import Candidate, Comparison, Stretch, compare
from plexus_detect.learn.features import Features
from plexus_detect.learn.fitted import Fitted
from plexus_detect.learn.model import Arrays
from plexus_detect.learn.windowed import CRITICAL, Windowed
from plexus_detect.series import F64, I64, Bool
from plexus_detect.train.history import Past
from plexus_detect.train.making import Made
from plexus_detect.training.versions import ModelFolder

# With a gate the newest part of the rows is not learned, but judged.
HELD_PART = 0.2

# An interquartile range of normal noise in deviations.
IQR = 1.349


class InUse(NamedTuple):
    """The version in use, the newest time it has learned (-1: unknown), and how it judges rows."""

    version: int
    to_ms: int
    candidate: Candidate


@dataclass(frozen=True)
class Trained:
    """A new model, and how it compares with the version in use; None where there is nothing to compare."""

    made: Made
    compared_with: int | None = None
    comparison: Comparison | None = None

    def facts(self) -> Mapping[str, object]:
        """What goes into its card."""
        if self.comparison is None:
            return {}
        about = {key: _plain(value) for key, value in asdict(self.comparison).items()}
        return {"compared_with": self.compared_with, "comparison": about}


def _plain(value: object) -> object:
    """JSON knows no NaN: a figure that there is not is null."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 4)
    return value


def in_use(folder: ModelFolder, name: str, group: DetectorConfig) -> InUse | None:
    """The version in use; None where there is none that can judge these metrics."""
    version = folder.current(name)
    if version is None:
        return None
    try:
        candidate = candidate_of(folder.arrays(name, version), group)
        to_ms = folder.card(name, version).get("to_ms")
    except ModelError:
        return None
    return InUse(version, to_ms if isinstance(to_ms, int) else -1, candidate)


def candidate_of(arrays: Arrays, group: DetectorConfig) -> Candidate:
    """A model of a group, ready to judge its rows. Raises ModelError for one of other metrics."""
    if group.kind == "autoencoder":
        made = Windowed.of(arrays, group.metrics)
        windowed = replace(made, params=replace(made.params, threshold=group.level))

        def score_windows(x: F64, t_ms: I64) -> F64:
            return windowed.stream().step(x, t_ms).ratio

        return Candidate(score_windows, windowed.scale.unit / IQR, max(windowed.params.sizes))
    fitted = Fitted.of(arrays)
    if fitted.names != group.metrics:
        raise ModelError(f"the model was made for {', '.join(fitted.names)}")

    def score(x: F64, t_ms: I64) -> F64:
        del t_ms
        features = Features(x.shape[1], fitted.features)
        features.grow(1)
        return fitted.score(features.full(0, x)).ratio

    reach = max((1, *fitted.features.rolling, *fitted.features.lags))
    return Candidate(score, fitted.scale[: len(fitted.names)], reach)


def trained(
    pasts: Sequence[Past],
    make: Callable[[Sequence[Past]], Made],
    group: DetectorConfig,
    use: InUse | None,
    *,
    gate: bool,
) -> Trained:
    """A model that ``make`` makes of these pasts, compared with the one in use where there is one.

    With a ``gate`` the newest part of the rows is not learned; without one all are, and the two are compared
    on those that the fit held back. Either way only rows that came after all that the model in use has
    learned are compared. Raises FitError.
    """
    if use is None:
        return Trained(make(pasts))
    held: Sequence[Bool]
    if gate:
        times = np.sort(np.concatenate([past.t_ms for past in pasts]))
        cut_ms = int(times[int((1.0 - HELD_PART) * (len(times) - 1))])
        made = make(_learned(pasts, use.candidate, group, cut_ms))
        held = [past.t_ms >= cut_ms for past in pasts]
    else:
        made = make(pasts)
        held = made.held
    stretches = [
        Stretch(past.x, past.t_ms, at & (past.t_ms > use.to_ms)) for past, at in zip(pasts, held, strict=True)
    ]
    return Trained(made, use.version, compare(use.candidate, candidate_of(made.arrays, group), stretches))


def _learned(pasts: Sequence[Past], use: Candidate, group: DetectorConfig, cut_ms: int) -> list[Past]:
    """The rows before a time. Autoencoders do not learn those that the model in use finds critical, if they
    are no more than the contamination that is expected: a fault must not become what is normal."""
    out = []
    for past in pasts:
        early = past.t_ms < cut_ms
        x, t_ms = past.x[early], past.t_ms[early]
        if group.kind == "autoencoder" and len(x):
            critical = np.nan_to_num(use.score(x, t_ms)) > CRITICAL
            if critical.mean() <= group.contamination:
                x = np.where(critical[:, None], np.nan, x)
        if len(x):
            out.append(Past(past.source, t_ms, x))
    return out
