"""When to try again what was lost: a camera, or an output."""

from __future__ import annotations

import random

from framecast.clock import Clock

FIRST = 0.1  # seconds: the longest wait before the second attempt; the first is made at once
DOUBLED = 2.0  # how much longer each wait may be than the last
SHARE = 1 / 60  # of the outage so far: no wait is longer,
LEAST, MOST = 1.0, 10.0  # seconds: but this long it may always be, and never longer than that
HEALTHY = 5.0  # seconds of work: what is lost again before is still in the same outage


class Backoff:
    """The waits between attempts.

    They grow with the outage: up to a second in the first minute, up to ten seconds after ten minutes. They are random
    between half and all of that, so that the machines of a site do not try at the same moment. There is no last
    attempt.

    Args:
        clock: measures the outages.
        seed: of the waits' random part (default: another one each time).

    Attributes:
        attempts: made in this outage.
    """

    def __init__(self, clock: Clock, seed: int | None = None) -> None:
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 (no secret)
        self._began = self._opened = clock.now()  # of the outage; since when it has worked
        self.attempts = 0

    @property
    def outage(self) -> float:
        """Seconds since the outage began."""
        return self._clock.now() - self._began

    def opened(self) -> None:
        """Note that it works from now on."""
        self._opened = self._clock.now()

    def lost(self) -> None:
        """Note that it was lost: a new outage, if it had worked for a while."""
        now = self._clock.now()
        if now - self._opened >= HEALTHY:
            self.attempts, self._began = 0, now

    def attempt(self) -> None:
        """Note that an attempt is made."""
        self.attempts += 1

    def pause(self) -> float:
        """Seconds to wait before the next attempt."""
        if not self.attempts:
            return 0.0
        longest = min(MOST, max(LEAST, SHARE * self.outage))
        return self._random.uniform(0.5, 1.0) * min(longest, FIRST * DOUBLED ** min(self.attempts - 1, 30))
