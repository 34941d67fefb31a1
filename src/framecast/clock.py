"""The clock protocol. Sources, mailbox, pipeline and benchmarks use only the clock that they are given.

:data:`SYSTEM` is the machine's clock. On a :class:`framecast.testing.VirtualClock` only waiting takes time, so several
threads give the same figures on any machine.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time, and waits."""

    def now(self) -> float:
        """Seconds. It never runs backwards, and changes of the wall clock do not affect it."""

    def cpu(self) -> float:
        """Seconds of CPU time that this process has used, summed over its threads."""

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
