"""The backends as ``GET /backends`` lists them: what each is, what it costs, what it is for."""

from __future__ import annotations

from typing import Any, Literal

BackendName = Literal[
    "isolation_forest",
    "one_class_svm",
    "local_outlier_factor",
    "autoencoder",
    "ecod",
    "hbos",
    "copod",
    "knn",
    "mcd",
    "cblof",
    "suod",
    "loda",
    "half_space_trees",
    "onnx",
]

CATEGORIES = ("legacy", "fast", "distance", "clustering", "ensemble", "streaming", "deep_learning")


def _entry(names: str, costs: str, description: str, best_for: str) -> dict[str, Any]:
    backend, name, category = (part.strip() for part in names.split("|"))
    speed, memory = costs.split()
    return {
        "backend": backend,
        "name": name,
        "description": description,
        "category": category,
        "speed": speed,
        "memory": memory,
        "parameters": ["contamination"],
        "best_for": best_for,
        "is_legacy": backend in ("isolation_forest", "one_class_svm", "local_outlier_factor", "autoencoder"),
    }


_ENTRIES = (
    _entry(
        "isolation_forest|Isolation Forest|legacy",
        "medium medium",
        "Random trees; what few cuts separate from the rest is anomalous (Liu et al. 2008)",
        "General use with several metrics",
    ),
    _entry(
        "local_outlier_factor|Local Outlier Factor|legacy",
        "medium medium",
        "Density around a row against that around its neighbours (Breunig et al. 2000)",
        "Clusters of different density",
    ),
    _entry(
        "one_class_svm|One-Class SVM|legacy",
        "medium medium",
        "The boundary of a region that holds most rows (Schölkopf et al. 2001)",
        "Small and clean training data",
    ),
    _entry(
        "copod|Copula-Based Outlier Detection|fast",
        "very_fast low",
        "Tail probabilities of an empirical copula (Li et al. 2020)",
        "Many metrics without tuning",
    ),
    _entry(
        "ecod|Empirical Cumulative Distribution|fast",
        "very_fast low",
        "Tail probabilities of each column, added up (Li et al. 2022)",
        "Streams; the default",
    ),
    _entry(
        "hbos|Histogram-Based Outlier Score|fast",
        "very_fast low",
        "Rarity in a histogram of each column (Goldstein and Dengel 2012)",
        "High rates, independent metrics",
    ),
    _entry(
        "knn|k Nearest Neighbours|distance",
        "medium medium",
        "Distance to the k-th nearest training row (Ramaswamy et al. 2000)",
        "Metrics that move together",
    ),
    _entry(
        "mcd|Minimum Covariance Determinant|distance",
        "fast low",
        "Mahalanobis distance from a robust centre (Rousseeuw and Van Driessen 1999)",
        "Linearly correlated metrics",
    ),
    _entry(
        "cblof|Cluster-Based Local Outlier Factor|clustering",
        "fast low",
        "Distance to the next large cluster (He et al. 2003)",
        "Machines with several modes of work",
    ),
    _entry(
        "suod|Scalable Unsupervised Outlier Detection|ensemble",
        "slow high",
        "The average of several detectors (Zhao et al. 2021)",
        "When no single backend is known to fit",
    ),
    _entry(
        "loda|Lightweight On-line Detector of Anomalies|streaming",
        "very_fast low",
        "Histograms of random sparse projections (Pevny 2016)",
        "High rates with many metrics",
    ),
    _entry(
        "autoencoder|Autoencoder|deep_learning",
        "slow high",
        "Error of a neural network that reproduces normal rows",
        "Nonlinear relations between many metrics",
    ),
)

_EXTENSIONS = (
    _entry(
        "half_space_trees|Half-Space Trees|streaming",
        "fast low",
        "Mass in random half-spaces, updated with every row (Tan et al. 2011)",
        "Streams that drift faster than a retrain",
    ),
    _entry(
        "onnx|ONNX model|deep_learning",
        "fast low",
        "A fitted model in the ONNX form, run by onnxruntime",
        "Models that were trained elsewhere",
    ),
)


def listing() -> dict[str, Any]:
    """The answer: the documented twelve, and ours under ``extensions``."""
    return {
        "object": "list",
        "data": [dict(entry) for entry in _ENTRIES],
        "total": len(_ENTRIES),
        "categories": list(CATEGORIES),
        "extensions": [dict(entry) for entry in _EXTENSIONS],
    }
