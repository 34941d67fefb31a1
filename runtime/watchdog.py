"""The watchdog: ends a step that never returns.

The thread that steps waits inside a library, where no Python code can reach it. So another thread looks at the engine's
lock, which every call holds (:class:`framecast.runtime.engines.turn.Turn`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from framecast.errors import EngineError
from framecast.runtime.engines import Engine

STEP_LIMIT = 30.0  # seconds that a step may take
COMPILING = 10  # the first steps may take so many times as long, if the engine compiles in them
FIRST = 50  # calls: these are the first; a frame takes about five
GRACE = 2.0  # seconds for the step to end after the run was told to, and for the engine to obey an interrupt
SLOW = 4.0  # seconds: the most that the grace grows to if steps are slow; see signals.GRACE and TimeoutStopSec
PERIOD = 0.1  # seconds between two looks


class Watchdog:
    """Watches an engine while it is in a ``with``.

    A call that goes on for too long is interrupted, and then raises EngineError. If the engine cannot be interrupted,
    or does not obey, only the caller can help, for instance by ending the process.

    Args:
        engine: see :meth:`framecast.runtime.engines.Engine.interrupt`.
        give_up: called once with the reason, in the watchdog's thread, if the call cannot be ended.
        stopping: whether the run should end. A call then gets no more than ``grace``, or twice the longest call so far
            (up to ``SLOW``): a slow step is no hang.
        limit: seconds that a call may take.
        grace: seconds, see ``stopping``; also how long an interrupt may take.
        period: seconds between two looks.

    Attributes:
        reason: why the watchdog has interrupted the engine or given up; empty if it has not.
    """

    def __init__(
        self,
        engine: Engine,
        give_up: Callable[[str], object],
        *,
        stopping: Callable[[], bool] = lambda: False,
        limit: float = STEP_LIMIT,
        grace: float = GRACE,
        period: float = PERIOD,
    ) -> None:
        self.reason = ""
        self._engine, self._give_up, self._stopping = engine, give_up, stopping
        self._limit, self._grace, self._period = limit, grace, period
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="framecast-watchdog", daemon=True)

    def check(self) -> None:
        """Raise EngineError if the watchdog has given up on a call that has returned after all."""
        if self.reason:
            raise EngineError(self.reason)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _watch(self) -> None:
        call, spent, leaving, waited = self._engine.lock.current, 0.0, 0.0, 0.0  # of the newest call: seconds
        longest = 0.0  # seconds of a call
        looked = time.monotonic()
        while not self._done.wait(self._period):
            before, looked = looked, time.monotonic()
            passed = min(looked - before, 2 * self._period)  # a process that was stopped meanwhile is not slow
            if call is None or call != self._engine.lock.current:
                longest = max(longest, spent)
                call, spent, leaving, waited = self._engine.lock.current, 0.0, 0.0, 0.0
                continue
            spent += passed
            leaving += passed if self._stopping() else 0
            waited += passed if self.reason else 0
            if not self.reason and (late := self._late(call, spent, leaving, longest)):
                self.reason = late
                if self._engine.interrupt(late):
                    continue
                waited = self._grace
            if self.reason and waited >= self._grace:
                self._give_up(self.reason)
                return

    def _late(self, call: int, spent: float, leaving: float, longest: float) -> str:
        """Why the call must end; empty if it may go on."""
        engine, config = self._engine.name, self._engine.manifest.config
        limit = self._limit * (COMPILING if self._engine.compiles and call <= FIRST else 1)
        grace = max(self._grace, min(2 * longest, SLOW))
        if leaving >= grace:
            return (
                f"cannot end the step of {config}: {engine} did not return within {grace:.3g} s of the request to "
                "stop (if this repeats, export the model again, or use another engine)"
            )
        if spent >= limit:
            return (
                f"cannot finish the step of {config}: {engine} did not return within {limit:g} s (use a smaller model "
                "or a faster engine; if the model has worked before, export it again)"
            )
        return ""
