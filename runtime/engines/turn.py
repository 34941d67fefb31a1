"""The lock of an engine, which shows other threads whether a call goes on."""

from __future__ import annotations

import threading
from contextlib import suppress
from weakref import WeakSet

_engines: WeakSet[object] = WeakSet()


def engines() -> list[object]:
    """Every engine of this process that has not been collected, open or closed. Any thread may call it."""
    while True:
        with suppress(RuntimeError):  # another thread has just opened one
            return [*_engines]


class Turn:
    """A re-entrant lock that counts. A watchdog compares what it sees at two moments.

    Its fields are written only by the thread that holds the lock.
    """

    @classmethod
    def of(cls, engine: object) -> Turn:
        """One for an engine, which :func:`engines` then lists."""
        _engines.add(engine)
        return cls()

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = self._count = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._lock.release()

    def renew(self) -> None:
        """Begin to count anew: a call of many steps has finished one of them."""
        self._count += 1

    @property
    def current(self) -> int | None:
        """The number of the call that goes on; None if there is none."""
        return self._count if self._depth else None
