"""The running score of a run, kept by the server so that a page can show it when it loads."""

from __future__ import annotations

import threading
from collections import deque

from framecast.runtime.sinks.sink import Result

KEPT = 1500  # frames: a little more than the page's longest axis at 30 fps

Point = tuple[float, float | None, float | None]  # time of the frame in seconds; PSNR of prediction and of copying, dB


class Scores:
    """The scores of the newest frames. One thread adds, another reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for microseconds
        self._points: deque[Point] = deque(maxlen=KEPT)
        self._count = 0  # all that were ever added

    def add(self, result: Result) -> None:
        """Add a real frame. One that was not scored counts too, another moment of it does not."""
        if not result.new:
            return
        with self._lock:
            self._points.append((round(result.frame.time, 3), _rounded(result.psnr), _rounded(result.psnr_copy)))
            self._count += 1

    def since(self, count: int) -> tuple[list[Point], int]:
        """The points after the first ``count``, as far as they are kept, and the total number of points."""
        with self._lock:
            new = min(self._count - count, len(self._points))
            return list(self._points)[len(self._points) - new :], self._count


def _rounded(decibels: float | None) -> float | None:
    return None if decibels is None else round(decibels, 2)
