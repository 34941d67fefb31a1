"""Processes of ``gpu_check.py``: they leave no child behind, and every wait has a timeout.

At the end of a section, its whole process group is killed, also after Ctrl-C and SIGTERM. If this process receives
SIGKILL, it cannot do that. A guard does it then: a process that sleeps until this one is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ANSWERS = 60.0  # seconds after which a driver counts as hung
ENDS = 10.0  # seconds to wait for a killed process, which may hang inside a driver forever
_PDEATHSIG = 1  # option of Linux's prctl()
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def fork() -> int:
    """Fork. In the child, the signals that end a program have their default effect, not the parent's handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        child = os.fork()
        if not child:
            for number in _ENDINGS:
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
        return child
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into ``SystemExit`` within a block, so that its cleanup runs."""

    def ended(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ended) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def guarded(process: int) -> Iterator[None]:
    """Kill a child and its group at the end of a block, or when this process dies."""
    guard, alive = 0, -1
    try:
        with suppress(OSError):  # parent and child both do this: either may run first
            os.setpgid(process, process)
        guard, alive = _guard(process)
        yield
    finally:
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError):
                kill(process, signal.SIGKILL)
        if guard:  # before the child is reaped, because then a new group might get this number
            os.kill(guard, signal.SIGKILL)
            reaped(guard, ENDS)
            os.close(alive)


def _guard(group: int) -> tuple[int, int]:
    """Start a process that kills a group when this one dies. Return its id, and the pipe end that keeps it asleep."""
    reads, writes = os.pipe()
    guard = fork()
    if not guard:
        try:
            os.setsid()  # signals to our group must not end the guard
            os.close(writes)
            os.read(reads, 1)  # blocks until the other end closes
            os.killpg(group, signal.SIGKILL)
        finally:
            os._exit(0)
    os.close(reads)
    return guard, writes


def reaped(process: int, seconds: float) -> int | None:
    """Wait for a child. Return its exit code, minus the signal's number if a signal ended it; None after a timeout."""
    until, pause = time.monotonic() + seconds, 0.001
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(pause)
        pause = min(0.1, 2 * pause)


def dies_with_its_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when its parent dies; otherwise it would keep the GPU."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:  # the parent died before prctl
        os._exit(1)


def in_child(ask: Callable[[], bool], seconds: float = ANSWERS) -> bool:
    """Return the answer of a function that runs in a separate process, because it may start a driver.

    Raises:
        TimeoutError: there is no answer within ``seconds``.
    """
    parent, child = os.getpid(), fork()
    if not child:
        answer = False
        try:
            dies_with_its_parent(parent)
            answer = ask()
        finally:
            os._exit(0 if answer else 1)
    code = None
    try:
        code = reaped(child, seconds)
    finally:
        if code is None:
            os.kill(child, signal.SIGKILL)
            reaped(child, ENDS)
    if code is None:
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    return code == 0
