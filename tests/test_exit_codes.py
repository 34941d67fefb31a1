"""The exit codes that ``docs/monitoring.md`` lists, each produced by the command line."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from framecast.cli import signals

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


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine may take its time: what is forced to end here is pytest."""
    monkeypatch.setattr(signals, "GRACE", 250.0)
    monkeypatch.setattr(signals, "AT_ONCE", 250.0)


SIGNALS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}


def interrupts(number: signal.Signals) -> Callable[..., None]:
    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)  # the signal ends it

    return interrupt


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
def test_a_signal_before_the_run_has_begun(
    run: Run, number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framecast.runtime.lane.open_source", interrupts(number))
    assert run("run", CLIP) == (code, "", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_a_run_that_has_begun(run: Run, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [number]  # a second one would end it at once

    def interrupt(*_: object) -> None:
        if left:
            os.kill(os.getpid(), left.pop())

    monkeypatch.setattr("framecast.runtime.news.News.see", interrupt)
    code, out, err = run("run", CLIP, "--frames", "100000")
    assert (code, err) == (0, "")
    assert "interrupted" in out


def test_all_of_them_are_documented() -> None:
    assert {code for _, code in ENDS} | {*SIGNALS.values()} == DOCUMENTED
