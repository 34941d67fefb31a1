"""Estimates when a camera took each frame. Arrivals jitter, but a camera's own interval is steady.

A frame arrives at its capture time plus a delay that varies with the network, the decoder and the load. A straight
line is fitted to all arrivals by least squares. Older arrivals count less and less, so the line follows a clock that
drifts. The fit is recursive: a Kalman filter (Kalman, "A new approach to linear filtering and prediction problems",
1960) of the newest frame's time and the interval.

Frames lost on the way shift all later ones by whole intervals. If jitter is small, the next arrival shows the shift. If
it is larger, the mean of several arrivals does. If it exceeds about half an interval, the loss cannot be detected, and
the estimated interval follows the arrivals.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

GAP = 1.0  # seconds without a frame after which the fit restarts
LEAST = 1e-4  # seconds: the shortest interval

# Times are in intervals, and other values are shares, unless a unit is given.
KEEP = 0.9987  # weight of an arrival one frame later: a memory of half a minute at 25 frames a second
JITTER = 0.25  # standard deviation of arrivals, until it is measured
LEAST_JITTER = 0.01
MEASURED = 0.02  # weight of the newest arrival in the measured jitter
OUTLIER = 3.0  # standard deviations: larger differences are clipped

BUFFERED = 64  # arrivals: so many more at the beginning are not taken for frames that waited somewhere
EARLY = 0.5  # of the expected interval: a frame that follows another one sooner had waited
SETTLED = 16  # arrivals needed to measure the pace and to look for lost frames
BURST = 1.6  # if the median interval is this many times shorter than the mean, frames come in bursts
STEADY = 0.1  # spread of the intervals below which the pace is reliable
# Differences in pace that restart the fit:
FINE = 0.05  # among the first arrivals, if their pace is steady
NEAR = 0.1  # among the first arrivals, if it is not
OTHER = 0.2  # later
TRIED = 128  # arrivals after which a nominal interval is accepted or rejected
AGREED = 0.025  # a larger difference from the measured interval rejects it; a slow change of the delay can cause less
NOMINAL = 0.00015  # standard deviation of an accepted nominal interval: a crystal is this exact
SLOW = 0.5  # least jitter assumed with a nominal interval, because a delay may change slowly

MOST = 64  # the most arrivals that the search for lost frames averages, before and after a loss
SMALL = 0.18  # jitter below which the search checks each arrival alone
CERTAIN = 0.1  # standard deviation that a mean needs before it can reveal lost frames
LOST = 0.65  # shift of such a mean that counts as lost frames
STALL = 1.5  # a larger shift must be confirmed by a second arrival
ASTRAY, LATELY = 1.5, 32  # the line is wrong if the mean lateness of the last LATELY arrivals exceeds ASTRAY


class Arrivals:
    """Estimates when each frame of a live source was due, and the camera's interval. Feed it every frame.

    The estimated times still include the mean delay, which arrivals alone cannot reveal.

    Args:
        interval: nominal seconds between frames, if known. It is accepted only if the arrivals agree with it.
        expected: seconds between the frames of the connection before, if known. Frames that come much faster at the
            beginning have waited in a buffer. They are passed on, but the fit begins after them.

    Attributes:
        interval: seconds between frames, as estimated; None until known.
    """

    def __init__(self, interval: float | None = None, *, expected: float | None = None) -> None:
        self.interval = interval
        self._nominal, self._expected = interval, expected
        self._waiting, self._buffered = True, 0  # whether all arrivals so far have waited in a buffer; how many
        self._given: float | None = None  # the newest time that was returned
        self._arrived: deque[float] = deque(maxlen=32)
        self._late: deque[float] = deque(maxlen=2 * MOST)  # seconds behind the line
        self._jumps: deque[float] = deque(maxlen=2 * MOST)  # absolute differences between successive values of _late
        self._line = _Line(0.0, LEAST, FINE)
        self._count = 0  # arrivals since the fit started
        self._lost = 0  # frames lost since the fit started
        self._newest = 0.0  # how late the newest arrival was
        self._strange = 0  # successive checks that found another pace
        self._fresh = True  # whether the interval is still unknown

    def see(self, arrived: float, *, stamped: bool = False) -> float:
        """Add an arrival. Returns the frame's time without jitter: seconds on the same clock, always increasing.

        Args:
            arrived: when the frame arrived, in seconds.
            stamped: whether that is the camera's own stamp: after a long wait, frames were then lost, not late.
        """
        before, interval = self._given, self._line.step
        if before is None or arrived - self._arrived[-1] > max(GAP, 3 * (self.interval or 0.0)):
            self._fresh = self._count < SETTLED
            self._arrived.clear()
            self._arrived.append(arrived)
            self._begin(arrived, LEAST if self._fresh else interval, FINE, 1)
        elif self._waited(arrived):
            self._arrived.clear()
            self._arrived.append(arrived)
            self._begin(arrived, LEAST, FINE, 1)
            self.interval = self._expected
        else:
            self._arrived.append(arrived)
            self._count += 1
            if self._count == 2 and self._fresh:
                self._line = _Line.through(self._arrived[0], arrived)
            elif self._follow(arrived, stamped) and self._count > SETTLED:
                self._check(arrived)
            if self._fresh and self._count in (SETTLED, 2 * SETTLED, 4 * SETTLED):
                self._settle(arrived)
            if self._count == TRIED and self._nominal and abs(self._line.step / self._nominal - 1) < AGREED:
                self._line.believe(self._nominal)
            self.interval = self._known()
        self._given = self._line.time if before is None else max(self._line.time, before + LEAST)
        return self._given

    @property
    def learned(self) -> float | None:
        """Seconds between frames if that is certain enough for :attr:`expected` of the next connection, else None."""
        return self.interval if self._count >= SETTLED or not self._fresh else self._expected

    def _waited(self, arrived: float) -> bool:
        """Whether the frames so far had waited in a buffer. The one after the last of them comes too soon as well."""
        if self._expected is None or not self._waiting:
            return False
        early = arrived - self._arrived[-1] < EARLY * self._expected
        self._waiting = early and self._buffered < BUFFERED
        if not early:
            return self._buffered > 0
        self._buffered += 1
        return self._waiting

    def _known(self) -> float:
        """The interval: for the first few arrivals the nominal one, unless it is far off; then the estimate."""
        if self._nominal is None or self._count >= SETTLED or abs(self._pace()[0] / self._nominal - 1) > 0.5:
            return self._line.step
        return self._nominal

    def _begin(self, time: float, interval: float, share: float, count: int) -> None:
        """Restart the fit at a frame's time. ``share`` is the interval's relative standard deviation."""
        self._line = _Line(time, max(interval, LEAST), share)
        self._late.clear()
        self._jumps.clear()
        self._count, self._strange, self._lost, self._newest = count, 0, 0, 0.0

    def _follow(self, arrived: float, stamped: bool) -> bool:
        """Fit an arrival to the line. Returns False if it was left out, because the next one must confirm its shift."""
        line = self._line
        line.foresee()
        late, before = arrived - line.time, self._newest
        slip = self._slip(late)
        self._newest = late
        # A long wait may end in a burst, in which each frame is less late than the one before. Then nothing was lost.
        if not stamped and abs(slip) > STALL * line.step and abs(late - before) > line.step / 2:
            return False
        line.time += slip
        self._lost += round(slip / line.step)
        self._newest -= slip
        self._jumps.append(abs(self._newest - before))
        self._late.append(self._newest)
        line.correct(self._newest)
        return True

    def _pace(self) -> tuple[float, bool]:
        """Seconds per frame over the last arrivals, and whether that figure is reliable.

        It is measured over the fewest frames that make it steady, because frames may come in pairs or with jitter.
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
        """Restart the fit if the first arrivals come at another pace: frames may have been lost among them."""
        pace, steady = self._pace()
        if self._nominal is not None and abs(pace / self._nominal - 1) < NEAR:
            pace, steady = self._nominal, True
        if abs(pace / self._line.step - 1) > (FINE if steady else NEAR):
            self._begin(arrived, pace, FINE, self._count)

    def _check(self, arrived: float) -> None:
        """Restart the fit if the pace has changed. Move the line if arrivals are far from it on average."""
        recent = [after - before for before, after in zip([*self._arrived][-9:], [*self._arrived][-8:], strict=False)]
        pace = statistics.median(recent)
        needed = 3
        if max(recent) - min(recent) > OTHER * pace:  # the pace is noisy, so only a lasting difference counts
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
        """Seconds by which newly lost frames shift this arrival; below 0 if an earlier loss was a false alarm."""
        step = self._line.step
        if self._count <= SETTLED or not self._late:
            return 0.0
        # For normal noise, 80 % of the differences between successive values are below 1.81 standard deviations.
        jitter = sorted(self._jumps)[4 * len(self._jumps) // 5] / 1.81
        least = 1 if jitter < SMALL * step else math.ceil((jitter / (CERTAIN * step)) ** 2)
        lates = [*self._late, late]
        for count in (least, 2 * least, 4 * least):
            before = max(count, 4)
            if count > MOST or len(lates) < count + before:
                break
            mean = statistics.median if count <= 4 else statistics.fmean  # few values need a robust mean
            shift = mean(lates[-count:]) - mean(lates[-count - before : -count])
            if abs(shift) > LOST * step and abs(_beyond_trend(lates, count)) < LOST * step:
                continue  # the delay drifts; lost frames would show as a jump
            if abs(shift) > LOST * step and self._lost + round(shift / step) >= 0:  # the total lost cannot be negative
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
    """The time of the newest frame and the interval, with their covariances in units of the jitter's variance."""

    def __init__(self, time: float, step: float, share: float) -> None:
        """Start at an arrival. ``share`` is the interval's relative standard deviation."""
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
        """Accept a nominal interval."""
        self.step, self._believed = step, True
        self._ts, self._ss = 0.0, self._least()

    def doubt(self, late: float) -> None:
        """Move the line by ``late`` seconds, and learn the interval again."""
        self.time += late
        self._believed = False
        self._tt, self._ts, self._ss = ((share * self.step) ** 2 / self._noise for share in (0.5, 0.0, FINE))

    def foresee(self) -> None:
        """Advance to the next frame."""
        self.time += self.step
        fade = KEEP**-2
        self._tt, self._ts = fade * (self._tt + 2 * self._ts + self._ss), fade * (self._ts + self._ss)
        self._ss *= fade
        if self._believed and self._ss > (least := self._least()):  # keep an accepted interval certain
            self._ts *= math.sqrt(least / self._ss)
            self._ss = least

    def correct(self, late: float) -> None:
        """Correct the estimates by the newest arrival, ``late`` seconds behind the line."""
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
        """Variance of an accepted interval."""
        return (NOMINAL * self.step) ** 2 / max(self._noise, (SLOW * self.step) ** 2)
