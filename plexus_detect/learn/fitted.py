"""A fitted model with all it needs to score rows: columns by name, what is normal for each, and the line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import under
from plexus_detect.errors import ConfigError, ModelError
from plexus_detect.learn.features import FeatureParams
from plexus_detect.learn.model import Arrays, Model, array_json, json_array
from plexus_detect.learn.models import MODELS
from plexus_detect.learn.support import Support
from plexus_detect.learn.tail import Tail
from plexus_detect.series import F64, I64

# The version of the form of ``arrays``.
FORM = 1

# Values further than this many deviations from the centre say no more, and would overflow a square.
AWAY_MAX = 1e9

# What the regression of missing values adds to each feature's variance, so that features that say the same
# share one slope.
RIDGE = 0.01

# So many of the reference rows say what a value was where all others were as they are.
NEIGHBOURS = 5


@dataclass(frozen=True)
class Card:
    """What a model is and where it comes from: the facts of a model card (Mitchell et al. 2019).

    ``from_ms``, ``to_ms`` bound the times of the training rows (-1: they had none), ``data_hash`` is a hash
    of these rows, ``left_out`` how many of them were left out as anomalous, ``held_back`` how many the line
    was measured on, ``contamination`` the largest share that might have been left out.
    """

    backend: str
    rows: int
    left_out: int
    held_back: int
    contamination: float
    seed: int
    data_hash: str
    from_ms: int = -1
    to_ms: int = -1
    version: int = 0


class Verdict(NamedTuple):
    """Of m rows: ``ratio`` 1.0 at the line, ``raw`` the backend's score; NaN for a row without any number."""

    ratio: F64
    raw: F64


