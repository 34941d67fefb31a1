"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal) end a command, also while its main thread waits inside a library.

A command finishes what can be finished. Otherwise it ends at once, with the exit code 128 + the signal's number, as a
shell reports it. Python calls a signal's handler in the main thread, but not before a library's call returns there. So
a thread of ours learns of each signal at once, by :func:`signal.set_wakeup_fd`, and can end the process.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from framecast.cli import logs
from framecast.cli.announce import takes

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 10.0  # seconds for the main thread to hear that it should finish; a run gives up a step that hangs within 9 s
AT_ONCE = 1.0  # seconds for the command to end when there is nothing to finish, and after the second signal
GUARDED = 1.0  # seconds between two looks whether a command uses engines
AGAIN = 0.01  # seconds until a signal is repeated that Python could not act on

_left: list[int] = []  # the exit code, once a signal has ended a command at once


@contextmanager
def at_once() -> Iterator[None]:
    """Let a signal end a command at once: it raises SystemExit. To finish work, use :func:`on_signals`."""

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        # Python was in a place that cannot raise, such as a finalizer, and went on: signal again, once it has left it.
        if _left and issubclass(lost.exc_type, SystemExit):
            threading.Timer(AGAIN, signal.pthread_kill, [threading.main_thread().ident, _left[0] - 128]).start()
        else:
            hook(lost)

    _left.clear()
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        with on_signals(lambda: None, begun=lambda: False):
            yield
    finally:
        sys.unraisablehook = hook


@contextmanager
def on_signals(
    stop: Callable[[], None],
    begun: Callable[[], bool] = lambda: True,
    *,
    reload: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Let the first signal call ``stop``, which ends the work cleanly. The second one ends the command at once.

    Signals that are ignored stay ignored, such as SIGHUP under ``nohup``. In another thread than the main one this does
    nothing, because Python handles signals only there.

    Args:
        stop: ends the work soon. It may be called in another thread, and twice.
        begun: whether there is work that can be finished, for any thread. Before that the first signal, too, ends the
            command at once: a start may wait long for a camera.
        reload: called for SIGHUP instead, which then ends nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    finishing = threading.Event()

    def handle(number: int, _: object) -> None:
        if begun() and not finishing.is_set():
            finishing.set()
            stop()
        else:
            _left[:] = [128 + number]
            raise SystemExit(128 + number)

    def again(number: int, _: object) -> None:
        if reload is not None:
            reload()

    stops = [number for number in STOPS if reload is None or number != signal.SIGHUP]
    heeded = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN or number not in stops]
    before = {number: signal.signal(number, handle if number in stops else again) for number in heeded}
    try:
        with _watched(finishing, stop, begun, stops):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def guarded() -> Iterator[None]:
    """End a command with a line if a step of any engine does not return.

    The engine is interrupted, which raises an EngineError. If that does not help, the process ends with exit code 1.
    """

    def watch() -> None:
        while "framecast.runtime.engines.engine" not in sys.modules:  # most commands need no engine: load nothing
            if done.wait(GUARDED):
                return
        from framecast.runtime.watchdog import Guard

        with Guard(lambda reason: end_process(f"{reason}; ended without waiting for it", 1)):
            done.wait()

    done = threading.Event()
    threading.Thread(target=watch, name="framecast-guard", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def exit_code() -> int | None:
    """The exit code if a signal has ended a command at once.

    Libraries may turn the SystemExit into an error of their own, such as a failed import; that is then no error.
    """
    return _left[0] if _left else None


def end_process(message: str, code: int) -> None:
    """End the process from any thread, with a line on stderr. Nothing else is closed, so close the outputs before."""
    with suppress(Exception):
        if sys.stderr.isatty():
            print("\r\x1b[J\x1b[?25h", end="", file=sys.stderr)  # without the status line; with the cursor
        if takes(sys.stdout):
            sys.stdout.flush()
        logs.fail(message, code)
    os._exit(code)


@contextmanager
def _watched(
    finishing: threading.Event, stop: Callable[[], None], begun: Callable[[], bool], stops: Collection[int]
) -> Iterator[None]:
    """Watch the signals that have a handler, in a thread. The handler sets ``finishing`` if the work ends cleanly."""
    ours, written = os.pipe()
    os.set_blocking(written, False)
    given = ours, finishing, stop, begun, stops
    thread = threading.Thread(target=_watch, args=given, name="framecast-signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(written)
        thread.join()
        os.close(ours)


def _watch(
    signals: int,
    finishing: threading.Event,
    stop: Callable[[], None],
    begun: Callable[[], bool],
    stops: Collection[int],
) -> None:
    """Call ``stop`` at the first signal, and end the process if the main thread does not obey in time."""
    number = _next(signals, None, stops)
    if not number:
        return
    stop()
    again = _next(signals, GRACE if begun() else AT_ONCE, stops)
    if again is None and finishing.is_set():  # the work takes as long as it needs
        again = _next(signals, None, stops)
    if again is None or (again and _next(signals, AT_ONCE, stops) != 0):
        end_process("interrupted: ended without waiting for the work to finish", 128 + (again or number))


def _next(signals: int, timeout: float | None, stops: Collection[int]) -> int | None:
    """The number of the next signal to end; 0 once the command has ended; None after ``timeout`` seconds of neither."""
    while select.select([signals], [], [], timeout)[0]:
        got = os.read(signals, 1)
        if not got or got[0] in stops:
            return got[0] if got else 0
    return None
