"""A pool that reuses arrays when nobody holds them any more. A steady stream allocates no memory."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

KEPT = 128  # arrays: enough for a rollout of 13 steps, whose pictures are held until they are scored
KEPT_BYTES = 256 << 20  # of all arrays together
PERIOD = 1024  # takes; arrays that none of them needed are released


class Pool:
    """Hands out arrays that a holder may keep forever. An array returns when its last holder drops it.

    The pool reads CPython's reference counts. It hands out a view, so a holder may change its flags and shape.
    Everything made from the view (views, slices, memoryviews, torch's and ONNX Runtime's tensors) holds the array
    underneath, in any thread. A bare address (``array.ctypes.data``) does not.

    Beyond ``KEPT`` arrays or ``KEPT_BYTES``, the pool forgets the array that it handed out longest ago: that one
    belongs to its holder alone.
    """

    def __init__(self) -> None:
        self._arrays: list[NDArray[Any]] = []  # the one handed out last comes first
        self._bytes = 0
        self._lock = threading.Lock()
        self._takes = self._deepest = 0

    def take(self, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """Return an array that nobody else holds, with arbitrary contents. May be called from any thread."""
        with self._lock:
            array = self._free(shape, np.dtype(dtype))
            self._arrays.insert(0, array)
            self._takes += 1
            rested = self._takes % PERIOD == 0
            while self._bytes > KEPT_BYTES or len(self._arrays) > (self._deepest + 1 if rested else KEPT):
                self._bytes -= self._arrays.pop().nbytes
            self._deepest = 0 if rested else self._deepest
            return array[...]

    def _free(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Take an array that nobody holds off the list, or make a new one."""
        for place in range(len(self._arrays)):
            if _holders(self._arrays, place) == _NONE:
                array = self._arrays[place]
                if array.shape == shape and array.dtype == dtype:
                    self._deepest = max(self._deepest, place)
                    return self._arrays.pop(place)
        array = np.empty(shape, dtype)
        self._bytes += array.nbytes
        self._deepest = len(self._arrays)
        return array


def _holders(arrays: list[NDArray[Any]], place: int) -> int:
    """The reference count of an array. How many references are our own depends on the interpreter."""
    return sys.getrefcount(arrays[place])


_NONE = _holders([np.empty(0)], 0)  # of an array that only its list holds
