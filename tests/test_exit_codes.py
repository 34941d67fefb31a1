"""The exit codes that ``docs/monitoring.md`` lists, each produced by the command line."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

CLIP = "synthetic://?size=64x48"
TABLE = (Path(__file__).resolve().parents[1] / "docs" / "monitoring.md").read_text().partition("## Exit codes")[2]
DOCUMENTED = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", TABLE, re.MULTILINE) for code in row.split(",")}

# A second signal, a step that does not return and a closed standard output end the process itself: see
# tests/test_cli_start.py, tests/runtime/test_watchdog.py, and tests/test_cli_usage.py.
ENDS: list[tuple[tuple[str, ...], int]] = [
    ((CLIP, "--frames", "2"), 0),
    ((f"{CLIP}&frames=2",), 0),
    (("nothing.mp4",), 1),
    ((CLIP, "--model", "nope"), 1),
    ((CLIP, "--engine", "nope"), 1),
    ((CLIP, "--record", "/proc/no/x.mp4"), 1),
    ((CLIP, "--horizon", "0"), 1),
    ((CLIP, "--frames", "x"), 2),
    ((CLIP, "--nope"), 2),
    ((), 2),
]


@pytest.mark.parametrize(("arguments", "code"), ENDS)
def test_a_run_ends_with_its_code(run: Run, arguments: tuple[str, ...], code: int) -> None:
    assert run("run", *arguments)[0] == code


SIGNALS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
# A process of its own: a signal that comes at the wrong moment would end pytest. A slow machine may take its time.
START = """
import os, signal, sys, time
from framecast.cli import main, signals
from framecast.runtime import lane, news
signals.GRACE = signals.AT_ONCE = 250.0
number = int(sys.argv.pop(1))
signal.signal(number, signal.SIG_DFL)  # pytest's parent may ignore it, such as nohup
left = [number]  # a second one would end the run at once

def interrupt(*_, **__):
    if left:
        os.kill(os.getpid(), left.pop())

def interrupt_and_wait(*_, **__):
    interrupt()
    time.sleep(60)  # the signal ends it

"""


def interrupted(place: str, number: signal.Signals, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", f"{START}{place}; main()", str(int(number)), "run", CLIP, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
def test_a_signal_before_the_run_has_begun(number: signal.Signals, code: int) -> None:
    assert interrupted("lane.open_source = interrupt_and_wait", number) == (code, "", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_a_run_that_has_begun(number: signal.Signals) -> None:
    code, out, err = interrupted("news.News.see = interrupt", number, "--frames", "100000")
    assert (code, err) == (0, "")
    assert "interrupted" in out


def test_all_of_them_are_documented() -> None:
    assert {code for _, code in ENDS} | {*SIGNALS.values()} == DOCUMENTED
