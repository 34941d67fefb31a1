"""Progress of a command: on a terminal a bar without a thread of its own, otherwise a line now and then."""

from __future__ import annotations

import threading

import pytest
from rich.console import Console

from framecast.cli import progress


class Clock:
    """A clock that the test sets."""

    now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_without_a_terminal_there_is_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress() as show:
        for second in range(100):
            clock.now = 50.0 + second
            show(second / 100, f"frame {second}")
        show(None, "not yet")
        clock.now += 30
        show(None, "opening")
    assert capsys.readouterr().err == " 30.0%  frame 30\n 60.0%  frame 60\n 90.0%  frame 90\nopening\n"


def test_the_first_line_may_come_at_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(silent=0) as show:
        show(0.5, "half")
        show(0.6, "more")
    assert capsys.readouterr().err == " 50.0%  half\n"


def test_a_bar_is_drawn_in_the_calling_thread_and_not_too_often(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    threads = threading.active_count()
    with progress.progress() as show:
        for step in range(100):
            clock.now += 0.01
            show(step / 100, f"[word {step}]")  # brackets are shown, not read as markup
        assert threading.active_count() == threads
        show(1, "all of it")
    err = capsys.readouterr().err
    drawn = [step for step in range(100) if f"[word {step}]" in err]
    assert 8 <= len(drawn) <= 12
    assert "all of it" in err
    assert "100%" in err
