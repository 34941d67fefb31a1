"""The clock protocol. Sources, mailbox, pipeline and benchmarks use only the clock that they are given.

:data:`SYSTEM` is the machine's clock. On a :class:`framecast.testing.VirtualClock` only waiting takes time, so several
threads give the same figures on any machine.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

SUSPENDED = 1.0  # seconds: after a longer suspension of the machine, nothing is as it was
_SURE = 0.01  # seconds: longer reads of two clocks are repeated, because the process was stopped between them


class Clock(Protocol):
    """Tells the time, and waits."""

    def now(self) -> float:
        """Seconds. It never runs backwards, and changes of the wall clock do not affect it."""

    def cpu(self) -> float:
        """Seconds of CPU time that this process has used, summed over its threads."""

    def slept(self) -> float:
        """Seconds that the machine has been suspended since it was started. :meth:`now` does not count them."""

    def condition(self) -> threading.Condition:
        """A new condition for :meth:`wait`. Its lock is re-entrant, because a signal handler may take it."""

    def wait(self, condition: threading.Condition, deadline: float | None = None) -> bool:
        """Wait until ``condition`` is notified; the caller holds it. Returns False at ``deadline`` (seconds)."""

    def wait_until(self, moment: float) -> None:
        """Return at ``moment`` (seconds), or at once if it has passed."""

    def join(self, thread: threading.Thread, deadline: float | None = None) -> None:
        """Wait until ``thread`` ends, or until ``deadline`` (seconds)."""


class SystemClock:
    """``time.monotonic()``. Cameras stamp their grabs with the same clock."""

    def now(self) -> float:
        """See :meth:`Clock.now`."""
        return time.monotonic()

    def cpu(self) -> float:
        """See :meth:`Clock.cpu`."""
        return time.process_time()

    def slept(self) -> float:
        """See :meth:`Clock.slept`. Always 0 on systems other than Linux."""
        boot = getattr(time, "CLOCK_BOOTTIME", None)
        while boot is not None:
            before, since_boot, after = time.monotonic(), time.clock_gettime(boot), time.monotonic()
            if after - before < _SURE:
                return since_boot - after
        return 0.0

    def condition(self) -> threading.Condition:
        """See :meth:`Clock.condition`."""
        return threading.Condition()

    def wait(self, condition: threading.Condition, deadline: float | None = None) -> bool:
        """See :meth:`Clock.wait`."""
        return condition.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def wait_until(self, moment: float) -> None:
        """See :meth:`Clock.wait_until`. The kernel wakes a thread about 0.1 ms late."""
        time.sleep(max(0.0, moment - time.monotonic()))

    def join(self, thread: threading.Thread, deadline: float | None = None) -> None:
        """See :meth:`Clock.join`."""
        thread.join(None if deadline is None else max(0.0, deadline - self.now()))


SYSTEM = SystemClock()
