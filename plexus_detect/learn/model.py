"""What every fitted model can do, whatever fitted it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64

Arrays = Mapping[str, npt.NDArray[np.generic]]


def json_array(facts: object) -> npt.NDArray[np.generic]:
    """JSON values as an array of bytes, as one among others that hold numbers."""
    return np.frombuffer(json.dumps(facts).encode(), np.uint8)


def array_json(array: npt.NDArray[np.generic]) -> Any:  # noqa: ANN401 - JSON may be anything
    """What ``json_array`` was given; raises ValueError or RecursionError for any other array."""
    return json.loads(np.asarray(array, np.uint8).tobytes())


class Model(Protocol):
    """A fitted model in the form that scores: arrays and nothing else.

    Rows are observations, columns are features, all finite: shape (m, f). A row's score never depends on the
    other rows of a call, and is the same bits in a call of its own.
    """

    backend: ClassVar[str]

    def raw(self, x: F64) -> F64:
        """The backend's own anomaly score of each row, (m,); larger is more anomalous, no fixed unit."""
        ...

    def contributions(self, x: F64) -> F64 | None:
        """What each column adds to the score, (m, f) and never negative, where the score is a sum over
        columns; None for a model that is none."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs, under names without dots."""
        ...

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """The model that gave these arrays."""
        ...
