"""Fitting by backend: each function takes finite rows and gives a model in the form that scores."""

from __future__ import annotations

from collections.abc import Callable

from plexus_detect.learn.model import Model
from plexus_detect.series import F64
from plexus_detect.training.backends.autoencoder import fit_autoencoder
from plexus_detect.training.backends.cblof import fit_cblof
from plexus_detect.training.backends.copod import fit_copod
from plexus_detect.training.backends.ecod import fit_ecod
from plexus_detect.training.backends.forest import fit_isolation_forest
from plexus_detect.training.backends.halfspace import fit_half_space_trees
from plexus_detect.training.backends.hbos import fit_hbos
from plexus_detect.training.backends.loda import fit_loda
from plexus_detect.training.backends.mcd import fit_mcd
from plexus_detect.training.backends.neighbours import fit_knn, fit_local_outlier_factor
from plexus_detect.training.backends.suod import fit_suod
from plexus_detect.training.backends.svm import fit_one_class_svm

# Rows (n, f), the contamination and a seed in, a model out; raises FitError.
FIT: dict[str, Callable[[F64, float, int], Model]] = {
    "autoencoder": fit_autoencoder,
    "cblof": fit_cblof,
    "copod": fit_copod,
    "ecod": fit_ecod,
    "half_space_trees": fit_half_space_trees,
    "hbos": fit_hbos,
    "isolation_forest": fit_isolation_forest,
    "knn": fit_knn,
    "local_outlier_factor": fit_local_outlier_factor,
    "loda": fit_loda,
    "mcd": fit_mcd,
    "one_class_svm": fit_one_class_svm,
    "suod": fit_suod,
}
