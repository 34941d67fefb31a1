"""Concealment: predictions in place of frames that are late or lost."""

from __future__ import annotations

import math

import cv2

from framecast.camera import Image
from framecast.errors import OptionError

LATE = 0.5  # intervals: a frame that is later than this is concealed
HELD = 0.5  # share of the limit for which predictions are shown as they are; then they fade
LONGEST = 10.0  # seconds
_ROUNDED = 0.1  # intervals: the interval is an estimate


def check_conceal(limit: float | None) -> None:
    """Check how long to conceal, in seconds, if it is given.

    Raises:
        OptionError: it is out of range.
    """
    if limit is not None and not 0 < limit <= LONGEST:
        raise OptionError(f"conceal must be above 0 and at most {LONGEST:g} s, not {limit:g}")


class Concealment:
    """Decides when a missing frame is concealed, and how far its picture has faded to the last real frame.

    Concealed pictures keep the camera's cadence. For the first half of the limit they are predictions; in the second
    half they fade to the last real frame. At the limit they end: the last frame stays, and looks as still as it is.

    Args:
        limit: seconds after the newest frame; None never conceals.
    """

    def __init__(self, limit: float | None) -> None:
        check_conceal(limit)
        self._limit = limit
        self._handed = 0.0
        self._interval = 0.0
        self._count = 0

    def begin(self, handed: float, interval: float) -> None:
        """Take note of a real frame, handed over at ``handed`` (seconds); the next is due an interval later."""
        self._handed, self._interval, self._count = handed, interval, 0

    @property
    def due(self) -> float:
        """When the next missing frame is concealed, in seconds; infinite if it is not."""
        elapsed = (self._count + 1) * self._interval
        if self._limit is None or not self._interval or elapsed > self._limit + _ROUNDED * self._interval:
            return math.inf
        return self._handed + elapsed + LATE * self._interval

    def next(self) -> float:
        """Conceal the next missing frame. Returns the seconds from the newest real frame to its moment."""
        self._count += 1
        return self._count * self._interval

    def faded(self, prediction: Image, still: Image, elapsed: float) -> Image:
        """The picture to show.

        Args:
            prediction: of the missing frame, uint8 [h, w, 3].
            still: the newest real frame, in the same size.
            elapsed: seconds from the real frame to the missing one.
        """
        limit = self._limit or LONGEST
        weight = min(1.0, max(0.0, (limit - elapsed) / ((1 - HELD) * limit)))
        return cv2.addWeighted(prediction, weight, still, 1 - weight, 0.0)  # type: ignore[return-value]
