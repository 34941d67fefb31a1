"""Time in which only waiting takes time: what several threads do gives the same figures on any machine."""

from __future__ import annotations

import math
import threading

from framecast.clock import SystemClock

POLL = 0.002  # real seconds between two looks of a thread that waits for a moment: nobody says when a thread ends


class ManualClock(SystemClock):
    """Time that passes when :meth:`work` is called, and at once where somebody waits; for one thread.

    Attributes:
        time: what :meth:`now` returns; it may be set.
    """

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """See :meth:`framecast.clock.Clock.now`."""
        return self.time

    def wait_until(self, moment: float) -> None:
        """See :meth:`framecast.clock.Clock.wait_until`."""
        self.time = max(self.time, moment)

    def wait(self, condition: threading.Condition, deadline: float | None = None) -> bool:
        """See :meth:`framecast.clock.Clock.wait`. Nobody else is there to notify: the deadline comes."""
        self.wait_until(self.time if deadline is None else deadline)
        return False

    def work(self, milliseconds: float) -> None:
        """Let time pass."""
        self.time += 1e-3 * milliseconds


class VirtualClock:
    """A :class:`framecast.clock.Clock` that stands still while any thread is at work.

    Once every thread waits, it jumps to the earliest moment that one of them waits for. It knows the thread that made
    it, and every thread that is started later. A thread that waits for another must do so by :meth:`wait`
    or :meth:`join`: one that waits otherwise counts as being at work, and time stands still.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        self._changed = threading.Condition()
        self._until: dict[threading.Thread, float] = {}  # inf: for another thread
        self._joined: dict[threading.Thread, threading.Thread] = {}  # whose end a thread waits for
        self._others = {*threading.enumerate()} - {threading.current_thread()}

    def now(self) -> float:
        """See :meth:`framecast.clock.Clock.now`."""
        return self._now

    def cpu(self) -> float:
        """Half of the time that has passed."""
        return self._now / 2

    def condition(self) -> threading.Condition:
        """See :meth:`framecast.clock.Clock.condition`."""
        return _VirtualCondition(self)

    def wait(self, condition: threading.Condition, deadline: float | None = None) -> bool:
        """See :meth:`framecast.clock.Clock.wait`. The condition must come from :meth:`condition`."""
        assert isinstance(condition, _VirtualCondition)  # noqa: S101 (any other would not tell this clock)
        me, until = threading.current_thread(), math.inf if deadline is None else deadline
        condition.waiting.add(me)
        self._park(me, until)
        while me in condition.waiting:
            if self._advance() >= until:
                condition.waiting.discard(me)
                self.unpark(me)
                return False
            condition.wait(None if math.isinf(until) else POLL)
        return True

    def wait_until(self, moment: float) -> None:
        """See :meth:`framecast.clock.Clock.wait_until`."""
        me = threading.current_thread()
        self._park(me, moment)
        while self._advance() < moment:
            with self._changed:
                self._changed.wait(POLL)
        self.unpark(me)

    def join(self, thread: threading.Thread, deadline: float | None = None) -> None:
        """See :meth:`framecast.clock.Clock.join`."""
        me, until = threading.current_thread(), math.inf if deadline is None else deadline
        self._joined[me] = thread
        self._park(me, until)
        while thread.is_alive() and self._advance() < until:
            thread.join(POLL)
        self.unpark(me)
        del self._joined[me]

    def unpark(self, thread: threading.Thread) -> None:
        """A thread is at work from now on, even before it knows."""
        with self._changed:
            self._until.pop(thread, None)

    def _park(self, thread: threading.Thread, until: float) -> None:
        with self._changed:
            self._until[thread] = until
            self._changed.notify_all()

    def _advance(self) -> float:
        """Jump to the earliest moment that is waited for, if nobody is at work; returns the time."""
        with self._changed:
            # A thread that is at work waits for nothing, for a moment that has come, or for a thread that has ended.
            running = {*threading.enumerate()}
            earliest = min((self._waits_until(thread, running) for thread in running - self._others), default=math.inf)
            if self._now < earliest < math.inf:
                self._now = earliest
                self._changed.notify_all()
            return self._now

    def _waits_until(self, thread: threading.Thread, running: set[threading.Thread]) -> float:
        if self._joined.get(thread, thread) not in running:
            return 0.0
        return self._until.get(thread, 0.0)


class _VirtualCondition(threading.Condition):
    """Tells its clock whom it wakes."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.waiting: set[threading.Thread] = set()
        self._clock = clock

    def notify_all(self) -> None:
        for thread in self.waiting:
            self._clock.unpark(thread)
        self.waiting.clear()
        super().notify_all()
