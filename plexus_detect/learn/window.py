"""The last rows of a stream, in a ring that grows until it is full."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plexus_detect.learn.model import Arrays
from plexus_detect.series import F64, I64

_FIRST_ROOM = 64


class Window:
    """The newest ``size`` rows of f features, with their scores and times; the oldest give way."""

    def __init__(self, size: int, f: int) -> None:
        self.size = size
        self.f = f
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.count, self.at = 0, 0
        self._room(min(self.size, _FIRST_ROOM))

    def _room(self, n: int) -> None:
        self.x: F64 = np.full((n, self.f), np.nan)
        self.ratio: F64 = np.full(n, np.nan)
        self.t_ms: I64 = np.full(n, -1, np.int64)

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return self.x.nbytes + self.ratio.nbytes + self.t_ms.nbytes

    def push(self, x: F64, ratio: F64, t_ms: I64) -> None:
        """Add rows x, (m, f), with their scores and times, (m,)."""
        x, ratio, t_ms = x[-self.size :], ratio[-self.size :], t_ms[-self.size :]
        self._grow(self.count + len(x))
        place = (self.at + np.arange(len(x))) % len(self.x)
        self.x[place], self.ratio[place], self.t_ms[place] = x, ratio, t_ms
        self.at = int(self.at + len(x)) % len(self.x)
        self.count = min(self.count + len(x), self.size)

    def _grow(self, wanted: int) -> None:
        """Room for ``wanted`` rows, as far as the window allows: doubled, so that a young window is small."""
        if wanted <= len(self.x) or len(self.x) == self.size:
            return
        old = self.rows()
        self._room(min(self.size, max(wanted, 2 * len(self.x))))
        n = len(old[0])
        self.x[:n], self.ratio[:n], self.t_ms[:n] = old
        self.at = n % len(self.x)

    def rows(self) -> tuple[F64, F64, I64]:
        """Rows, scores and times, oldest first: copies."""
        order = (self.at - self.count + np.arange(self.count)) % len(self.x)
        return self.x[order], self.ratio[order], self.t_ms[order]

    def widen(self, columns: I64, f: int) -> None:
        """Make room for more features: the old ones are at ``columns`` of ``f`` now, new ones are unknown."""
        old = self.x
        self.f, self.x = f, np.full((len(old), f), np.nan)
        self.x[:, columns] = old

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The rows as named arrays."""
        x, ratio, t_ms = self.rows()
        return {"x": x, "ratio": ratio, "t_ms": t_ms}

    def load(self, arrays: Arrays) -> None:
        """Take over what ``dump`` gave."""
        x = np.asarray(arrays["x"], np.float64)
        self.f = x.shape[1]
        self.clear()
        self.push(x, np.asarray(arrays["ratio"], np.float64), np.asarray(arrays["t_ms"], np.int64))
