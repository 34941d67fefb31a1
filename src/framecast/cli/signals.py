"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal) end a command cleanly, or at once if there is nothing to finish."""

from __future__ import annotations

import _thread
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_left: list[int] = []  # the exit code, once a signal has ended a command at once


@contextmanager
def at_once() -> Iterator[None]:
    """Let each of them raise SystemExit, with the code 128 + the signal's number, as a shell reports it."""

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        # Python was in a place that cannot raise, such as a finalizer, and went on: knock again.
        if _left and issubclass(lost.exc_type, (SystemExit, KeyboardInterrupt)):
            _thread.interrupt_main(signal.Signals(_left[0] - 128))
        else:
            hook(lost)

    _left.clear()
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    with _handled(_leave, {number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN}):
        try:
            yield
        finally:
            sys.unraisablehook = hook


@contextmanager
def on_signals(stop: Callable[[], None], begun: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Let the first of them call ``stop``, which ends the work cleanly. The second one acts at once.

    Under ``nohup`` SIGHUP stays ignored.

    Args:
        stop: ends the work soon.
        begun: whether there is work that can be ended. Before that the first signal, too, acts at once: a start may
            wait long for a camera.
    """

    def stopped(number: int, frame: object) -> None:
        stop()
        if begun():
            _default(number)
        else:
            _leave(number, frame)

    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    with _handled(stopped, {*_SIGNALS} - ({signal.SIGHUP} if ignored else set())):
        yield


def exit_code() -> int | None:
    """The exit code if a signal has ended a command at once.

    Libraries may turn the SystemExit into an error of their own, such as a failed import; that is then no error.
    """
    return _left[0] if _left else None


def _leave(number: int, _: object) -> None:
    _default(number)
    _left[:] = [128 + number]
    raise SystemExit(128 + number)


def _default(number: int) -> None:
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def _handled(handler: Callable[[int, object], None], numbers: Iterable[int]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
