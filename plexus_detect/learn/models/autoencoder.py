"""Autoencoder: how badly a small network with a bottleneck puts a row together again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.learn.models.neighbours import scaled
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64

# Rows at a time: what the widest layer needs for them stays in the cache.
ROWS = 512


@dataclass(frozen=True)
class Autoencoder:
    """The distance, in deviations, of a row from what the network makes of it (Aggarwal 2015, chapter 3).

    ``layers`` are weights (in, out) and biases (out,), with tanh after every layer but the last: what the
    network says is bounded, so that the score of a row far outside grows with its distance. Computed with 64
    bits; the network was trained with 32.
    """

    backend: ClassVar[str] = "autoencoder"
    scale: Scale
    layers: tuple[tuple[F64, F64], ...]

    def raw(self, x: F64) -> F64:
        """The reconstruction error of each row of x, (m, f): the Euclidean distance, (m,)."""
        rows = scaled(x, self.scale)
        out = np.zeros(len(rows))
        for a in range(0, len(rows), ROWS):
            part = rows[a : a + ROWS]
            away = part - self.rebuilt(part)
            away *= away
            out[a : a + ROWS] = np.add.accumulate(away, axis=1)[:, -1]
        return np.sqrt(out)

    def rebuilt(self, rows: F64) -> F64:
        """What the network makes of scaled rows, (m, f).

        Products are added up input by input: those of a matrix product may depend on the number of rows.
        """
        values = rows
        for i, (weights, bias) in enumerate(self.layers):
            if i:
                values = np.tanh(values)
            total = np.repeat(bias[None, :], len(rows), axis=0)
            for j, to_all in enumerate(weights):
                total += values[:, j, None] * to_all
            values = total
        return values

    def contributions(self, x: F64) -> F64 | None:  # noqa: ARG002
        """None: the network mixes all columns, so that one that broke with the others spoils theirs too."""
        return None

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        out: dict[str, npt.NDArray[np.generic]] = {**self.scale.arrays()}
        for i, (weights, bias) in enumerate(self.layers):
            out |= {f"weights_{i}": weights, f"bias_{i}": bias}
        return out

    @classmethod
    def of(cls, arrays: Arrays) -> Autoencoder:
        """The model that gave these arrays."""
        count = sum(name.startswith("weights_") for name in arrays)
        return cls(
            Scale.of(arrays),
            tuple(
                (np.asarray(arrays[f"weights_{i}"], np.float64), np.asarray(arrays[f"bias_{i}"], np.float64))
                for i in range(count)
            ),
        )
