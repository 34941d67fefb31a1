"""Concealment: predictions in place of frames that are late or lost."""

from __future__ import annotations

import math

import cv2

from framecast.camera import Image
from framecast.errors import OptionError

LATE = 0.5  # intervals: a frame that is later than this is concealed
HELD = 0.25  # share of the time for which predictions are shown as they are; then they fade (benchmarks/conceal.py)
LONGEST = 10.0  # seconds
KNOWN = 16  # frames of a stream after which its interval is known; frames may come in a burst at first
_ROUNDED = 0.1  # intervals: the interval is an estimate


def check_conceal(limit: float | None) -> None:
    """Check how long to conceal, in seconds, if it is given.

    Raises:
        OptionError: it is out of range.
    """
    if limit is not None and not 0 < limit <= LONGEST:
        raise OptionError(f"conceal must be above 0 and at most {LONGEST:g} s, not {limit:g} s")


class Concealment:
    """Decides when a missing frame is concealed, and how far its picture has faded to the last real frame.

    Concealed pictures keep the camera's cadence. For the first quarter of the limit they are predictions; then they
    fade to the last real frame. The first one after the limit is that frame itself, and the last.

    Args:
        limit: seconds after the newest frame; None never conceals.
    """

    def __init__(self, limit: float | None) -> None:
        check_conceal(limit)
        self._limit = limit
        self._begun = self._interval = 0.0
        self._count = 0  # missing frames so far
        self._frames = 0  # of the stream
        self._last = 0  # the number of the last one that a prediction stands for

    def restart(self) -> None:
        """Begin a new stream, whose pace is not known yet."""
        self._frames = 0

    def begin(self, moment: float, interval: float) -> None:
        """Take note of a real frame.

        Args:
            moment: when it was handed over, or was expected if it came early, in seconds.
            interval: seconds until the next one is due.
        """
        self._begun, self._interval, self._count = moment, interval, 0
        self._frames += 1
        known = self._limit is not None and self._frames >= KNOWN and interval > 0
        self._last = math.floor((self._limit or 0.0) / interval + _ROUNDED) if known else 0

    @property
    def due(self) -> float:
        """When the next missing frame is concealed, in seconds; infinite if it is not."""
        if not self.lasts or self.over:
            return math.inf
        return self._begun + (self._count + 1 + LATE) * self._interval

    @property
    def lasts(self) -> bool:
        """Whether a missing frame will be concealed: the interval is known, and not longer than the limit."""
        return self._last > 0

    @property
    def active(self) -> bool:
        """Whether frames are missing now."""
        return self._count > 0

    @property
    def over(self) -> bool:
        """Whether the last picture has been shown: the newest real frame, after the limit."""
        return self._count > self._last

    def next(self, now: float) -> float:
        """Conceal the frame that is missing at ``now`` (seconds); frames whose turn has passed are left out.

        Returns:
            Seconds from the newest real frame to the missing one.
        """
        passed = math.floor((now - self._begun) / self._interval - LATE + 1e-6)
        self._count = min(max(self._count + 1, passed), self._last + 1)
        return self._count * self._interval

    def finish(self) -> None:
        """End early: the next picture is the last real frame."""
        self._last = min(self._last, max(self._count, 1))

    def faded(self, prediction: Image, still: Image, elapsed: float) -> Image:
        """The picture to show.

        Args:
            prediction: of the missing frame, uint8 [h, w, 3].
            still: the newest real frame, in the same size.
            elapsed: seconds from the real frame to the missing one.
        """
        end = (self._last + 1) * self._interval
        weight = min(1.0, max(0.0, (end - elapsed) / ((1 - HELD) * end)))
        return cv2.addWeighted(prediction, weight, still, 1 - weight, 0.0)  # type: ignore[return-value]
