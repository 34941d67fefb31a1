"""When a camera took its frames: their arrivals are late by turns, but a camera's own interval is steady.

A frame's arrival is its capture plus a delay that wanders: a network's, a decoder's, a busy machine's. A phase-locked
loop of second order (Gardner, *Phaselock Techniques*, chapter 2) follows the camera: it predicts each frame's time from
the last one's and the interval, and corrects both by a share of the difference. The share falls as in a straight line's
least squares fit to all frames so far, until a minute is averaged over. So a clock that drifts is still followed.
"""

from __future__ import annotations

import statistics
from collections import deque

RECENT = 8  # arrivals: a change must show in all of them before it counts as one
MEMORY = 1500  # arrivals that the estimate averages over: a minute at 25 frames a second
PRIOR = 250  # arrivals that a nominal interval is worth, if the first ones agree with it
JUMP = 0.6  # intervals: an arrival that is off by so much, and by more than jitter, means frames lost on the way
UNUSUAL = 4.0  # median deviations: more than jitter
PACE = 0.2  # share: an interval that differs by so much from the estimate means another pace
GAP = 1.0  # seconds without a frame: the stream begins anew
LEAST = 1e-4  # seconds: no camera is faster


class Arrivals:
    """Estimates when each frame of a live source was due, and the camera's interval. Feed it every frame, taken or not.

    Args:
        interval: nominal seconds between frames, if known. It is believed only if the frames agree.

    Attributes:
        interval: seconds between frames, as estimated; None until known.
    """

    def __init__(self, interval: float | None = None) -> None:
        self.interval = interval
        self._nominal = interval
        self._arrived: deque[float] = deque(maxlen=4 * RECENT)
        self._late: deque[float] = deque(maxlen=2 * RECENT)
        self._begin(None)

    def _begin(self, time: float | None, count: int = 0) -> None:
        """Begin anew at a frame's time, with so many frames that the estimates rest on."""
        self._time = time
        self._count = self._known = count  # of the phase, and of the interval
        self._late.clear()

    def see(self, arrived: float) -> float:
        """Return a frame's time, freed of jitter: seconds on the same clock, later than the frame before."""
        before = self._time
        if before is None or arrived - self._arrived[-1] > max(GAP, 3 * (self.interval or 0.0)):
            self._arrived.clear()
            self._arrived.append(arrived)
            self._begin(arrived if before is None else max(arrived, before + LEAST))
            return self._time or arrived
        self._arrived.append(arrived)
        self._settle()
        interval = self.interval or LEAST
        expected = (self._time or before) + interval
        expected += self._slip(arrived - expected, interval)
        late = max(-interval, min(arrived - expected, interval))
        self._late.append(late)
        self._count, self._known = min(self._count + 1, MEMORY), min(self._known + 1, MEMORY)
        self.interval = max(interval + late * 6 / ((self._known + 1) * (self._known + 2)), LEAST)
        n = self._count
        share = 2 * (2 * n + 1) / ((n + 1) * (n + 2)) if self._known == n else 2 / (n + 1)
        self._time = max(expected + min(share, 1.0) * late, before + LEAST)
        return self._time

    def _settle(self) -> None:
        """Begin with the nominal interval, or with the one that the frames have; and begin anew at another pace."""
        times = list(self._arrived)
        if self.interval is None:
            self.interval = max(times[1] - times[0], LEAST)
        if len(times) <= RECENT:
            return
        newest = [after - before for before, after in zip(times[-RECENT - 1 :], times[-RECENT:], strict=False)]
        if len(times) == RECENT + 1 and self._count < RECENT:
            usual, mean = statistics.median(newest), sum(newest) / RECENT
            if self._nominal is not None and min(abs(x / self._nominal - 1) for x in (usual, mean)) < PACE / 2:
                self.interval, self._known = self._nominal, PRIOR
            elif abs(usual / self.interval - 1) > PACE / 2:
                self._change(usual, times[-1])
            return
        pace = statistics.median(newest)
        if max(newest) - min(newest) > PACE * pace:
            if len(times) < 4 * RECENT:
                return
            # Over two frames, so that frames that come in pairs have the pace of the pairs.
            pace = statistics.median((after - before) / 2 for before, after in zip(times, times[2:], strict=False))
        if abs(pace / self.interval - 1) > PACE:
            self._change(pace, times[-1])

    def _change(self, interval: float, arrived: float) -> None:
        self.interval = max(interval, LEAST)
        self._begin(arrived - self.interval, RECENT)

    def _slip(self, late: float, interval: float) -> float:
        """Seconds of the frames that were lost before this one came; below 0 if the last ones were only late."""
        if len(self._late) < RECENT // 2:
            return 0.0
        jitter = statistics.median(map(abs, self._late))
        if abs(late) > max(JUMP * interval, UNUSUAL * jitter):
            return interval * round(late / interval)
        if len(self._late) == 2 * RECENT:  # in spite of jitter, all of the last few are later than those before
            before, since = list(self._late)[:RECENT], list(self._late)[RECENT:]
            if min(since) - statistics.median(before) > JUMP * interval:
                self._late.clear()
                return interval * round((statistics.median(since) - statistics.median(before)) / interval)
        return 0.0
