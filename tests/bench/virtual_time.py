"""Time in which only waiting takes time: a loop of several threads gives the same figures on any machine."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from framecast.runtime.engines import State

from ..evaluation.conftest import TrendEngine  # noqa: TID252


class VirtualClock:
    """Stands still while its maker's thread or a later one is at work; else goes on to what the next one waits for."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._changed = threading.Condition()
        self._until: dict[threading.Thread, float] = {}  # inf: for another thread
        self._others = {*threading.enumerate()} - {threading.current_thread()}

    def now(self) -> float:
        return self._now

    def cpu(self) -> float:
        return self._now / 2

    def wait_until(self, moment: float) -> None:
        me = threading.current_thread()
        with self._changed:
            self._until[me] = moment
            while self._now < moment:
                # One that is at work waits for nothing, or for a moment that has come.
                waits = [self._until.get(thread, 0.0) for thread in {*threading.enumerate()} - self._others]
                if min(waits) > self._now:
                    self._now = min(waits)
                    self._changed.notify_all()
                else:
                    self._changed.wait(0.01)  # nobody says when a thread ends
            del self._until[me]

    def condition(self) -> threading.Condition:
        return _VirtualCondition(self)

    def sleep(self, me: threading.Thread) -> None:
        """This thread waits for another one."""
        with self._changed:
            self._until[me] = float("inf")
            self._changed.notify_all()

    def wake(self, thread: threading.Thread) -> None:
        """It is at work from now on, even before it knows."""
        with self._changed:
            self._until.pop(thread, None)


_grant = threading.Lock()  # of a machine


class _VirtualCondition(threading.Condition):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._asleep: set[threading.Thread] = set()

    def wait(self, timeout: float | None = None) -> bool:
        me = threading.current_thread()
        self._asleep.add(me)
        self._clock.sleep(me)
        return super().wait(timeout)

    def notify_all(self) -> None:
        for thread in self._asleep:
            self._clock.wake(thread)
        self._asleep.clear()
        super().notify_all()


class PacedEngine(TrendEngine):
    """Its n-th step takes ``seconds(n)``, one after another where several wait for the same ``machine``."""

    def __init__(self, clock: VirtualClock, seconds: Any, machine: list[float] | None = None) -> None:
        super().__init__(0.4, "BGR", 1, 1, 0)
        self._clock, self._seconds = clock, seconds
        self._machine = machine if machine is not None else [0.0]  # free from when on
        self._count = 0

    def step(self, frame: np.ndarray, state_in: State, state_out: State) -> np.ndarray:
        with _grant:
            done = self._machine[0] = max(self._machine[0], self._clock.now()) + self._seconds(self._count)
        self._count += 1
        self._clock.wait_until(done)
        return super().step(frame, state_in, state_out)
