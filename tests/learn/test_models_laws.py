"""The laws of every model, whatever fits it: a row's bits are its own, arrays are the model, fits repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from learn_data import climate

from plexus_detect.learn.model import Model
from plexus_detect.training.backends import FIT

X, _ = climate(1, 400)
NEW, _ = climate(2, 1500, 0.05)
every_backend = pytest.mark.parametrize("backend", sorted(FIT))


@pytest.fixture(scope="module")
def fitted() -> dict[str, Model]:
    """Every model, fitted once to the same rows."""
    return {backend: fit(X, 0.1, 42) for backend, fit in FIT.items()}


@every_backend
def test_a_row_scores_alone_as_in_company(fitted: dict[str, Any], backend: str) -> None:
    """The bits of a score do not depend on the other rows of the call, how many there are, or how they lie in
    memory."""
    model = fitted[backend]
    batch = model.raw(NEW)
    assert np.isfinite(batch).all()
    assert np.array_equal(batch[:150], np.concatenate([model.raw(NEW[i : i + 1]) for i in range(150)]))
    assert np.array_equal(batch[7:1300][::-1], model.raw(NEW[7:1300][::-1]))
    assert np.array_equal(batch, model.raw(np.asfortranarray(NEW)))
    assert model.raw(NEW[:0]).shape == (0,)


@every_backend
def test_arrays_are_the_model(fitted: dict[str, Any], backend: str) -> None:
    """A model made of copies of another's arrays scores with the same bits; no array needs pickle and no name
    has a dot."""
    model = fitted[backend]
    arrays = {name: array.copy() for name, array in model.arrays().items()}
    assert not any("." in name or array.dtype.hasobject for name, array in arrays.items())
    again = type(model).of(arrays)
    assert model.backend == again.backend == backend
    assert np.array_equal(again.raw(NEW), model.raw(NEW))


@every_backend
def test_the_same_rows_give_the_same_model(fitted: dict[str, Any], backend: str) -> None:
    """A second fit with the same seed gives the same bits, and NumPy's global chance stays as it was."""
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.RandomState(7).random(3)
    again = FIT[backend](X.copy(), 0.1, 42).arrays()
    assert all(np.array_equal(array, again[name]) for name, array in fitted[backend].arrays().items())
    assert np.array_equal(np.random.random(3), expected)  # noqa: NPY002
