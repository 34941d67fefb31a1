"""Clocks on which only waiting takes time, so that timings come out the same on any machine."""

from __future__ import annotations

import math
import threading

from framecast.clock import SystemClock

POLL = 0.002  # real seconds between two checks of a waiting thread, because a thread that ends notifies no condition


class ManualClock(SystemClock):
    """A clock for one thread. It advances in :meth:`work`, and jumps ahead whenever the thread waits.

    Attributes:
        time: the time that :meth:`now` returns; it may be set.
        suspended: what :meth:`slept` returns; it may be set.
    """

    def __init__(self) -> None:
        self.time = self.suspended = 0.0

    def now(self) -> float:
        """See :meth:`framecast.clock.Clock.now`."""
        return self.time

    def slept(self) -> float:
        """See :meth:`framecast.clock.Clock.slept`."""
        return self.suspended

    def wait_until(self, moment: float) -> None:
        """See :meth:`framecast.clock.Clock.wait_until`."""
        self.time = max(self.time, moment)

    def wait(self, condition: threading.Condition, deadline: float | None = None) -> bool:
        """See :meth:`framecast.clock.Clock.wait`. No other thread can notify, so it always reaches the deadline."""
        self.wait_until(self.time if deadline is None else deadline)
        return False

    def work(self, milliseconds: float) -> None:
        """Let time pass."""
        self.time += 1e-3 * milliseconds


class VirtualClock:
    """A :class:`framecast.clock.Clock` that stands still while any thread is working.

    When all threads wait, it jumps to the earliest moment that one of them waits for. It watches the thread that made
    it and every thread started later. To wait for another thread, use :meth:`wait` or :meth:`join`. A thread that waits
    in any other way counts as working, and time stands still.

    Attributes:
        suspended: what :meth:`slept` returns; it may be set.
    """

    def __init__(self) -> None:
        self.suspended = 0.0
        self._now = 1000.0
        self._changed = threading.Condition()
        self._until: dict[threading.Thread, float] = {}  # deadlines of waiting threads; inf for none
        self._joined: dict[threading.Thread, threading.Thread] = {}  # joining thread: the thread that it waits for
        self._others = {*threading.enumerate()} - {threading.current_thread()}

    def now(self) -> float:
        """See :meth:`framecast.clock.Clock.now`."""
        return self._now

    def cpu(self) -> float:
        """Half of the clock's time, so that a test knows the CPU time exactly."""
        return self._now / 2

    def slept(self) -> float:
        """See :meth:`framecast.clock.Clock.slept`."""
        return self.suspended

    def condition(self) -> threading.Condition:
        """See :meth:`framecast.clock.Clock.condition`."""
        return _VirtualCondition(self)

    def wait(self, condition: threading.Condition, deadline: float | None = None) -> bool:
        """See :meth:`framecast.clock.Clock.wait`. The condition must come from :meth:`condition`."""
        assert isinstance(condition, _VirtualCondition)  # noqa: S101 (any other kind would not report to this clock)
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
        """Count a thread as working from now on, even before it wakes up."""
        with self._changed:
            self._until.pop(thread, None)

    def _park(self, thread: threading.Thread, until: float) -> None:
        with self._changed:
            self._until[thread] = until
            self._changed.notify_all()

    def _advance(self) -> float:
        """Jump to the earliest moment that a thread waits for, if none is working. Returns the time."""
        with self._changed:
            # A thread counts as working if it does not wait, or if its moment has come or its joined thread has ended.
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
    """A condition that tells its clock which threads it wakes."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.waiting: set[threading.Thread] = set()
        self._clock = clock

    def notify_all(self) -> None:
        for thread in self.waiting:
            self._clock.unpark(thread)
        self.waiting.clear()
        super().notify_all()
