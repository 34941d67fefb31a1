"""How far ahead an evaluation looks: in frames, or in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from framecast.errors import OptionError
from framecast.runtime.lookahead import LONGEST

_ROUNDING = 1e-3  # frames: time stamps in a file are rounded, so 2.5 frames may come out slightly more or less


@dataclass(frozen=True)
class Ahead:
    """The moments to predict. They are one axis of all figures.

    A clip has no ground truth between two frames. So each moment is predicted and scored at the nearest frame, as in a
    live run, but never before the next frame.

    Attributes:
        asked: the moments in frames or milliseconds, ascending.
        in_ms: whether they are in milliseconds.
    """

    asked: tuple[float, ...]
    in_ms: bool = False

    @classmethod
    def in_frames(cls, horizon: int) -> Ahead:
        """Every frame, 1 … ``horizon``."""
        return cls(tuple(range(1, horizon + 1)))

    @classmethod
    def in_seconds(cls, asked: Sequence[float]) -> Ahead:
        """Moments in seconds, in any order. The figures state them in milliseconds.

        Raises:
            OptionError: ``asked`` is empty, or a moment is not above 0 and at most 10.
        """
        if not asked or not all(0 < one <= LONGEST for one in asked):
            given = ", ".join(f"{one:g} s" for one in asked) or "nothing"
            raise OptionError(f"ahead must be above 0 and at most {LONGEST:g} s, not {given}")
        return cls(tuple(sorted({round(1e3 * one, 6) for one in asked})), in_ms=True)

    def __len__(self) -> int:
        return len(self.asked)

    def frames(self, interval: float) -> tuple[int, ...]:
        """For each moment, the number of frames ahead to score it at, if frames are ``interval`` seconds apart.

        If two frames are equally near, the earlier one counts.
        """
        exact = (one / 1e3 / interval if self.in_ms else one for one in self.asked)
        return tuple(max(1, math.ceil(steps - 0.5 - _ROUNDING)) for steps in exact)

    @property
    def unit(self) -> str:
        """``ms`` or ``frames``."""
        return "ms" if self.in_ms else "frames"

    def label(self, index: int) -> str:
        """A moment in words, such as ``next frame``, ``3 frames ahead`` or ``100 ms ahead``."""
        if self.in_ms:
            return f"{self.asked[index]:g} ms ahead"
        return "next frame" if self.asked[index] == 1 else f"{self.asked[index]:g} frames ahead"

    @property
    def ends(self) -> tuple[int, ...]:
        """The indices of the first and the last moment; one index if they are the same."""
        return tuple(dict.fromkeys((0, len(self.asked) - 1)))
