"""Fitting isolation_forest with PyOD and laying out its trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.models.forest import F32, I32, IsolationForest
from plexus_detect.series import F64
from plexus_detect.training.backends.neighbours import fitting, without_unit

TREES = 100


def fit_isolation_forest(x: F64, contamination: float, seed: int) -> IsolationForest:
    """Isolation forest of rows x, (n, f): 100 trees of up to 256 rows each. Raises FitError."""
    scale, _ = without_unit(x)
    with fitting("isolation_forest"):
        from pyod.models.iforest import IForest

        fitted = IForest(TREES, contamination=contamination, n_jobs=1, random_state=seed)
        fitted.fit(IsolationForest.prepared(x, scale))
    trees = [estimator.tree_ for estimator in fitted.estimators_]
    depth = max(int(tree.max_depth) for tree in trees)
    laid = [_laid_out(tree, depth) for tree in trees]
    feature, threshold, length = (np.array(column) for column in zip(*laid, strict=True))
    unit = len(trees) * float(average_path(np.array([fitted.max_samples_]))[0])
    return IsolationForest(scale, feature, threshold, length, unit, float(fitted.offset_))


def average_path(n: npt.NDArray[np.integer[Any]]) -> F64:
    """Mean number of cuts that isolate one of n rows (Liu, Ting and Zhou 2008, equation 1)."""
    many = np.maximum(n, 3).astype(np.float64)
    path = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    out: F64 = np.where(n > 2, path, np.where(n == 2, 1.0, 0.0))
    return out


def _laid_out(tree: Any, depth: int) -> tuple[I32, F32, F64]:  # noqa: ANN401
    """A tree of scikit-learn as a complete one: feature, threshold (2**depth - 1,) and length (2**depth,).

    Below a leaf everything goes left, and all leaves there have its length.
    """
    feature, threshold = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    nodes, cuts = np.zeros(1, np.int64), np.ones(1)
    for _ in range(depth):
        leaf = tree.children_left[nodes] < 0
        feature.append(np.where(leaf, 0, tree.feature[nodes]).astype(np.int32))
        threshold.append(np.where(leaf, np.float32(np.inf), _down(tree.threshold[nodes])))
        children = [np.where(leaf, nodes, side[nodes]) for side in (tree.children_left, tree.children_right)]
        nodes = np.stack(children, axis=1).ravel()
        cuts = np.repeat(cuts + ~leaf, 2)
    length = cuts + average_path(tree.n_node_samples[nodes]) - 1.0
    return np.concatenate(feature), np.concatenate(threshold), length


def _down(threshold: F64) -> F32:
    """The largest 32-bit floats not above the thresholds: 32-bit values compare with both alike."""
    near = threshold.astype(np.float32)
    lower: F32 = np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
    return lower
