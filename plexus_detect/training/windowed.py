"""Fitting the autoencoders of windows with torch, and measuring where their lines are.

Each is a denoising autoencoder (Vincent et al. 2008): in half of the windows that it learns from, one sensor
is that of another window. It has to rebuild what the sensor should have been from the others, which is what
is asked of it when a sensor breaks with them, sticks or drifts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.scale import robust_scale
from plexus_detect.learn.windowed import (
    AWAY_MAX,
    GIVEN_MAX,
    PERCENTILES,
    View,
    Windowed,
    WindowedParams,
    windows,
)
from plexus_detect.series import F64, I64, Bool
from plexus_detect.training.onnx import Exported, Layer, checked, dense_graph

# Rows are cut into so many blocks, each two windows or longer, of which every fifth is held back.
BLOCKS, BLOCKS_LEAST, HELD_EVERY, HELD_AT = 20, 5, 5, 2

# At most so many windows, evenly spaced, are learned from, and as many held back; steps, and windows a step.
WINDOWS_MAX, STEPS, BATCH = 10_000, 1_600, 256

# Cells of a hidden layer, at least and at most; the code in the middle has a third of the inputs.
HIDDEN_LEAST, HIDDEN_MOST, CODE_PART = 64, 256, 3

# The rate rises to this and falls to nothing (Smith and Topin 2019).
RATE = 0.01

# In this part of the windows one sensor is that of another window.
SWAPPED = 0.5

# The least usual error of a sensor, in squared interquartile ranges: one that never changes has none.
ERROR_LEAST = 1e-9


class _Net(NamedTuple):
    """A trained network: its layers, and what torch makes of rows."""

    layers: list[Layer]
    forward: Callable[[F64], F64]


def fit_windowed(x: F64, names: Sequence[str], params: WindowedParams, steps: int = STEPS) -> Windowed:
    """Autoencoders of windows of rows x, (n, c), of normal data in order of time; NaN for a missing value.

    On the CPU with one thread the same rows give the same bits; a GPU is used where torch has one. The line
    of a threshold is the error that its percentage of held-back rows stays below, all sizes taken together.
    Raises FitError for fewer than two sensors, fewer rows than ten of the largest windows, a training that
    does not converge, and an ONNX form that differs from what torch says.
    """
    n, c = x.shape
    largest = max(params.sizes)
    need = 2 * BLOCKS_LEAST * largest
    if c < 2 or len(names) != c:
        raise FitError(
            f"windows need two sensors or more, each with a name; got {c} columns, {len(names)} names"
        )
    x = np.where(np.isfinite(x), x, np.nan)
    whole = x[np.isfinite(x).all(axis=1)]
    if len(whole) < need:
        raise FitError(
            f"windows of {largest} rows need {need} rows without gaps to fit; got {len(whole)} of {n}"
        )
    scale = robust_scale(whole)
    z = np.minimum(np.maximum(scale.of_rows(x), -AWAY_MAX), AWAY_MAX)
    held = held_back(n, largest)
    fitted = [_fit_size(z, held, size, params.seed, steps) for size in params.sizes]
    views, count = _with_lines([view for view, _ in fitted], z, held)
    card = {
        "rows": n,
        "held_back": int(held.sum()),
        "held_back_windows": count,
        "data_hash": hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:16],
        "parity": max(difference for _, difference in fitted),
        "steps": steps,
    }
    return Windowed(tuple(names), params, scale, views, card)


def held_back(n: int, largest: int) -> Bool:
    """Which of n rows are not learned but have the lines measured on them, where the largest window has so
    many rows."""
    blocks = min(BLOCKS, n // (2 * largest))
    held: Bool = (np.arange(n) * blocks // n) % HELD_EVERY == HELD_AT
    return held


def _fit_size(z: F64, held: Bool, size: int, seed: int, steps: int) -> tuple[View, float]:
    """The view of one window size without its lines, and the parity of its ONNX form."""
    seen, apart = _starts(z, ~held, size), _starts(z, held, size)
    if len(seen) < 2 or len(apart) < 2:
        raise FitError(f"windows of {size} rows: too many rows have missing values to fit and hold some back")
    net = _train(_given(windows(z, size, seen)), seed, steps)

    def error(rows: F64) -> F64:
        mean: F64 = np.mean((rows.astype(np.float32) - net.forward(rows)) ** 2, axis=1)
        return mean

    w = windows(z, size, apart)
    flat = _given(w).reshape(len(w), -1)
    model, difference = checked(Exported(dense_graph(net.layers, "Relu"), error), flat)
    bare = View(size, model, np.ones(z.shape[1]), np.ones(len(PERCENTILES)))
    usual = np.maximum(bare.errors(w).mean(axis=0), ERROR_LEAST)
    return View(size, model, usual, bare.lines), difference


def _given(w: F64) -> F64:
    """Windows as the network is given them."""
    return np.minimum(np.maximum(w, -GIVEN_MAX), GIVEN_MAX)


def _starts(z: F64, of: Bool, size: int) -> I64:
    """Where windows begin that lie in these rows and have no value missing; at most WINDOWS_MAX, evenly."""
    good = np.concatenate([[0], np.cumsum(of & np.isfinite(z).all(axis=1))])
    starts = np.flatnonzero(good[size:] - good[:-size] == size)
    return starts[:: max(1, -(-len(starts) // WINDOWS_MAX))]


def _with_lines(views: Sequence[View], z: F64, held: Bool) -> tuple[tuple[View, ...], int]:
    """The views with their lines, and on how many held-back rows these were measured.

    One percentile of each size's own error makes the sizes comparable. The largest of their errors in that
    unit then has the percentiles of the thresholds, so that all sizes together leave as many rows above the
    line as its name says.
    """
    largest = max(view.size for view in views)
    # By the row at which they end: all sizes have a window there.
    ends = _starts(z, held, largest) + largest - 1
    errors = [v.errors(windows(z, v.size, ends - v.size + 1)).max(axis=1) for v in views]
    units = np.maximum(np.percentile(errors, PERCENTILES["balanced"], axis=1), np.finfo(np.float64).tiny)
    joint = np.percentile((np.stack(errors) / units[:, None]).max(axis=0), list(PERCENTILES.values()))
    pairs = zip(views, units, strict=True)
    return tuple(View(view.size, view.net, view.usual, unit * joint) for view, unit in pairs), len(ends)


def _train(w: F64, seed: int, steps: int) -> _Net:
    """An autoencoder of windows w, (m, bins, c), given all at once."""
    try:
        import torch
    except ImportError as error:
        raise FitError(f"windows need the extra deep, which is not installed ({error})") from None
    m, bins, c = w.shape
    inputs = bins * c
    code = max(2, inputs // CODE_PART)
    hidden = min(HIDDEN_MOST, max(HIDDEN_LEAST, 4 * code))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    with _one_thread(torch):
        torch.manual_seed(seed)
        widths = [inputs, hidden, code, hidden, inputs]
        stages: list[Any] = []
        for width_in, width_out in pairwise(widths):
            stages += [linear(width_in, width_out), relu()]
        net = torch.nn.Sequential(*stages[:-1]).to(device)
        rows = torch.tensor(w.astype(np.float32), device=device)
        adam = torch.optim.Adam(net.parameters(), lr=RATE)
        pace = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=steps)
        for here, there, sensor in _draws(np.random.default_rng(seed), m, c, steps):
            clean = rows[here]
            given = clean.clone()
            k = len(there)
            given[torch.arange(k), :, sensor] = rows[there, :, sensor]
            loss = ((net(given.reshape(-1, inputs)) - clean.reshape(-1, inputs)) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            pace.step()
    net = net.cpu()
    parameters = [tensor.numpy().copy() for tensor in net.state_dict().values()]
    if not all(np.isfinite(array).all() for array in parameters):
        raise FitError("windows could not be fitted: the training did not converge")

    def forward(x: F64) -> F64:
        with torch.no_grad():
            out: F64 = net(torch.tensor(x.astype(np.float32))).numpy().astype(np.float64)
        return out

    pairs = zip(parameters[0::2], parameters[1::2], strict=True)
    return _Net([(weights.T, bias) for weights, bias in pairs], forward)


def _draws(rng: np.random.Generator, m: int, c: int, steps: int) -> Iterator[tuple[Any, Any, Any]]:
    """For each step: the windows to learn from, and for the first SWAPPED of them from which window which
    sensor is taken."""
    batch = min(BATCH, m)
    swapped = round(SWAPPED * batch)
    for _ in range(steps):
        yield rng.integers(0, m, batch), rng.integers(0, m, swapped), rng.integers(0, c, swapped)


@contextmanager
def _one_thread(torch: Any) -> Iterator[None]:  # noqa: ANN401
    """One thread for torch, and its chance as it was before."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
