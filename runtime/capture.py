"""Capture: a thread that reads a source and leaves its frames in a mailbox."""

from __future__ import annotations

import math
import statistics
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from framecast.camera import DEFAULT_FPS, Frame, Source, Timeline, plausible_rate
from framecast.clock import SUSPENDED, SYSTEM, Clock
from framecast.errors import SourceError
from framecast.runtime.arrivals import Arrivals
from framecast.runtime.mailbox import Mailbox

CATCH_UP = 1.0  # seconds: after a longer pause, a paced file does not race to catch up
JOIN = 10.0  # seconds that a read may take to return after the source was closed
PASSED = 4  # dropped frames that are kept because they score a prediction


@dataclass(frozen=True, eq=False)
class Grabbed:
    """A frame and what the capture thread knows about it.

    Attributes:
        frame: as read, but a camera's time stamps are without jitter (:mod:`framecast.runtime.arrivals`).
        grabbed: when the thread had it ready, before it waited for room in the mailbox: seconds on the run's clock.
        due: when it was due: a camera's ``frame.time`` as read, or when a paced clip released it. None for a clip at
            full speed.
        moment: the frame's time on the run's clock: a camera's ``frame.time`` without jitter, or when a paced clip
            should have shown it. None for a clip at full speed.
        interval: the camera's own interval in seconds, from every frame that was read. None if not known yet.
    """

    frame: Frame
    grabbed: float
    due: float | None
    moment: float | None
    interval: float | None


class Capture:
    """Reads one source in its own thread.

    Args:
        source: :meth:`close` closes it.
        paced: play a file at its own frame rate instead of as fast as possible.
        every: make the source wait until each frame is taken, even if it is paced. A camera cannot wait.
        clock: for waiting and for the stamps.
        wants: whether to keep a dropped frame for :meth:`passed`, because it would score a prediction. The capture
            thread calls it with the frame's time and the interval in seconds.

    Attributes:
        mailbox: the frames.
        drops: whether frames are dropped, so that only the newest one waits.
        failure: the source's exception, if any; final when the mailbox has ended and nobody has called :meth:`stop`.
        faults: what was mended in the frames' times, beside what the source counts: see :attr:`Source.faults`.
        started: whether the thread was started.
    """

    def __init__(
        self,
        source: Source,
        *,
        paced: bool = False,
        every: bool = False,
        clock: Clock = SYSTEM,
        wants: Callable[[float, float], bool] = lambda time, interval: False,
    ) -> None:
        self.drops = source.live or (paced and not every)
        self.mailbox: Mailbox[Grabbed] = Mailbox(newest=self.drops, replaced=self._keep, clock=clock)
        self.failure: Exception | None = None
        self.faults: Counter[str] = Counter()
        self._source = source
        self._paced = paced
        self._clock = clock
        self._wants = wants
        self._kept: deque[Grabbed] = deque(maxlen=PASSED)  # its methods are atomic
        self._changed = clock.condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._read, name="framecast-capture", daemon=True)

    @property
    def started(self) -> bool:
        """Whether the thread has been started."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def stop(self) -> None:
        """Stop soon, and put no more frames in the mailbox. Safe in a signal handler."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self.mailbox.close()

    def close(self) -> None:
        """Stop, close the source, and wait for the thread. The wait is limited, because a driver may hang in a read."""
        self.stop()
        self._source.close()
        if self.started:
            self._clock.join(self._thread, self._clock.now() + JOIN)

    def passed(self) -> list[Grabbed]:
        """Remove and return the dropped frames that score a prediction, in order."""
        frames = []
        while self._kept:
            frames.append(self._kept.popleft())
        return frames

    def _keep(self, item: Grabbed) -> None:
        if self._wants(item.frame.time, item.interval or 1 / DEFAULT_FPS):
            self._kept.append(item)

    def _read(self) -> None:
        try:
            times = _Times(self._source, self.faults)
            slept = self._clock.slept()
            start: float | None = None  # on the clock, of the moment at which the source's times are 0
            while (frame := self._source.read()) is not None:
                if not math.isfinite(frame.time):
                    raise SourceError(f"{self._source.name}: a frame's time is not a finite number: fix the source")
                grabbed = self._clock.now()
                before, slept = slept, self._clock.slept()
                timed, interval = times.see(frame, resumed=self._source.live and slept - before > SUSPENDED)
                due = 0.0
                if self._paced and not self._source.live:
                    start = grabbed - timed.time if start is None else max(start, grabbed - CATCH_UP - timed.time)
                    due = start + timed.time
                    if not self._wait_until(due):
                        break
                    grabbed = self._clock.now()
                if self._source.live:
                    item = Grabbed(timed, grabbed, frame.time, timed.time, interval)
                else:
                    shown = (grabbed, due) if self._paced else (None, None)
                    item = Grabbed(timed, grabbed, shown[0], shown[1], interval)
                if not self.mailbox.put(item):
                    break
        except Exception as error:  # noqa: BLE001 (raised by the loop that takes the frames)
            self.failure = error
        finally:
            self.mailbox.close()

    def _wait_until(self, moment: float) -> bool:
        """Wait until ``moment``; False if stopped before."""
        with self._changed:
            while not self._stopped and self._clock.now() < moment:
                self._clock.wait(self._changed, moment)
            return not self._stopped


class _Times:
    """Removes jitter from a camera's times, makes any source's times increase, and estimates the interval.

    Args:
        source: whose frames they are.
        faults: counts the times that were mended.
    """

    def __init__(self, source: Source, faults: Counter[str]) -> None:
        self._source = source
        self._faults = faults
        self._arrivals = self._new_arrivals()
        self._timeline = Timeline(faults)
        self._before: tuple[float, int] | None = None  # time and epoch
        self._intervals: deque[float] = deque(maxlen=9)
        self._begun = 0  # epochs that began because the times ran back, or the machine was suspended

    def see(self, frame: Frame, *, resumed: bool = False) -> tuple[Frame, float | None]:
        """Return the frame with its time, and the interval in seconds, if known.

        Args:
            frame: as read.
            resumed: whether the machine was suspended since the frame before, which then does not predict this one.
        """
        if resumed and self._before is not None and self._before[1] == frame.epoch + self._begun:
            self._begun += 1
        if self._before is not None and self._before[1] != frame.epoch + self._begun:
            known = None if self._arrivals is None else self._arrivals.learned
            self._arrivals = self._new_arrivals(known)  # another connection: its interval and delay may differ
            self._timeline = Timeline(self._faults)  # and the estimate of before may be ahead of its first frame
            self._intervals.clear()
        time = frame.time
        if self._arrivals is not None:
            time = self._arrivals.see(frame.time, stamped=self._source.times == "capture")
        interval = self._interval
        mended = self._timeline.see(time, interval or 1 / DEFAULT_FPS)
        if mended is None:
            self._begun += 1
            mended = time
        epoch = frame.epoch + self._begun
        if self._arrivals is None and self._before is not None and self._before[1] == epoch:
            self._intervals.append(mended - self._before[0])
        self._before = mended, epoch
        return Frame(frame.image, mended, frame.index, epoch), self._interval

    @property
    def _interval(self) -> float | None:
        if self._arrivals is not None:
            return self._arrivals.interval
        return statistics.median(self._intervals) if self._intervals else self._nominal

    @property
    def _nominal(self) -> float | None:
        fps = plausible_rate(self._source.fps or 0.0)
        return 1 / fps if fps else None

    def _new_arrivals(self, expected: float | None = None) -> Arrivals | None:
        return Arrivals(self._nominal, expected=expected) if self._source.live else None
