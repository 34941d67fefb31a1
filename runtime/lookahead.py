"""How far ahead to predict: a fixed time, a number of camera frames, or the measured latency of the picture.

To show the present, the lookahead must cover the whole latency: the frame's age when it was grabbed, the wait in the
queue, the step, rendering, hand-over and display. When the moment to show is chosen, the first three have passed and
are known. The time for rendering and hand-over is estimated from the last pictures. The caller gives the display's.
"""

from __future__ import annotations

from dataclasses import dataclass

from framecast.errors import OptionError

LONGEST = 10.0  # seconds: the longest lookahead
MAX_AHEAD = 1.0  # seconds, by default
SHARE = 0.1  # weight of the newest duration in the running mean that estimates the next


@dataclass(frozen=True)
class Lookahead:
    """The lookahead that the caller asks for: ``frames``, ``seconds`` or ``now`` (default: one frame).

    Attributes:
        frames: a number of camera intervals.
        seconds: a fixed time.
        now: as long as the measured latency.
        camera_delay: for ``now``: seconds from the moment in front of the lens to the frame's time. 0 if the source
            gives capture times.
        display_delay: for ``now``: seconds from the hand-over until the screen shows the picture.
        most: for ``now``: the longest lookahead in seconds.

    Raises:
        OptionError: a value is out of range, or two exclude each other.
    """

    frames: int | None = None
    seconds: float | None = None
    now: bool = False
    camera_delay: float = 0.0
    display_delay: float = 0.0
    most: float = MAX_AHEAD

    def __post_init__(self) -> None:
        if (self.frames is not None) + (self.seconds is not None) + self.now > 1:
            raise OptionError("now, ahead and horizon exclude each other: give one of them")
        if self.frames is not None and self.frames < 1:
            raise OptionError(f"the horizon must be at least 1, not {self.frames}")
        if self.seconds is not None and not 0 < self.seconds <= LONGEST:
            raise OptionError(f"ahead must be above 0 and at most {LONGEST:g} s, not {self.seconds:g} s")
        for name, value in (("camera delay", self.camera_delay), ("display delay", self.display_delay)):
            if not 0 <= value <= LONGEST:
                raise OptionError(f"the {name} must be 0 to {LONGEST:g} s, not {value:g} s")
            if value and not self.now:
                raise OptionError(f"the {name} has no effect without 'now': add 'now', or leave it out")
        if not 0 < self.most <= LONGEST:
            raise OptionError(f"the longest lookahead must be above 0 and at most {LONGEST:g} s, not {self.most:g} s")


class Horizon:
    """Turns a :class:`Lookahead` into seconds, picture by picture.

    Attributes:
        wanted: the lookahead asked for, or needed to show the present, at the newest picture. It may exceed ``most``.
    """

    def __init__(self, wish: Lookahead) -> None:
        self.wish = wish
        self.wanted = 0.0
        self._rest = 0.0  # estimated seconds from the choice of the moment to the hand-over

    def ahead(self, age: float | None, interval: float) -> float:
        """Seconds from the newest frame's time to the moment to show.

        Args:
            age: seconds since the newest frame's time, or None if that time is on no clock (a file at full speed).
            interval: the camera's interval in seconds.
        """
        wish = self.wish
        if not wish.now:
            self.wanted = wish.seconds if wish.seconds is not None else (wish.frames or 1) * interval
            return self.wanted
        # The time of a frame that comes early may lie in the future, so its age may be below 0.
        self.wanted = max(0.0, wish.camera_delay + (age or 0.0) + self._rest + wish.display_delay)
        return min(self.wanted, wish.most)

    def took(self, seconds: float) -> None:
        """Record how long it took from the choice of a moment to the hand-over."""
        self._rest += (seconds - self._rest) * (SHARE if self._rest else 1.0)

    def error(self, ahead: float, age: float) -> float:
        """Seconds from the present to the moment shown, below 0 if that lies in the past. ``age``: at the hand-over."""
        return ahead - self.late(age)

    def late(self, age: float) -> float:
        """Latency of the camera's picture when it is seen, in seconds. ``age``: at the hand-over."""
        return self.wish.camera_delay + age + self.wish.display_delay
