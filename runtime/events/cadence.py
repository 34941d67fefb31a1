"""Finds the pattern of new pictures and repeats in a stream's arrivals, if there is one."""

from __future__ import annotations

import math

_MEMORY = 96  # arrivals
_LONGEST = 32  # arrivals: the longest sequence compared
_TWICE = 12  # arrivals: a shorter sequence must have occurred twice before
_RECENT = 6  # latest occurrences of a sequence that vote on what comes next
_SURE = 0.95  # share of right forecasts that a real cadence is assumed to give
_LOCK, _UNLOCK = 4.0, 1.0  # log odds of a cadence against chance: trust it above the first, give it up below the second
_ODDS = (-2.0, 6.0)  # bounds of the log odds, so that a cadence can be found and given up quickly
_RUNS = 6  # the most repeats in a row with separate statistics
_FADE = 0.97
# Prior counts of (new, repeat) after 0, 1, 2, … repeats in a row: a stream repeats now and then, and one that has
# repeated three times has probably stopped.
_PRIOR = ((2.0, 0.1), (0.6, 0.4), (0.4, 0.6), (0.1, 1.0), (0.1, 1.0), (0.1, 1.0), (0.1, 1.0))


class Cadence:
    """The pattern of new pictures and repeats in one stream.

    To forecast, take the longest sequence of newest arrivals that has occurred before, and what most often followed
    it. The pattern is trusted (``locked``) once its forecasts are right more often than chance explains at the same
    share of repeats: the log odds are summed over the arrivals (a sequential probability ratio test; Wald, 1945).

    Attributes:
        locked: whether the arrivals follow a pattern that has repeats.
        run: repeats in a row up to the newest arrival.
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
        """Record whether the newest arrival was a new picture.

        If there are more repeats in a row than ever preceded a new picture, the scene stands still. A trusted pattern
        is then assumed to continue unseen, and only the first such arrival counts against it.
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
        """The length of the longest run of repeats that has ended with a new picture."""
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
    """What followed the longest suffix of ``bits`` that occurred before; None if none did."""
    for length in range(min(_LONGEST, len(bits) // 2), 0, -1):
        ending, end = bits[-length:], len(bits) - 1
        votes: list[int] = []
        while len(votes) < _RECENT and (at := bits.rfind(ending, 0, end)) >= 0:
            votes.append(bits[at + length])
            end = at + length - 1
        if len(votes) >= (1 if length >= _TWICE else 2):
            return 2 * sum(votes) > len(votes) or (2 * sum(votes) == len(votes) and votes[0] == 1)
    return None
