"""Columns of different units brought to one: centred on the median, in units of the interquartile range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.series import F64


@dataclass(frozen=True, slots=True)
class Scale:
    """Of each of f columns its centre and its unit, (f,), in the column's own unit; units are above zero."""

    centre: F64
    unit: F64

    def of_rows(self, x: F64) -> F64:
        """Rows x, (m, f), without unit."""
        out: F64 = (x - self.centre) / self.unit
        return out

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything ``of`` needs."""
        return {"centre": self.centre, "unit": self.unit}

    @staticmethod
    def of(arrays: Arrays) -> Scale:
        """The scale that gave these arrays."""
        return Scale(np.asarray(arrays["centre"], np.float64), np.asarray(arrays["unit"], np.float64))


def robust_scale(x: F64) -> Scale:
    """Median and interquartile range of each column of x, (n, f).

    Where the middle half of a column is one value the unit is the standard deviation; where all of it is, 1.
    """
    low, centre, high = np.percentile(x, [25.0, 50.0, 75.0], axis=0)
    flat = np.ptp(x, axis=0) == 0.0
    std = np.where(flat, 1.0, x.std(axis=0))
    unit = np.where(high > low, high - low, np.where(std > 0.0, std, 1.0))
    return Scale(np.where(flat, x[0], centre), unit)
