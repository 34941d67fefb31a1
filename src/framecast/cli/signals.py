"""Ctrl-C and SIGTERM end a command cleanly, also while the main thread waits inside a library.

Python calls a signal's handler in the main thread, but not before a library's call returns there. So a thread of ours
learns of each signal at once, by :func:`signal.set_wakeup_fd`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0  # seconds for the main thread to notice the first signal
AT_ONCE = 1.0  # seconds for the command to end after the second one


@contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM call ``stop``, which ends the work cleanly. The second one acts at once.

    ``stop`` may be called in another thread, and twice.
    """
    heard = threading.Event()

    def stopped(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        heard.set()
        stop()

    before = {number: signal.signal(number, stopped) for number in STOPS}
    try:
        with _watched(heard, stop):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, or end the process if the main thread does not notice it."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():  # nohup, or called by a program
        yield
        return
    heard = threading.Event()

    def interrupted(number: int, frame: FrameType | None) -> None:
        heard.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        with _watched(heard):
            yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_process(message: str, code: int) -> None:
    """End the process from any thread, with a line on stderr. Nothing else is closed, so close the outputs before."""
    with suppress(Exception):
        shown = "\r\x1b[J\x1b[?25h" if sys.stderr.isatty() else ""  # without the status line; with the cursor
        sys.stdout.flush()
        print(f"{shown}framecast: {message}", file=sys.stderr, flush=True)
    os._exit(code)


@contextmanager
def _watched(heard: threading.Event, stop: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Watch the signals that have a handler, in a thread. ``heard`` is set once the main thread has run the handler."""
    ours, written = os.pipe()
    os.set_blocking(written, False)
    thread = threading.Thread(target=_watch, args=(ours, heard, stop), name="framecast-signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(written)
        thread.join()
        os.close(ours)


def _watch(signals: int, heard: threading.Event, stop: Callable[[], None]) -> None:
    number = _next(signals, None)
    if not number:
        return
    stop()
    again = _next(signals, GRACE)
    if again is None and not heard.is_set():
        end_process(f"interrupted: ended, because a library did not return within {GRACE:g} s", 128 + number)
    if again is None:
        again = _next(signals, None)
    if again and _next(signals, AT_ONCE) != 0:
        end_process("interrupted again: ended without waiting for the work to finish", 128 + again)


def _next(signals: int, timeout: float | None) -> int | None:
    """The number of the next signal to end; 0 once the command has ended; None after ``timeout`` seconds of neither."""
    while select.select([signals], [], [], timeout)[0]:
        got = os.read(signals, 1)
        if not got or got[0] in STOPS:
            return got[0] if got else 0
    return None
