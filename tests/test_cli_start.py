"""A start that is interrupted, at any moment, says nothing and ends with the signal's exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# The signal comes from a thread of the process itself, so that the moment does not depend on how fast Python starts.
START = """
import os, signal, sys, threading, time
after, number = float(sys.argv.pop(1)), int(sys.argv.pop(1))
def interrupt():
    time.sleep(after)
    os.kill(os.getpid(), number)
threading.Thread(target=interrupt, daemon=True).start()
from framecast.__main__ import main
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
