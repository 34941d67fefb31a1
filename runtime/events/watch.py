"""Classifies each frame of a stream (new, repeat, cut, gap), and measures the motion between two moments."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from framecast.camera import Image
from framecast.runtime.events.cadence import Cadence
from framecast.runtime.events.flicker import Flicker
from framecast.runtime.events.glance import Change, Grey, compare, glance
from framecast.runtime.events.pace import Pace

Kind = Literal["first", "new", "repeat", "cut", "gap"]

_CHANGES = 12  # arrivals that the usual change is computed from
_START = 4  # arrivals needed to know the usual change
_REPEAT = 0.2  # share of the usual change: an unexpected repeat changes less
_REPEAT_DUE = 0.5  # share of the usual change: an expected repeat changes less
_SUDDEN = 0.5  # share of the newest new picture's change: an unexpected repeat also changes less
_EQUAL = 0.02  # grey levels: a smaller change does not count as one
_DARKER = 0.5  # grey levels: a repeat's brightness may always differ by this much
_STILL = 9  # repeats in a row after which the scene counts as standing still
_CUT_LIKENESS = 0.75  # a cut's correlation with the frame before is lower
_CUT_CHANGE = 1.7  # and a cut's change is more than this many times the largest recent one
_CUT_SPAN = 4.0  # after a longer time a larger change is no cut, up to this factor
# A gap is this many times longer than the longest recent time between frames. After up to 15 lost frames a state that
# goes on predicts better than a new one (benchmarks/conceal.py).
_GAP = 16.0
_SNAP = 0.25  # intervals: a moment this close to a frame's is taken as the frame's


@dataclass(frozen=True, eq=False)
class Event:
    """A classified frame.

    Attributes:
        kind: ``first``; ``new``; ``repeat``: the previous picture again, compression aside; ``cut``: another scene;
            ``gap``: much more time than usual has passed since the last frame.
        image: the picture for the model, uint8 [H, W, 3]: the frame, or the frame without flicker.
        elapsed: seconds of motion since the last new picture; 0 unless the frame is new.
    """

    kind: Kind
    image: Image
    elapsed: float


class Watch:
    """Watches one stream. It is deterministic, its memory is bounded, and a 1280×720 frame takes about 0.5 ms.

    Usage: ``event = watch.see(frame, time, interval)``. On ``first``, ``cut`` and ``gap``, reset the model. Except on
    ``repeat``, advance it by ``event.image`` and ``event.elapsed``. For any later moment, predict ``watch.ahead(time)``
    seconds ahead; if that is 0, the newest ``event.image`` is the prediction, even after a repeat. Pass every picture
    that is shown through :meth:`finish`, which puts the flicker back in.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._before: Grey | None = None
        self._time = self._new_time = 0.0  # times of the newest frame and of the newest new picture
        self._interval = 0.0  # the camera's
        self._spacing = 0.0  # seconds between the frames that arrive here: a whole number of intervals
        self._changes: deque[float] = deque(maxlen=_CHANGES)
        self._gaps: deque[float] = deque(maxlen=5)
        self._newest_change = math.inf  # the newest new picture's change
        self._recalled = False
        self._cadence = Cadence()
        self._pace = Pace()
        self._flicker = Flicker()

    def see(self, image: Image, time: float, interval: float) -> Event:
        """Classify the newest frame.

        Args:
            image: uint8 [H, W, 3] BGR.
            time: seconds, later than the last frame's.
            interval: seconds between the camera's own frames, including those that never arrived here.
        """
        now = glance(image)
        if self._before is not None and self._before.shape != now.shape:
            self.reset()
        before, self._before = self._before, now
        mean, spread = float(now.mean()), float(now.std())
        if before is None:
            self._time = self._new_time = time
            self._newest = now
            self._interval = self._spacing = interval
            self._flicker.see(mean, spread)
            return Event("first", image, 0.0)
        gone = time - self._time
        arrivals = max(1, round(gone / interval)) if interval > 0 else 1
        change = compare(before, now)
        since = change if self._newest is before else compare(self._newest, now)
        kind = self._kind(change, since.most, gone, arrivals, interval)
        self._time, self._interval = time, interval
        self._gaps.append(gone)
        self._spacing = interval * max(1, round(statistics.median(self._gaps) / interval)) if interval > 0 else gone
        self._flicker.see(mean, spread, min(arrivals, 8), cut=kind in ("cut", "gap"))
        elapsed = 0.0
        if kind == "new":
            elapsed = self._pace.see(time - self._new_time, interval, change.overall)
        elif kind in ("cut", "gap"):
            self._pace.pause()
        if kind != "repeat":
            self._new_time, self._newest = time, now
        return Event(kind, self._flicker.take_out(image), elapsed)

    def _kind(self, change: Change, since: float, gone: float, arrivals: int, interval: float) -> Kind:
        """Decide the kind of a frame, and update the statistics. ``since``: the change since the newest new picture."""
        # The second longest, because the longest may be an outlier.
        longest = sorted(self._gaps)[-2:][0] if len(self._gaps) > 1 else interval
        if gone > _GAP * max(longest, interval):
            self._cadence.see(True)
            return "gap"
        usual = self._usual()
        span = (gone + self._time - self._new_time) / self._spacing if self._spacing > 0 else 1.0
        if self._is_cut(change, usual, span):
            self._cadence.see(True)
            return "cut"
        # After a time in which only every third frame came, say, the next one may have moved by a third of the usual.
        share = min(1.0, arrivals * interval / self._spacing) if interval > 0 else 1.0
        repeat = self._is_repeat(change, since, usual * share, self._newest_change * share)
        self._changes.append(change.most)
        self._cadence.see(not repeat)
        if len(self._changes) == _START and self._usual() > 0 and not self._recalled:
            self._recalled = True  # do this only once: later, the cadence knows what follows a standstill
            self._recall()
            repeat = self._cadence.run > 0
        if not repeat:
            self._newest_change = change.most
        return "repeat" if repeat else "new"

    def _usual(self) -> float:
        """The change that a new picture usually brings, in grey levels; 0 while that is unknown."""
        if len(self._changes) < _START:
            return 0.0
        return float(np.quantile(self._changes, 0.8))

    def _is_cut(self, change: Change, usual: float, span: float) -> bool:
        """Whether a change is too large for motion over ``span`` times the usual time between frames."""
        if usual == 0:
            return False
        limit = _CUT_CHANGE * max(self._changes) * min(max(span, 1.0), _CUT_SPAN)
        return change.likeness < _CUT_LIKENESS and change.most > limit

    def _is_repeat(self, change: Change, since: float, usual: float, newest: float) -> bool:
        if change.most < _EQUAL and abs(change.brightness) < _EQUAL:
            return True
        if self._cadence.run >= _STILL:
            self._changes.clear()
            return False
        due = self._cadence.locked and not self._cadence.coming(1)[0]
        limit = (_REPEAT_DUE if due else _REPEAT) * usual
        if not due:  # slowing motion changes a little less each frame, but a repeat changes much less at once
            limit = min(limit, _SUDDEN * newest)
        return max(change.most, since) < limit and abs(change.brightness) < max(limit, _DARKER)

    def _recall(self) -> None:
        """Classify the first frames again, now that the usual change is known. Their pace is forgotten."""
        self._cadence, self._pace = Cadence(), Pace()
        limit = _REPEAT * self._usual()
        *earlier, newest = (not change < limit for change in self._changes)
        for new in earlier:
            self._cadence.see(new)
        self._new_time = self._time - self._cadence.run * self._spacing
        self._cadence.see(newest)

    @property
    def moment(self) -> str:
        """The kind of moment, for :meth:`Guard.choose`: few repeats, repeats in a pattern, or repeats without one."""
        kind = "pattern" if self._cadence.locked else "loose" if self._cadence.repeats > 0.05 else "steady"
        return kind + (", repeat" if self._cadence.run else "")

    def ahead(self, time: float) -> float:
        """Seconds of motion from the newest new picture to the one that will be seen at ``time``; 0 if it is the same.

        If pictures repeat, this is the motion up to the frame that will be seen then. Between two frames' moments it is
        interpolated.
        """
        wait = time - self._time
        if not wait > 0:
            return 0.0
        if not self._cadence.run and not self._cadence.locked and self._cadence.wait() == 1:
            return wait
        arrivals = wait / self._spacing if self._spacing > 0 else 1.0
        whole = math.floor(arrivals)
        part = min(max((arrivals - whole - _SNAP) / (1 - 2 * _SNAP), 0.0), 1.0)
        early = self._motion(whole)
        return early if part == 0 else early + part * (self._motion(whole + 1) - early)

    def _motion(self, arrivals: int) -> float:
        """Seconds of motion from the newest new picture to the one that is seen ``arrivals`` arrivals later."""
        if arrivals == 0:
            return 0.0
        late = self._time - self._new_time
        if self._cadence.locked:
            coming = self._cadence.coming(arrivals)
            if not any(coming):
                return 0.0
            last = arrivals - coming[::-1].index(True)
            return self._pace.motion(late + last * self._spacing, sum(coming))
        first = self._cadence.wait()
        if first is None or arrivals < first:
            return 0.0
        share = 1 - self._cadence.repeats
        return self._pace.motion(late + arrivals * self._spacing, max(1.0, share * arrivals))

    def finish(self, picture: Image, time: float) -> Image:
        """Give a picture the brightness expected at ``time``. Returns the same object if there is no flicker."""
        arrivals = round((time - self._time) / self._interval) if self._interval > 0 else 0
        return self._flicker.put_in(picture, max(0, arrivals))