@dataclass(frozen=True)
class Fitted:
    """A model of k metrics, with f features.

    ``centre``, ``scale`` and ``known`` are of each feature, (f,): its median and deviation in the training
    rows, and whether it had values there. ``reference`` holds some of the training rows, (r, f).
    """

    names: tuple[str, ...]
    features: FeatureParams
    centre: F64
    scale: F64
    known: npt.NDArray[np.bool_]
    reference: F64
    model: Model
    tail: Tail
    support: Support
    support_tail: Tail
    card: Card

    @property
    def online(self) -> bool:
        """Whether the model goes on learning between fits."""
        return bool(getattr(self.model, "online", False))

    def learn(self, x: F64) -> None:
        """Let an online model learn rows of features, (m, f)."""
        update = getattr(self.model, "update")  # noqa: B009
        update(self.prepared(x))

    def prepared(self, x: F64) -> F64:
        """Rows of features as the model takes them.

        A missing value is what it was in training where the others were as they are now, so that what is
        missing breaks with nothing.
        """
        there = np.isfinite(x) & self.known
        away = AWAY_MAX * self.scale
        rows = np.where(there, np.minimum(np.maximum(x, self.centre - away), self.centre + away), self.centre)
        for row in np.flatnonzero((~there & self.known).any(axis=1)).tolist():
            gone = ~there[row]
            rows[row, gone] = self._usual(rows[row], gone)
        return rows

    def _usual(self, row: F64, gone: npt.NDArray[np.bool_]) -> F64:
        """What the features ``gone`` of a row, (f,), would be by the others: the mean of the nearest rows
        (Troyanskaya et al. 2001), and from there on along the ridge regression on the others, as the rows
        nearest to one at the edge are all further in."""
        near = self.reference[self._near(row, gone)].mean(axis=0)
        scaled = (self.reference - self.centre) / self.scale
        others = scaled[:, ~gone]
        square = others.T @ others + RIDGE * len(others) * np.eye(others.shape[1])
        slope = np.linalg.solve(square, others.T @ scaled[:, gone])
        fill = near[gone] + (((row - near) / self.scale)[~gone] @ slope) * self.scale[gone]
        least, most = self.reference.min(axis=0) - self.scale, self.reference.max(axis=0) + self.scale
        bounded: F64 = np.minimum(np.maximum(fill, least[gone]), most[gone])
        return bounded

    def _near(self, row: F64, but: npt.NDArray[np.bool_]) -> I64:
        """The reference rows nearest to a row in all features ``but`` these, (f,)."""
        away = ((self.reference[:, ~but] - row[~but]) / self.scale[~but]) ** 2
        return np.argsort(away.sum(axis=1), kind="stable")[:NEIGHBOURS]

    def _ratio(self, rows: F64) -> tuple[F64, F64]:
        """The ratio and the backend's own score of prepared rows."""
        raw = self.model.raw(rows)
        beyond = self.support_tail.ratio(self.support.nats(rows).max(axis=1))
        return np.maximum(self.tail.ratio(raw), beyond), raw

    def score(self, x: F64) -> Verdict:
        """Scores of rows of features, (m, f), NaN for what is missing."""
        ratio, raw = self._ratio(self.prepared(x))
        empty = ~np.isfinite(x[:, : len(self.names)]).any(axis=1)
        return Verdict(np.where(empty, np.nan, ratio), np.where(empty, np.nan, raw))

    def blame(self, row: F64) -> F64:
        """The part of each metric in the score of one row of features, (f,): (k,) shares that add up to 1.

        Of a row outside of what was seen it is how far each metric is outside; of a sum over columns its
        terms; for every other model by how much the score falls when the metric takes the values it had in
        training where all other metrics were as they are now, so that the metric which broke with the others
        is named, and not those that it broke with.
        """
        x = self.prepared(row[None, :])
        k = len(self.names)
        source = self.features.source(k)
        nats, terms = self.support.nats(x)[0], self.model.contributions(x)
        usual = None if terms is None else self.model.contributions(self.reference)
        by_support = self.support_tail.ratio(nats.max(keepdims=True)) >= self.tail.ratio(self.model.raw(x))
        if by_support and nats[:k].max() >= nats.max():
            by_metric = nats[:k]
        elif not by_support and terms is not None and usual is not None:
            by_metric = _summed(np.maximum(terms[0] - np.median(usual, axis=0), 0.0), source, k)
        else:
            by_metric = self._falls(x, source)
        if not by_metric.sum() > 0.0:
            by_metric = _summed(np.abs(x[0] - self.centre) / self.scale, source, k)
        total = by_metric.sum()
        shares: F64 = by_metric / total if total > 0.0 else np.full(k, 1.0 / k)
        return shares

    def _falls(self, x: F64, source: I64) -> F64:
        """By how much the score of one row falls with a metric as it was where the others were the same."""
        ratio = float(self._ratio(x)[0][0])
        falls = np.zeros(len(self.names))
        for metric in range(len(self.names)):
            mine = source == metric
            near = self._near(x[0], mine)
            tried = np.repeat(x, len(near), axis=0)
            tried[:, mine] = self.reference[near][:, mine]
            falls[metric] = max(ratio - float(self._ratio(tried)[0].min()), 0.0)
        return falls

    # -- saving and loading

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything as named arrays; no object in them needs pickle."""
        about = {
            "form": FORM,
            "names": self.names,
            "rolling": self.features.rolling,
            "lags": self.features.lags,
            "tail": [self.tail.middle, self.tail.line],
            "support_tail": [self.support_tail.middle, self.support_tail.line],
            "card": asdict(self.card),
        }
        out: dict[str, npt.NDArray[np.generic]] = {
            "about": json_array(about),
            "centre": self.centre,
            "scale": self.scale,
            "known": self.known,
            "reference": self.reference,
        }
        out |= {f"support.{name}": column for name, column in self.support.arrays().items()}
        return out | {f"model.{name}": column for name, column in self.model.arrays().items()}

    @staticmethod
    def of(arrays: Arrays) -> Fitted:
        """The model that gave these arrays; raises ModelError when they are not those of a model."""
        try:
            about = array_json(arrays["about"])
            if about["form"] != FORM:
                raise ModelError(
                    f"this program reads models of form {FORM}, not {about['form']!r}; fit it again"
                )
            card = Card(**about["card"])
            fitted = Fitted(
                tuple(about["names"]),
                FeatureParams(tuple(about["rolling"]), tuple(about["lags"])),
                np.asarray(arrays["centre"], np.float64),
                np.asarray(arrays["scale"], np.float64),
                np.asarray(arrays["known"], np.bool_),
                np.asarray(arrays["reference"], np.float64),
                MODELS[card.backend].of(under(arrays, "model.")),
                Tail(*about["tail"]),
                Support.of(under(arrays, "support.")),
                Tail(*about["support_tail"]),
                card,
            )
            fitted.check()
        except _DAMAGE as error:
            raise ModelError(f"this is no model of ours, or a damaged one ({error}); fit it again") from None
        return fitted

    def check(self) -> None:
        """Score one of its own rows: what cannot score shows here, and not in the next row that comes.

        Raises ValueError.
        """
        row, f = self.reference[:1], self.features.width(len(self.names))
        if row.shape != (1, f) or not self.centre.shape == self.scale.shape == self.known.shape == (f,):
            raise ValueError(f"its arrays are not those of {f} features")
        with np.errstate(all="ignore"):
            if not np.isfinite(self.score(row)).all():
                raise ValueError("its own rows have no finite score")


# What arrays that are not ours, or not all there, make of the code that reads them.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    ConfigError,
    KeyError,
    IndexError,
    RecursionError,
    TypeError,
    ValueError,
)


def _summed(terms: F64, source: I64, k: int) -> F64:
    """Terms of features added up by the metric that each feature is of."""
    return np.bincount(source, weights=terms, minlength=k).astype(np.float64)
