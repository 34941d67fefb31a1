"""The watchdog: ends a step that never returns.

The thread that steps waits inside a library, where no Python code can reach it. So another thread looks at the engine's
lock, which every call holds (:class:`framecast.runtime.engines.turn.Turn`).
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from framecast.errors import EngineError
from framecast.runtime.engines import Engine
from framecast.runtime.engines.turn import engines

if TYPE_CHECKING:
    from typing_extensions import Self

STEP_LIMIT = 30.0  # seconds that a step may take
COMPILING = 10  # the first steps may take so many times as long, if the engine compiles in them
FIRST = 50  # calls: these are the first; a frame takes about five
GRACE = 2.0  # seconds for the step to end after the run was told to, and for the engine to obey an interrupt
SLOW = 4.0  # seconds: the most that the grace grows to if steps are slow; see signals.GRACE and TimeoutStopSec
PERIOD = 0.1  # seconds between two looks
LONGEST = 300.0  # seconds that a step may take where there is no --step-limit: engines that are tried may be slow
SELDOM = 1.0  # seconds between two looks there: a benchmark shall not feel them


class _Watching:
    """A thread that looks again and again while it is in a ``with``, until there is a reason to give up."""

    def __init__(self, name: str, give_up: Callable[[str], object], period: float) -> None:
        self._give_up, self._period = give_up, period
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._done.wait(self._period):
            before, looked = looked, time.monotonic()
            if reason := self._look(min(looked - before, 2 * self._period)):
                self._give_up(reason)
                return

    def _look(self, passed: float) -> str:
        """Look once, ``passed`` seconds after the last time. Returns the reason to give up; "" if there is none."""
        raise NotImplementedError


class Watchdog(_Watching):
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
        super().__init__("framecast-watchdog", give_up, period)
        self._call, self._stopping = _Call(engine, limit, grace), stopping

    @property
    def reason(self) -> str:
        """Why the watchdog has interrupted the engine or given up; empty if it has not."""
        return self._call.reason

    def check(self) -> None:
        """Raise EngineError if the watchdog has given up on a call that has returned after all."""
        if self.reason:
            raise EngineError(self.reason)

    def _look(self, passed: float) -> str:
        return self.reason if self._call.look(passed, leaving=self._stopping()) else ""


class Guard(_Watching):
    """Watches every engine that is open, for a command in which nobody else does, while it is in a ``with``.

    It does what a :class:`Watchdog` does for one engine. Engines may be opened and closed meanwhile.

    Args:
        give_up: called with the reason, in the guard's thread, if a call cannot be ended.
        limit: seconds that a call may take.
        grace: seconds that an interrupt may take.
        period: seconds between two looks.
    """

    def __init__(
        self,
        give_up: Callable[[str], object],
        *,
        limit: float = LONGEST,
        grace: float = GRACE,
        period: float = SELDOM,
    ) -> None:
        super().__init__("framecast-guard", give_up, period)
        self._limit, self._grace = limit, grace
        self._calls: WeakKeyDictionary[Engine, _Call] = WeakKeyDictionary()

    def _look(self, passed: float) -> str:
        for engine in engines():
            if not isinstance(engine, Engine):
                continue
            call = self._calls.setdefault(engine, _Call(engine, self._limit, self._grace))
            if call.look(passed):
                return call.reason
        return ""


class _Call:
    """The newest call of an engine.

    Attributes:
        reason: why the engine was interrupted; empty if it was not.
    """

    def __init__(self, engine: Engine, limit: float, grace: float) -> None:
        # Not the engine itself: the guard would keep it from being closed by its last owner.
        self._engine = weakref.ref(engine)
        self._limit, self._grace = limit, grace
        self.reason = ""
        self._longest = self._spent = 0.0  # seconds of a call
        self._begin(engine)

    def _begin(self, engine: Engine) -> None:
        self._longest = max(self._longest, self._spent)
        self._call = engine.lock.current
        self._spent = self._leaving = self._waited = 0.0  # seconds

    def look(self, passed: float, *, leaving: bool = False) -> bool:
        """Look at the engine again, and interrupt it if need be.

        Args:
            passed: seconds since the last look. A process that was stopped meanwhile is not slow.
            leaving: whether the run should end.

        Returns:
            Whether the call cannot be ended.
        """
        engine = self._engine()
        if engine is None:
            return False
        if self._call is None or self._call != engine.lock.current:
            self._begin(engine)
            return False
        self._spent += passed
        self._leaving += passed if leaving else 0
        self._waited += passed if self.reason else 0
        if not self.reason and (late := self._late(engine, self._call)):
            self.reason = late
            if engine.interrupt(late):
                return False
            self._waited = self._grace
        return bool(self.reason) and self._waited >= self._grace

    def _late(self, engine: Engine, call: int) -> str:
        """Why the call must end; empty if it may go on."""
        config = engine.manifest.config
        limit = self._limit * (COMPILING if engine.compiles and call <= FIRST else 1)
        grace = max(self._grace, min(2 * self._longest, SLOW))
        if self._leaving >= grace:
            return (
                f"cannot end the step of {config}: {engine.name} did not return within {grace:.3g} s of the request "
                "to stop (if this repeats, export the model again, or use another engine)"
            )
        if self._spent >= limit:
            return (
                f"cannot finish the step of {config}: {engine.name} did not return within {limit:g} s (use a smaller "
                "model or a faster engine; if the model has worked before, export it again)"
            )
        return ""
