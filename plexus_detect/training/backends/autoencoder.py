"""Fitting the autoencoder with PyOD and torch."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.models.autoencoder import Autoencoder
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64
from plexus_detect.training.backends.neighbours import fitting

# The documented layers are the largest. Few columns get fewer cells: a bottleneck as wide as they are lets
# everything pass, and what lets everything pass finds nothing.
OUTER_MAX, INNER_MAX = 64, 32

# Steps of training, whatever the number of rows, but no fewer rounds over all rows than that.
STEPS, ROUNDS_MIN = 600, 5
BATCH_MAX = 64
RATE = 0.01


def fit_autoencoder(x: F64, contamination: float, seed: int) -> Autoencoder:
    """Autoencoder of rows x, (n, f), on the CPU with one thread: same rows, same seed, same bits.

    Raises FitError, also when torch (the extra deep) is not installed.
    """
    scale, rows = _standardised(x)
    with fitting("autoencoder"), _own_chance():
        fitted = estimator(rows.shape, contamination, seed).fit(rows)
    parameters = [tensor.numpy().astype(np.float64) for tensor in fitted.model.state_dict().values()]
    if not all(np.isfinite(array).all() for array in parameters):
        raise FitError("autoencoder could not be fitted: its training did not converge")
    weights, biases = parameters[0::2], parameters[1::2]
    layers = tuple((np.ascontiguousarray(w.T), b) for w, b in zip(weights, biases, strict=True))
    return Autoencoder(scale, layers)


def estimator(shape: tuple[int, ...], contamination: float, seed: int) -> Any:  # noqa: ANN401
    """PyOD's AutoEncoder for rows of this shape, unfitted; it takes standardised rows."""
    import torch
    from pyod.models.auto_encoder import AutoEncoder

    class Quick(AutoEncoder):  # type: ignore[misc]
        """Without the compiler that PyOD starts for a Euclidean distance, which takes seconds."""

        def evaluating_forward(self, batch_data: Any) -> F64:  # noqa: ANN401
            """Errors of a batch."""
            away: F64 = (batch_data - self.model(batch_data)).numpy()
            errors: F64 = np.sqrt((away * away).sum(axis=1))
            return errors

    n, f = shape
    batch = min(BATCH_MAX, max(2, n // 8))
    return Quick(
        contamination,
        preprocessing=False,
        lr=RATE,
        epoch_num=max(ROUNDS_MIN, -(-STEPS // (n // batch))),
        batch_size=batch,
        device=torch.device("cpu"),
        random_state=seed,
        verbose=0,
        hidden_neuron_list=[min(OUTER_MAX, max(8, 4 * f)), min(INNER_MAX, (f + 1) // 2)],
        hidden_activation_name="tanh",
        batch_norm=False,
        dropout_rate=0.0,
    )


def _standardised(x: F64) -> tuple[Scale, F64]:
    """Mean and standard deviation of each column of x, (n, f), and the rows without unit."""
    with np.errstate(over="ignore", invalid="ignore"):
        flat = np.ptp(x, axis=0) == 0.0
        std = x.std(axis=0)
        scale = Scale(np.where(flat, x[0], x.mean(axis=0)), np.where(flat | (std == 0.0), 1.0, std))
        rows = scale.of_rows(x)
    if not (np.isfinite(rows).all() and np.isfinite(scale.unit).all()):
        raise FitError("the numbers of a column are too large to be compared: their spread is infinite")
    return scale, rows


@contextmanager
def _own_chance() -> Iterator[None]:
    """One thread for torch, and whatever PyOD seeds for the whole process as it was before."""
    import torch

    threads, hashing = torch.get_num_threads(), os.environ.get("PYTHONHASHSEED")
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if hashing is None:
            os.environ.pop("PYTHONHASHSEED", None)
        else:
            os.environ["PYTHONHASHSEED"] = hashing
