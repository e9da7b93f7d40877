"""Random numbers that are looked up, not drawn in turn. Pure.

Philox (Salmon et al. 2011) is a function of a key and a counter. The key is the seed and the number of a
device, the counter names a stream and a block of it, so what a device does at a time depends on nothing else:
not on how many devices there are, nor on where a run begins or how it is cut.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from plexus_detect.series import F64


class Stream(IntEnum):
    """What the numbers are for."""

    TRAITS = 0
    NOISE = 1
    LOAD = 2
    SHIFT = 3
    AIR = 4
    WEATHER = 5
    PLAN = 6
    MISSING = 7
    JITTER = 8
    OTHER_LOAD = 9
    OTHER_AIR = 10


# The "device" of what all devices of a site share.
SITE = 0


class Draws:
    """The numbers of one seed."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=np.array([seed, 0], np.uint64))
        self._generator = np.random.Generator(self._bits)
        # Setting the state of one generator costs a third of making another.
        self._state = self._bits.state

    def _at(self, device: int, stream: Stream, block: int) -> np.random.Generator:
        inner = self._state["state"]
        inner["key"][1] = device
        inner["counter"][:] = (0, 0, stream, block)
        self._bits.state = self._state
        return self._generator

    def normals(self, device: int, stream: Stream, block: int, shape: tuple[int, ...]) -> F64:
        """Standard normal numbers of one block of a stream."""
        return self._at(device, stream, block).standard_normal(shape)

    def uniforms(self, device: int, stream: Stream, block: int, shape: tuple[int, ...]) -> F64:
        """Numbers from 0 up to, but without, 1."""
        return self._at(device, stream, block).random(shape)
