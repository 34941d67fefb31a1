"""Which arrivals of a stream bring a new picture, and whether that follows a pattern."""

from __future__ import annotations

import math

_MEMORY = 96  # arrivals
_LONGEST = 16  # arrivals: the longest pattern compared
_RECENT = 6  # occurrences of a pattern that are asked what came next
_SURE = 0.95  # how often a cadence is right, once it is one
_LOCK, _UNLOCK = 4.0, 1.0  # logarithm of the odds of a cadence against chance
_ODDS = (-2.0, 8.0)  # their bounds: how fast a cadence can be given up, and found again
_RUNS = 6  # repeats in a row that are told apart
_FADE = 0.97
# (new, repeat) after 0, 1, 2, … repeats in a row, before anything was seen: a stream repeats now and then, and one that
# has repeated three times has stopped.
_PRIOR = ((2.0, 0.1), (0.6, 0.4), (0.4, 0.6), (0.1, 1.0), (0.1, 1.0), (0.1, 1.0), (0.1, 1.0))


class Cadence:
    """The pattern of new pictures and repeats in one stream.

    What comes next is what came most often after the longest sequence that has been seen twice before. The pattern is
    trusted (``locked``) where its forecasts are right so often that chance, with the same share of repeats, is
    unlikely: the logarithm of the odds is summed over the arrivals (a sequential probability ratio test; Wald, 1945).

    Attributes:
        locked: whether the arrivals follow a pattern that has repeats.
        run: repeats in a row, up to now.
    """

    def __init__(self) -> None:
        self.locked = False
        self.run = 0
        self._bits = b""  # 1: new, 0: repeat; oldest first
        self._odds = _ODDS[0] / 2
        self._after = [list(pair) for pair in _PRIOR]
        self._coming: list[bool] = []

    @property
    def repeats(self) -> float:
        """The share of repeats in the last arrivals."""
        return self._bits.count(0) / len(self._bits) if self._bits else 0.0

    def see(self, new: bool) -> None:
        """Take what the newest arrival was."""
        if (forecast := _next(self._bits)) is not None:
            seen = len(self._bits)
            chance = ((self._bits.count(1) if new else self._bits.count(0)) + 1) / (seen + 2)
            self._odds += math.log((_SURE if forecast == new else 1 - _SURE) / chance)
            self._odds = min(max(self._odds, _ODDS[0]), _ODDS[1])
            self.locked = self._odds > (_UNLOCK if self.locked else _LOCK) and 0 in self._bits
        after = self._after[min(self.run, _RUNS)]
        after[:] = after[0] * _FADE + new, after[1] * _FADE + (not new)
        self._append(new)

    def coast(self) -> None:
        """Let one arrival pass that tells nothing, as in a scene that stands still: the pattern goes on unseen."""
        self._append(_next(self._bits) is not False)

    def _append(self, new: bool) -> None:
        self._bits = (self._bits + bytes([new]))[-_MEMORY:]
        self.run = 0 if new else self.run + 1
        self._coming = []

    def coming(self, count: int) -> list[bool]:
        """What the pattern expects of the next arrivals: True for a new picture."""
        while len(self._coming) < count:
            ahead = (self._bits + bytes(self._coming))[-_MEMORY:]
            self._coming.append(_next(ahead) is not False)
        return self._coming[:count]

    def wait(self) -> int | None:
        """Without a pattern: arrivals until a new picture is likelier than not; None if the stream has stopped."""
        none = 1.0
        for arrivals in range(1, _RUNS + 1):
            new, repeat = self._after[min(self.run + arrivals - 1, _RUNS)]
            none *= repeat / (new + repeat)
            if none < 0.5:
                return arrivals
        return None


def _next(bits: bytes) -> bool | None:
    """What follows the longest ending of ``bits`` that was there twice before; None if there is none."""
    for length in range(min(_LONGEST, len(bits) // 2), 0, -1):
        ending, end, votes = bits[-length:], len(bits) - 1, []
        while len(votes) < _RECENT and (at := bits.rfind(ending, 0, end)) >= 0:
            votes.append(bits[at + length])
            end = at + length - 1
        if len(votes) >= 2:
            return 2 * sum(votes) > len(votes) or (2 * sum(votes) == len(votes) and votes[0] == 1)
    return None
