"""Fitting half_space_trees with river: it draws the trees and learns the training rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.models.forest import I32
from plexus_detect.learn.models.halfspace import HalfSpaceTrees
from plexus_detect.series import F64, I64
from plexus_detect.training.backends.neighbours import fitting

TREES = 25
DEPTH = 8
WINDOW = 250

# The range goes on beyond the training rows by this part of it, so that what lies there has its own cells.
MARGIN = 0.1


def fit_half_space_trees(x: F64, contamination: float, seed: int) -> HalfSpaceTrees:  # noqa: ARG001
    """Half-space trees of rows x, (n, f): 25 trees of depth 8, windows of 250 rows, or n if that is less.

    Each column's range is brought to 0..1, so that all columns are cut equally often. Raises FitError.
    """
    low, span = _limits(x)
    rows = HalfSpaceTrees.prepared(x, low, span)
    with fitting("half_space_trees"):
        from river.anomaly import HalfSpaceTrees as River

        window = min(WINDOW, len(rows))
        fitted: Any = River(n_trees=TREES, height=DEPTH, window_size=window, seed=seed)
        for row in rows.tolist():
            fitted.learn_one(dict(enumerate(row)))
    laid = [_laid_out(tree) for tree in fitted.trees]
    feature, threshold, mass, latest = (np.array(column) for column in zip(*laid, strict=True))
    return HalfSpaceTrees(low, span, feature, threshold, mass, latest, window, int(fitted.counter))


def _limits(x: F64) -> tuple[F64, F64]:
    """Where each column's range begins and how long it is, (f,), with its margins."""
    with np.errstate(over="ignore", invalid="ignore"):
        least, most = x.min(axis=0), x.max(axis=0)
        size = np.maximum(np.abs(least), np.abs(most))
        # A column that never varied lies in the middle of a range of a fifth of its size.
        margin = MARGIN * np.where(most > least, most - least, np.where(size > 0.0, size, 1.0))
        low, span = least - margin, most - least + 2.0 * margin
    if not (np.isfinite(low).all() and np.isfinite(span).all()):
        raise FitError("the numbers of a column are too large to be compared: their spread is infinite")
    return low, span


def _laid_out(tree: Any) -> tuple[I32, F64, I64, I64]:  # noqa: ANN401
    """A tree of river level by level: feature and threshold of the inner nodes, masses of the leaves.

    river goes left below a threshold, we go left at or below it: the number before it makes both the same.
    """
    nodes, inner = [tree], []
    for _ in range(DEPTH):
        inner += nodes
        nodes = [child for node in nodes for child in node.children]
    return (
        np.array([node.feature for node in inner], np.int32),
        np.nextafter(np.array([node.threshold for node in inner]), -np.inf),
        np.array([leaf.r_mass for leaf in nodes], np.int64),
        np.array([leaf.l_mass for leaf in nodes], np.int64),
    )
