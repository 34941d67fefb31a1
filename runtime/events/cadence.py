"""Which arrivals of a stream bring a new picture, and whether that follows a pattern."""

from __future__ import annotations

import math

_MEMORY = 96  # arrivals
_LONGEST = 32  # arrivals: the longest sequence compared
_TWICE = 12  # arrivals: shorter sequences must have been seen twice
_RECENT = 6  # occurrences of a pattern that are asked what came next
_SURE = 0.95  # how often a cadence is right, once it is one
_LOCK, _UNLOCK = 4.0, 1.0  # logarithm of the odds of a cadence against chance
_ODDS = (-2.0, 6.0)  # their bounds: how fast a cadence can be given up, and found again
_RUNS = 6  # repeats in a row that are told apart
_FADE = 0.97
# (new, repeat) after 0, 1, 2, … repeats in a row, before anything was seen: a stream repeats now and then, and one that
# has repeated three times has stopped.
_PRIOR = ((2.0, 0.1), (0.6, 0.4), (0.4, 0.6), (0.1, 1.0), (0.1, 1.0), (0.1, 1.0), (0.1, 1.0))


class Cadence:
    """The pattern of new pictures and repeats in one stream.

    What comes next is what came most often after the longest sequence that has been seen before. The pattern is
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
        self._still = False
        self._odds = _ODDS[0] / 2
        self._after = [list(pair) for pair in _PRIOR]
        self._coming: list[bool] = []

    @property
    def repeats(self) -> float:
        """The share of repeats in the last arrivals."""
        return self._bits.count(0) / len(self._bits) if self._bits else 0.0

    def see(self, new: bool) -> None:
        """Take what the newest arrival was.

        More repeats in a row than ever before a new picture are no pattern: the scene stands still. A pattern that is
        trusted then goes on unseen, and only the first such arrival counts against it.
        """
        forecast = _next(self._bits)
        stopped = not new and self.run >= self._longest_run
        still = stopped and self.locked and forecast is True
        if forecast is not None and (not stopped or (still and not self._still)):
            chance = (self._bits.count(new) + 1) / (len(self._bits) + 2)
            self._odds += math.log((_SURE if forecast == new else 1 - _SURE) / chance)
            self._odds = min(max(self._odds, _ODDS[0]), _ODDS[1])
            self.locked = self._odds > (_UNLOCK if self.locked else _LOCK) and 0 in self._bits
        after = self._after[min(self.run, _RUNS)]
        after[:] = after[0] * _FADE + new, after[1] * _FADE + (not new)
        self._still = still or (self._still and not new)
        self._bits = (self._bits + bytes([new or still]))[-_MEMORY:]
        self.run = 0 if new else self.run + 1
        self._coming = []

    @property
    def _longest_run(self) -> int:
        """The most repeats in a row that a new picture followed."""
        return max(map(len, self._bits.split(b"\1")[:-1]), default=0)

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
    """What followed the longest ending of ``bits`` that was there before; None if there is none."""
    for length in range(min(_LONGEST, len(bits) // 2), 0, -1):
        ending, end = bits[-length:], len(bits) - 1
        votes: list[int] = []
        while len(votes) < _RECENT and (at := bits.rfind(ending, 0, end)) >= 0:
            votes.append(bits[at + length])
            end = at + length - 1
        if len(votes) >= (1 if length >= _TWICE else 2):
            return 2 * sum(votes) > len(votes) or (2 * sum(votes) == len(votes) and votes[0] == 1)
    return None
