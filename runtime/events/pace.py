"""Decides whether the motion between new pictures is in proportion to time, or the same for each picture."""

from __future__ import annotations

import math
from collections import deque

_MEMORY = 24  # new pictures
_FADE = 0.985
_WHOLE = 0.3  # intervals: a time this near to a whole number of intervals is rounded to it
_PRIOR = 0.5 * math.log(2) ** 2  # weight of the prior, which favours time
# Exponent with which the change grows over time: above _TIME motion follows time, below _PICTURE it follows pictures.
_TIME, _PICTURE = 0.32, 0.22
_FAR = math.log(4.5)  # logarithm: spans whose ratio is larger are not compared


class Pace:
    """Whether the motion between new pictures follows time, or is the same for each picture.

    If a camera skips frames, the scene moves on meanwhile: motion follows time. If a film shows each frame two or three
    times, it moves by the same amount from each picture to the next: motion follows pictures. To tell them
    apart: does a longer time between new pictures come with a larger difference? (Least squares on logarithms.)
    """

    def __init__(self) -> None:
        self.by_time = True
        self._spans: deque[float] = deque(maxlen=_MEMORY)
        self._before: tuple[float, float] | None = None  # logarithms: seconds, grey levels
        self._shared, self._squared = _PRIOR * 0.6, _PRIOR

    def see(self, span: float, interval: float, change: float) -> float:
        """Add a new picture, which came ``span`` seconds after the last new one and differs by ``change`` grey levels.

        Returns: the seconds of motion between them.
        """
        count = round(span / interval) if interval > 0 else 0
        if count and abs(span / interval - count) < _WHOLE:
            span = count * interval
        here = math.log(max(span, 1e-6)), math.log(change + 0.1)
        if self._before is not None and abs(x := here[0] - self._before[0]) < _FAR:
            self._shared = _FADE * self._shared + x * (here[1] - self._before[1])
            self._squared = _FADE * self._squared + x * x
            power = self._shared / self._squared
            self.by_time = power > (_PICTURE if self.by_time else _TIME)
        self._before = here
        self._spans.append(span)
        return self.motion(span, 1)

    def pause(self) -> None:
        """Record a break, so that the next picture is not compared with the last one."""
        self._before = None

    def motion(self, seconds: float, pictures: float) -> float:
        """Seconds of motion in ``pictures`` new pictures: ``seconds`` if motion follows time, else their usual span."""
        if self.by_time or not self._spans:
            return seconds
        return pictures * sum(self._spans) / len(self._spans)
