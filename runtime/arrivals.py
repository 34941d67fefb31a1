"""When a camera took its frames: their arrivals are late by turns, but a camera's own interval is steady.

A frame's arrival is its capture plus a delay that wanders: a network's, a decoder's, a busy machine's. A straight line
is fitted to all arrivals by least squares, older ones counting less and less, so that a clock that drifts is followed.
The fit is recursive: a Kalman filter (Kalman, "A new approach to linear filtering and prediction problems", 1960) of
the newest frame's time and the interval.

Frames that are lost on the way shift all later ones by whole intervals. Where jitter is small the next arrival shows
it; where it is larger, the mean of several does; beyond about half an interval nothing does, and the interval follows
what comes.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

GAP = 1.0  # seconds without a frame: the stream begins anew
LEAST = 1e-4  # seconds: no camera is faster

# Times and shares of the interval, unless another unit is named.
KEEP = 0.9987  # what an arrival counts one frame later: half a minute at 25 frames a second
JITTER = 0.25  # standard deviation of arrivals, until it is measured
LEAST_JITTER = 0.01
MEASURED = 0.02  # of the newest difference in the measured jitter
OUTLIER = 3.0  # standard deviations: a difference counts for no more

SETTLED = 16  # arrivals: enough to tell the pace and to look for lost frames
BURST = 1.6  # a pace so many times as fast as the mean is that within bursts
STEADY = 0.1  # spread of the arrivals' pace: below, it is known well
FINE, NEAR, OTHER = 0.05, 0.1, 0.2  # differences from the pace: of a steady one, of any, and of another pace
TRIED = 128  # arrivals: enough to believe a nominal interval, or not
AGREED = 0.025  # difference from it: a slow wander makes as much
NOMINAL = 0.00015  # standard deviation of a nominal interval that the frames agree with: a crystal's
SLOW = 0.5  # jitter to reckon with beside a nominal interval, as a delay may wander slowly

MOST = 64  # arrivals that a search for lost frames averages, on each side
SMALL = 0.18  # jitter: below, each arrival is looked at alone
CERTAIN = 0.1  # standard deviation of a mean that tells of lost frames
LOST = 0.65  # step of such a mean that means frames lost
STALL = 1.5  # a longer step needs a second arrival that agrees
ASTRAY, LATELY = 1.5, 32  # so late on average, over so many arrivals: the line is wrong


class Arrivals:
    """Estimates when each frame of a live source was due, and the camera's interval. Feed it every frame, taken or not.

    A time is late by the mean delay: arrivals alone do not tell that.

    Args:
        interval: nominal seconds between frames, if known. It is believed only if the frames agree.

    Attributes:
        interval: seconds between frames, as estimated; None until known.
    """

    def __init__(self, interval: float | None = None) -> None:
        self.interval = interval
        self._nominal = interval
        self._given: float | None = None  # the newest time that was returned
        self._arrived: deque[float] = deque(maxlen=32)
        self._late: deque[float] = deque(maxlen=2 * MOST)  # behind the line
        self._jumps: deque[float] = deque(maxlen=2 * MOST)  # sizes of differences between successive ones
        self._line = _Line(0.0, LEAST, FINE)
        self._count = 0  # arrivals on this line
        self._lost = 0  # frames on this line
        self._newest = 0.0  # how late the newest arrival was
        self._strange = 0  # how often in turn the pace was another one
        self._fresh = True  # whether the interval is not known yet

    def see(self, arrived: float) -> float:
        """Return a frame's time, freed of jitter: seconds on the same clock, later than the frame before."""
        before, interval = self._given, self._line.step
        if before is None or arrived - self._arrived[-1] > max(GAP, 3 * (self.interval or 0.0)):
            self._fresh = self._count < SETTLED
            self._arrived.clear()
            self._arrived.append(arrived)
            self._begin(arrived, LEAST if self._fresh else interval, FINE, 1)
        else:
            self._arrived.append(arrived)
            self._count += 1
            if self._count == 2 and self._fresh:
                self._line = _Line.through(self._arrived[0], arrived)
            elif self._follow(arrived) and self._count > SETTLED:
                self._check(arrived)
            if self._fresh and self._count in (SETTLED, 2 * SETTLED, 4 * SETTLED):
                self._settle(arrived)
            if self._count == TRIED and self._nominal and abs(self._line.step / self._nominal - 1) < AGREED:
                self._line.believe(self._nominal)
            self.interval = self._known()
        self._given = self._line.time if before is None else max(self._line.time, before + LEAST)
        return self._given

    def _known(self) -> float:
        """The interval. Of the first few arrivals a nominal one tells more, unless it is far off."""
        if self._nominal is None or self._count >= SETTLED or abs(self._pace()[0] / self._nominal - 1) > 0.5:
            return self._line.step
        return self._nominal

    def _begin(self, time: float, interval: float, share: float, count: int) -> None:
        """Begin anew at a frame's time; the interval is known to within a share of it."""
        self._line = _Line(time, max(interval, LEAST), share)
        self._late.clear()
        self._jumps.clear()
        self._count, self._strange, self._lost, self._newest = count, 0, 0, 0.0

    def _follow(self, arrived: float) -> bool:
        """Take an arrival into the line, unless it comes after a stall."""
        line = self._line
        line.foresee()
        late, before = arrived - line.time, self._newest
        slip = self._slip(late)
        self._newest = late
        # A long wait may end in a burst, whose frames are each less late than the one before: then nothing was lost.
        if abs(slip) > STALL * line.step and abs(late - before) > line.step / 2:
            return False
        line.time += slip
        self._lost += round(slip / line.step)
        self._newest -= slip
        self._jumps.append(abs(self._newest - before))
        self._late.append(self._newest)
        line.correct(self._newest)
        return True

    def _pace(self) -> tuple[float, bool]:
        """Seconds that a frame takes, of the last arrivals, and whether that is steady enough to be known well.

        Over the fewest frames for which it is steady: frames may come in pairs, or with jitter.
        """
        times, pace = [*self._arrived], 0.0
        mean = (times[-1] - times[0]) / max(len(times) - 1, 1)
        for lag in (1, 2, 4, 8):
            taken = [(after - before) / lag for before, after in zip(times, times[lag:], strict=False)]
            if not taken:
                break
            pace = statistics.median(taken)
            apart = sorted(abs(one - pace) for one in taken)[3 * len(taken) // 4]
            if apart < STEADY * pace and pace * BURST > mean:
                return pace, True
        return (mean if pace * BURST < mean else pace), False

    def _settle(self, arrived: float) -> None:
        """Correct the line by the pace of the first arrivals, as frames may be lost among them."""
        pace, steady = self._pace()
        if self._nominal is not None and abs(pace / self._nominal - 1) < NEAR:
            pace, steady = self._nominal, True
        if abs(pace / self._line.step - 1) > (FINE if steady else NEAR):
            self._begin(arrived, pace, FINE, self._count)

    def _check(self, arrived: float) -> None:
        """Begin anew at another pace, and where the line has gone astray."""
        recent = [after - before for before, after in zip([*self._arrived][-9:], [*self._arrived][-8:], strict=False)]
        pace = statistics.median(recent)
        needed = 3
        if max(recent) - min(recent) > OTHER * pace:  # then only a lasting difference counts
            if len(self._arrived) < LATELY or self._count % 8:
                return
            (pace, _), needed = self._pace(), 4
        self._strange = self._strange + 1 if abs(pace / self._line.step - 1) > OTHER else 0
        if self._strange >= needed:
            self._begin(arrived, pace, FINE, SETTLED)
            self._fresh = False
        elif len(self._late) >= LATELY:
            mean = statistics.fmean([*self._late][-LATELY:])
            if abs(mean) > ASTRAY * self._line.step:
                self._line.doubt(mean)
                self._late.clear()

    def _slip(self, late: float) -> float:
        """Seconds of the frames that were lost before this one came; below 0 if a former loss was none."""
        step = self._line.step
        if self._count <= SETTLED or not self._late:
            return 0.0
        # Four of five successive differences of a normal distribution are below 1.81 of its standard deviations.
        jitter = sorted(self._jumps)[4 * len(self._jumps) // 5] / 1.81
        least = 1 if jitter < SMALL * step else math.ceil((jitter / (CERTAIN * step)) ** 2)
        lates = [*self._late, late]
        for count in (least, 2 * least, 4 * least):
            before = max(count, 4)
            if count > MOST or len(lates) < count + before:
                break
            mean = statistics.median if count <= 4 else statistics.fmean  # of few, one must not decide
            shift = mean(lates[-count:]) - mean(lates[-count - before : -count])
            if abs(shift) > LOST * step and abs(_beyond_trend(lates, count)) < LOST * step:
                continue  # the delay wanders: frames are lost from one arrival to the next
            if abs(shift) > LOST * step and self._lost + round(shift / step) >= 0:  # none can be gained
                slip = step * round(shift / step)
                if count > 1 and abs(slip) <= STALL * step:
                    for i in range(1, count):
                        self._late[-i] -= slip
                return slip
        return 0.0


def _beyond_trend(lates: Sequence[float], count: int) -> float:
    """By how much the last ``count`` values exceed, on average, the straight line through those before."""
    before = lates[-count - max(8, 2 * count) : -count]
    if len(before) < 3:
        return math.inf
    middle = (len(before) - 1) / 2
    slope = sum((i - middle) * value for i, value in enumerate(before)) / sum(
        (i - middle) ** 2 for i in range(len(before))
    )
    return statistics.fmean(lates[-count:]) - statistics.fmean(before) - slope * (middle + (count + 1) / 2)


class _Line:
    """The time of the newest frame and the interval, with their covariances in the unit of the jitter's variance."""

    def __init__(self, time: float, step: float, share: float) -> None:
        """Begin at an arrival; the interval is known to within a share of it, one standard deviation."""
        self.time, self.step = time, step
        self._noise = (JITTER * step) ** 2  # variance of arrivals
        self._tt, self._ts, self._ss = 1.0, 0.0, (share / JITTER) ** 2
        self._count = 0
        self._believed = False

    @classmethod
    def through(cls, first: float, second: float) -> _Line:
        """The line through the first two arrivals."""
        line = cls(second, max(second - first, LEAST), 0.0)
        line._ts, line._ss = 1.0, 2.0
        return line

    def believe(self, step: float) -> None:
        """Take a nominal interval for true."""
        self.step, self._believed = step, True
        self._ts, self._ss = 0.0, self._least()

    def doubt(self, late: float) -> None:
        """Move the line by what it is late (seconds), and learn the interval anew."""
        self.time += late
        self._believed = False
        self._tt, self._ts, self._ss = ((share * self.step) ** 2 / self._noise for share in (0.5, 0.0, FINE))

    def foresee(self) -> None:
        """Go on to the next frame."""
        self.time += self.step
        fade = KEEP**-2
        self._tt, self._ts = fade * (self._tt + 2 * self._ts + self._ss), fade * (self._ts + self._ss)
        self._ss *= fade
        if self._believed and self._ss > (least := self._least()):  # a crystal does not fade
            self._ts *= math.sqrt(least / self._ss)
            self._ss = least

    def correct(self, late: float) -> None:
        """Take the newest frame's arrival: so many seconds behind the line."""
        bound = max(OUTLIER * math.sqrt(self._noise * (1 + self._tt)), self.step)
        late = max(-bound, min(late, bound))
        self._count += 1
        seen = max(late * late / (1 + self._tt), (LEAST_JITTER * self.step) ** 2)
        self._noise += max(MEASURED, 1 / (self._count + 4)) * (seen - self._noise)
        of_time, of_step = self._tt / (self._tt + 1), self._ts / (self._tt + 1)
        self.time += of_time * late
        self.step = max(self.step + of_step * late, LEAST)
        self._ss -= of_step * self._ts
        self._ts *= 1 - of_time
        self._tt *= 1 - of_time

    def _least(self) -> float:
        """Variance of a believed interval."""
        return (NOMINAL * self.step) ** 2 / max(self._noise, (SLOW * self.step) ** 2)
