"""Fitting the one-class SVM with PyOD."""

from __future__ import annotations

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.models.svm import OneClassSVM
from plexus_detect.learn.scale import robust_scale
from plexus_detect.series import F64

# nu is both the largest share of training rows outside of the boundary and the least that are support
# vectors: above a tenth the boundary cuts into what is normal and scoring slows down, below a hundredth it
# hangs on single rows.
NU_LEAST, NU_MOST = 0.01, 0.1


def fit_one_class_svm(x: F64, contamination: float, seed: int) -> OneClassSVM:  # noqa: ARG001
    """One-class SVM of rows x, (n, f), n >= 2 and finite. Nothing is random. Raises FitError.

    gamma is 1 / f on scaled columns: not that of the variance, which the outliers in the training rows make.
    """
    from pyod.models.ocsvm import OCSVM

    scale = robust_scale(x)
    gamma = 1.0 / x.shape[1]
    nu = min(max(contamination, NU_LEAST), NU_MOST)
    estimator = OCSVM(kernel="rbf", gamma=gamma, nu=nu, contamination=contamination)
    # scikit-learn draws a number for libsvm, which does not use it, from the chance of the whole process.
    chance = np.random.get_state()  # noqa: NPY002
    try:
        estimator.fit(scale.of_rows(x))
    except ValueError as error:
        raise FitError(f"one_class_svm cannot be fitted to these {len(x)} rows: {error}") from None
    finally:
        np.random.set_state(chance)  # noqa: NPY002
    return OneClassSVM(
        scale,
        np.ascontiguousarray(estimator.support_vectors_.T),
        np.array(estimator.dual_coef_[0]),
        -np.asarray(estimator.intercept_, np.float64),
        np.array([gamma]),
    )
