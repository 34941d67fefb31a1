"""Arrays that are used again once nobody holds them: a steady stream asks for no memory."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

KEPT = 128  # arrays: those of a rollout of 13 steps, which are held until they are scored
KEPT_BYTES = 256 << 20  # of all of them
PERIOD = 1024  # takes; what none of them needed is let go


class Pool:
    """Hands out arrays for good: whoever is given one may keep it, and it comes back when the last holder forgets it.

    CPython's reference counts tell when that is. What is handed out is a view, so that its flags and shape are the
    holder's own affair, and whatever is made from it (views, slices, memoryviews, torch's and ONNX Runtime's tensors)
    holds the array underneath, in whichever thread. An address alone (``array.ctypes.data``) does not.

    Beyond ``KEPT`` or ``KEPT_BYTES`` the array that was handed out longest ago belongs to its holder alone.
    """

    def __init__(self) -> None:
        self._arrays: list[NDArray[Any]] = []  # the one handed out last comes first
        self._bytes = 0
        self._lock = threading.Lock()
        self._takes = self._deepest = 0

    def take(self, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """An array that nobody else holds; what is in it is left over from before. May be called from any thread."""
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
        """One that is held by nobody, taken from the list, or a new one."""
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
    """The references to an array; how many of them are ours depends on the interpreter."""
    return sys.getrefcount(arrays[place])


_NONE = _holders([np.empty(0)], 0)  # of an array that only its list holds
