"""How far ahead to predict: a fixed time, a number of the camera's frames, or as far as the picture is late.

To show the frame of now, the lookahead must make good the whole lateness of the picture: its age when it was grabbed,
the wait in the queue, the step, the hand-over and the display. The first two and the last are known when a picture is
rendered; the time that rendering and hand-over will take is foreseen from the last few.
"""

from __future__ import annotations

from dataclasses import dataclass

from framecast.errors import OptionError

LONGEST = 10.0  # seconds: no lookahead is longer
MAX_AHEAD = 1.0  # seconds, by default
SHARE = 0.1  # of the newest duration in the mean that foresees the next


@dataclass(frozen=True)
class Lookahead:
    """What the caller asks for. At most one of ``seconds`` and ``now`` is set; else it is ``frames``.

    Attributes:
        frames: intervals of the camera.
        seconds: a fixed time.
        now: make good the lateness, as it is measured.
        camera_delay: seconds from the moment in front of the lens to the frame's time, for ``now``. 0 if the source
            gives capture times.
        display_delay: seconds from the hand-over to the light of the screen, for ``now``.
        most: the longest lookahead in seconds, for ``now``.

    Raises:
        OptionError: a value is out of range, or two contradict each other.
    """

    frames: int | None = None
    seconds: float | None = None
    now: bool = False
    camera_delay: float = 0.0
    display_delay: float = 0.0
    most: float = MAX_AHEAD

    def __post_init__(self) -> None:
        if (self.frames is not None) + (self.seconds is not None) + self.now > 1:
            raise OptionError("now, ahead and horizon each say how far to look ahead: give one of them")
        if self.frames is not None and self.frames < 1:
            raise OptionError(f"the horizon must be at least 1, not {self.frames}")
        if self.seconds is not None and not 0 < self.seconds <= LONGEST:
            raise OptionError(f"ahead must be above 0 and at most {LONGEST:g} s, not {self.seconds:g} s")
        for name, value in (("camera_delay", self.camera_delay), ("display_delay", self.display_delay)):
            if not 0 <= value <= LONGEST:
                raise OptionError(f"{name} must be 0 to {LONGEST:g} s, not {value:g} s")
            if value and not self.now:
                raise OptionError(f"{name} is a part of the lateness that only 'now' makes good: give it together")
        if not 0 < self.most <= LONGEST:
            raise OptionError(f"max_ahead must be above 0 and at most {LONGEST:g} s, not {self.most:g} s")


class Horizon:
    """Turns a :class:`Lookahead` into seconds, picture by picture.

    Attributes:
        wanted: the lookahead that would have made good the lateness, at the newest picture; above ``most`` it is not
            reached.
    """

    def __init__(self, wish: Lookahead) -> None:
        self.wish = wish
        self.wanted = 0.0
        self._rest = 0.0  # seconds from the choice of the moment to the hand-over, as foreseen

    def ahead(self, age: float | None, interval: float) -> float:
        """Seconds from the newest frame's time to the moment to show.

        Args:
            age: seconds since the newest frame's time, or None if that is on no clock (a file at full speed).
            interval: the camera's, in seconds.
        """
        wish = self.wish
        if not wish.now:
            self.wanted = wish.seconds if wish.seconds is not None else (wish.frames or 1) * interval
            return self.wanted
        # A frame that comes early has a time that is yet to come: then its age is below 0.
        self.wanted = max(0.0, wish.camera_delay + (age or 0.0) + self._rest + wish.display_delay)
        return min(self.wanted, wish.most)

    def took(self, seconds: float) -> None:
        """Take note of how long it was from a choice to its hand-over."""
        self._rest += (seconds - self._rest) * (SHARE if self._rest else 1.0)

    def error(self, ahead: float, age: float) -> float:
        """Seconds by which a picture showed too late a moment (below 0: too early), at an age at its hand-over."""
        return ahead - self.late(age)

    def late(self, age: float) -> float:
        """Seconds by which the camera's picture is late when a picture of this age is handed over."""
        return self.wish.camera_delay + age + self.wish.display_delay
