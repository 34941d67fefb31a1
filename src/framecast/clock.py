"""Time, as one protocol: sources, mailbox, pipeline and benchmarks are handed a clock and never ask the system.

:data:`SYSTEM` is the machine's. :class:`framecast.testing.VirtualClock` is one on which only waiting takes time, so
that what several threads do gives the same figures on any machine.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What time is read from, and waited by."""

    def now(self) -> float:
        """Seconds, running forward. Wall-clock changes do not touch it."""

    def cpu(self) -> float:
        """Seconds of CPU time that this process has used, over all its threads."""

    def condition(self) -> threading.Condition:
        """A new condition to wait on with :meth:`wait`. Its lock is re-entrant: a signal handler may take it."""

    def wait(self, condition: threading.Condition, deadline: float | None = None) -> bool:
        """Wait until ``condition``, which the caller holds, is notified; False once ``deadline`` (seconds) has come."""

    def wait_until(self, moment: float) -> None:
        """Return at ``moment`` (seconds), or at once where it has passed."""


class SystemClock:
    """``time.monotonic()``, which is also what cameras say when they grab a frame."""

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


SYSTEM = SystemClock()
