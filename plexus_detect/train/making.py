"""Models from pasts: fitted, exported where there is a form for it, and compared with what was exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from plexus_detect.errors import FitError
from plexus_detect.learn.features import Features
from plexus_detect.learn.fitted import Fitted
from plexus_detect.learn.job import Job
from plexus_detect.learn.pace import Pace
from plexus_detect.learn.stream import LearnParams
from plexus_detect.learn.windowed import PERCENTILES, Windowed, WindowedParams
from plexus_detect.series import F64, Bool
from plexus_detect.train.history import Past
from plexus_detect.training.onnx import checked, export
from plexus_detect.training.trainer import fit_job
from plexus_detect.training.versions import packed, unpacked
from plexus_detect.training.windowed import STEPS, fit_windowed, held_back


@dataclass(frozen=True)
class Made:
    """A model ready to be kept: its arrays, the facts of its card, and the ONNX file where there is one.
    ``parity`` is the largest difference between the scores of the model and of what is kept, on rows that
    were held back; ``held`` says for each past which of its rows these are."""

    arrays: Mapping[str, npt.NDArray[np.generic]]
    card: Mapping[str, object]
    parity: float
    onnx: bytes | None = None
    held: Sequence[Bool] = ()


def learned(pasts: Sequence[Past], metrics: tuple[str, ...], params: LearnParams) -> Made:
    """A model of the rows of these sources together, at the pace at which a running detector learns them.

    Raises FitError.
    """
    read = np.concatenate([_features(past, params) for past in pasts])
    chosen = np.concatenate([_chosen(past, params) for past in pasts])
    x, times = read[chosen], np.concatenate([past.t_ms for past in pasts])[chosen]
    if len(x) < params.min_samples:
        raise FitError(
            f"{len(x)} rows to learn from among {len(read)} read are fewer than min_samples "
            f"{params.min_samples}; choose an earlier --from, or a shorter span"
        )
    span = int(times.min()), int(times.max())
    nothing = np.full(len(x), np.nan)
    job = Job(
        params.backend,
        metrics,
        params.features,
        x,
        nothing,
        params.contamination,
        params.seed,
        span,
        params.given,
    )
    made = fit_job(job)
    fitted, kept = made.fitted, Fitted.of(unpacked(packed(made.fitted.arrays())))
    held = fitted.prepared(x[made.held])
    parity = float(np.abs(fitted.model.raw(held) - kept.model.raw(held)).max(initial=0.0))
    beyond = np.mean(np.nan_to_num(fitted.score(read).ratio) > 1.0)
    facts = asdict(fitted.card) | {
        "features": len(params.features.names(metrics)),
        "line": fitted.tail.line,
        "rows_beyond_the_line": f"{beyond:.3%} of all {len(read)} rows",
    }
    apart = np.zeros(len(read), np.bool_)
    apart[np.flatnonzero(chosen)[made.held]] = True
    back = np.split(apart, np.cumsum([len(past.t_ms) for past in pasts])[:-1])
    exported = export(fitted.model)
    if exported is None:
        return Made(fitted.arrays(), facts, parity, held=back)
    model, parity = checked(exported, held)
    facts |= model.card(params.features.names(metrics))
    return Made(fitted.arrays(), facts, parity, exported.data, back)


def _features(past: Past, params: LearnParams) -> F64:
    """Rows as features: each source has a past of its own."""
    features = Features(past.x.shape[1], params.features)
    features.grow(1)
    return features.full(0, past.x)


def _chosen(past: Past, params: LearnParams) -> Bool:
    """Which rows are learned."""
    usable: Bool = np.asarray(np.isfinite(past.x).any(axis=1))
    return Pace(params.learn_every_ms, 0).chosen(0, past.t_ms, usable)


def windowed(
    pasts: Sequence[Past], metrics: tuple[str, ...], params: WindowedParams, steps: int = STEPS
) -> Made:
    """Autoencoders of windows of the rows of these sources, trained in so many steps. Raises FitError."""
    # No window may hold rows of two sources: a gap as long as the largest is between them.
    gap = np.full((max(params.sizes), len(metrics)), np.nan)
    x = np.concatenate([part for past in pasts for part in (past.x, gap)][:-1])
    model = fit_windowed(x, metrics, params, steps)
    ends = {"from_ms": min(int(p.t_ms[0]) for p in pasts), "to_ms": max(int(p.t_ms[-1]) for p in pasts)}
    model = replace(model, card={**model.card, **ends})
    kept = Windowed.of(unpacked(packed(model.arrays())))
    times = np.arange(len(x))
    one, other = (m.stream().step(x, times).ratio for m in (model, kept))
    away = np.abs(one - other)
    reread = float(np.nanmax(away, initial=0.0))
    facts = {
        "backend": "windowed autoencoder",
        **model.card,
        "windows": list(params.sizes),
        "threshold": f"{params.threshold} ({PERCENTILES[params.threshold]:g} % of held-back rows are below)",
        "seed": params.seed,
    }
    apart, gaps = held_back(len(x), max(params.sizes)), len(gap) * np.arange(len(pasts))
    starts = np.cumsum([0, *(len(past.x) for past in pasts)])[:-1] + gaps
    back = [apart[start : start + len(past.x)] for start, past in zip(starts.tolist(), pasts, strict=True)]
    return Made(model.arrays(), facts, max(float(str(model.card["parity"])), reread), held=back)
