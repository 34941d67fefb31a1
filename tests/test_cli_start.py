"""A signal always ends a command, with its exit code: a start at any moment, and a main thread that does not obey."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from framecast.cli import signals
from framecast.cli.signals import on_signals

# The signal comes from a thread of the process itself, so that the moment does not depend on how fast Python starts.
# Our code cannot act before `main` has begun.
START = """
import os, signal, sys, threading, time
from framecast.__main__ import main
after, number = float(sys.argv.pop(1)), int(sys.argv.pop(1))
def interrupt():
    time.sleep(after)
    os.kill(os.getpid(), number)
threading.Thread(target=interrupt, daemon=True).start()
main()
"""


def interrupted(after: float, number: signal.Signals) -> None:
    command = [sys.executable, "-c", START, str(after), str(int(number)), "run", "synthetic://?size=160x120"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"})
    # Before there is anything to clean up the signal itself ends the process: a shell reports that as 128 + number.
    assert ended.returncode in (128 + number, -number, 0), ended.stderr
    assert ended.stderr.count("\n") <= 1, ended.stderr
    assert (ended.stdout == "") == (ended.returncode != 0), ended.stdout  # a run that has begun ends with its summary


@pytest.mark.parametrize(("after", "number"), [(0.1, signal.SIGINT), (0.5, signal.SIGTERM)])
def test_a_start_can_be_interrupted(after: float, number: signal.Signals) -> None:
    interrupted(after, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", range(12))
def test_a_start_can_be_interrupted_at_any_moment(moment: int, number: signal.Signals) -> None:
    interrupted(0.05 + 1.45 * moment / 11, number)


BODY = """
import ctypes, os, signal, sys, threading, time
from framecast.cli import signals
signals.GRACE = signals.AT_ONCE = 0.2
stop, number = threading.Event(), int(sys.argv[1])

def kill():
    threading.Timer(0.1, os.kill, [os.getpid(), number]).start()

def library():  # one that keeps the main thread: it waits twice for the same mutex
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_init(mutex, None)
    libc.pthread_mutex_lock(mutex)
    kill()
    libc.pthread_mutex_lock(mutex)

def swallow():
    kill()
    try:
        time.sleep(9)
    except BaseException:
        pass

class Finalizer:
    def __del__(self):
        kill()
        time.sleep(9)

with signals.at_once():
"""
FORCED = "framecast: interrupted: ended without waiting for the work to finish\n"


@pytest.mark.parametrize(
    ("body", "printed", "said"),
    [
        ("    kill(); time.sleep(9)", "", ""),
        ("    Finalizer(); time.sleep(9)", "", ""),  # Python ignores what is raised there
        ("    library()", "", FORCED),
        ("    swallow(); time.sleep(9)", "", FORCED),
        ("    with signals.on_signals(stop.set):\n        library()", "", FORCED),
        ("    with signals.on_signals(stop.set):\n        kill(); stop.wait(); swallow(); time.sleep(9)", "", FORCED),
        (
            "    with signals.on_signals(stop.set, begun=lambda: False):\n"
            "        try: kill(); time.sleep(9)\n"
            "        finally: print(signals.exit_code())",
            "{code}\n",
            "",
        ),
    ],
)
def test_a_command_always_ends(body: str, printed: str, said: str) -> None:
    number = signal.SIGTERM
    command = [sys.executable, "-c", f"{BODY}{body}", str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=8)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, printed.format(code=128 + number), said)


def test_the_first_signal_lets_the_work_finish_and_the_second_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_left", [])  # not the exit code of the next test's command
    monkeypatch.setattr(signals, "AT_ONCE", 250.0)  # a slow machine may take its time: pytest is what would end
    stops: list[int] = []
    with on_signals(lambda: stops.append(1)):
        # Python's handlers, not signals: one that comes too late would end pytest.
        handlers: Any = {number: signal.getsignal(number) for number in signals.STOPS}
        handlers[signal.SIGHUP](signal.SIGHUP, None)
        assert stops
        with pytest.raises(SystemExit, match="143"):
            handlers[signal.SIGTERM](signal.SIGTERM, None)


def test_signals_are_for_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with on_signals(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
