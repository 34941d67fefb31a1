"""The window on a virtual display: its contents, how it ends, and the errors if there can be no window."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from framecast.camera import Frame
from framecast.errors import SinkError
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks import window
from framecast.runtime.sinks.blink import TITLE as BLINKING
from framecast.runtime.sinks.blink import BlinkWindow
from framecast.runtime.sinks.picture import CAPTION, GAP, now_and_late
from framecast.runtime.sinks.sink import Result
from framecast.runtime.sinks.window import WindowSink
from framecast.testing import STAMPS

H, W = 240, 320
SCREEN = (720, 1280)


def event(red: int) -> Result:
    """A grey frame, and a red prediction."""
    real, guess = np.full((H, W, 3), 60, np.uint8), np.zeros((H, W, 3), np.uint8)
    guess[..., 2] = red
    return Result(Frame(real, 0.0, 0), real, Prediction(guess, 0.04, 0.04), STAMPS)


def until(done: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass(frozen=True)
class Display:
    """A virtual display.

    Attributes:
        name: its name, as in DISPLAY.
        process: the X server.
        memory: the file that holds its pixels.
    """

    name: str
    process: subprocess.Popen[str]
    memory: Path

    def screen(self) -> np.ndarray:
        """Its pixels, uint8 [H, W, 3] BGR."""
        height, width = SCREEN
        pixels = np.fromfile(self.memory, np.uint8)[-4 * height * width :]  # XWD: a header, then BGRX
        return pixels.reshape(height, width, 4)[..., :3]

    def window(self, title: str = "framecast") -> int:
        """Wait for the window; its number."""
        command = ["xdotool", "search", "--sync", "--onlyvisible", "--name", f"^{title}$"]
        return int(subprocess.check_output(command, env=self.environment, text=True).split()[0])

    def press(self, key: str, title: str = "framecast") -> None:
        number = str(self.window(title))
        subprocess.check_call(["xdotool", "windowfocus", "--sync", number, "key", key], env=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DISPLAY": self.name}

    def press_close(self) -> None:
        """Ask the window to close, as a window manager does when its ✕ is clicked."""
        x11 = ctypes.CDLL(ctypes.util.find_library("X11"))
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XInternAtom.restype = ctypes.c_ulong
        display = ctypes.c_void_p(x11.XOpenDisplay(self.name.encode()))
        assert display.value, "the display cannot be opened"
        number = self.window()
        kinds = [x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")]
        # XClientMessageEvent: type 33, serial, send_event, display, window, message_type, format 32, data
        message = (ctypes.c_long * 24)(33, 0, 0, display.value, number, kinds[0], 32, kinds[1])
        x11.XSendEvent(display, ctypes.c_ulong(number), 0, ctypes.c_long(0), ctypes.byref(message))
        x11.XCloseDisplay(display)


@pytest.fixture
def display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Display]:
    if missing := [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]:
        pytest.skip(f"no {' '.join(missing)} (make system-deps)")
    if "NONE" in cv2.getBuildInformation().partition("GUI:")[2].partition("\n")[0]:
        pytest.skip("this OpenCV has no windows (pip install opencv-python)")
    size = f"{SCREEN[1]}x{SCREEN[0]}x24"
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", size, "-fbdir", str(tmp_path), "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        number = server.stdout.readline().strip()
        assert number.isdecimal()
        monkeypatch.setenv("DISPLAY", f":{number}")
        yield Display(f":{number}", server, tmp_path / "Xvfb_screen0")
        server.terminate()


class Watched(WindowSink):
    """A window; ``gone`` is set when the user closes it."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        super().__init__(self.gone.set)


@pytest.fixture
def sink(display: Display) -> Iterator[Watched]:
    shown = Watched()
    yield shown
    shown.close()
    shown.close()
    assert shown._process.returncode is not None


def test_the_window_shows_the_newest_result(display: Display, sink: Watched) -> None:
    for red in range(256):
        sink.show(event(red))
    expected = now_and_late(event(255))
    size = expected.shape[:2]
    until(lambda: any(np.array_equal(expected, part) for part in places(display.screen(), size)))
    assert (expected[CAPTION:, W + GAP :] == (0, 0, 255)).all()


def places(screen: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The part of the screen of that size, from the first pixel that is not black. Empty if all pixels are black."""
    rows, columns = np.nonzero(screen.any(axis=2))
    if rows.size:
        top, left = rows.min(), columns.min()
        yield screen[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize("way", ["q", "Escape", "✕"])
def test_the_user_closes_the_window(display: Display, sink: Watched, way: str) -> None:
    sink.show(event(200))
    until(lambda: display.screen().any())
    display.press_close() if way == "✕" else display.press(way)
    until(sink.gone.is_set)
    assert sink._process.returncode == 0
    sink.show(event(1))  # no error, because the run has not ended yet


def test_a_window_that_hangs_blocks_nothing(display: Display, sink: Watched) -> None:
    sink._process.send_signal(signal.SIGSTOP)
    for red in range(200):
        sink.show(event(red))
    assert sink._news.dropped > 150
    sink.close()
    assert sink._process.returncode == -signal.SIGKILL
    assert not sink.gone.is_set()


def test_a_lost_display_is_reported(display: Display, sink: Watched) -> None:
    sink.show(event(1))
    display.process.kill()
    until(lambda: sink._failure)
    with pytest.raises(SinkError, match=r"^the window has failed: .*--serve shows the run in a browser") as raised:
        sink.show(event(2))
    assert str(raised.value).isprintable()


def test_a_run_ends_with_its_window(display: Display, tmp_path: Path) -> None:
    video, report = tmp_path / "run.avi", tmp_path / "run.json"
    outputs = ["--record", str(video), "--json", str(report)]
    command = [sys.executable, "-W", "error", "-m", "framecast", "run", "demo", "--show", "--loop", *outputs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: video.exists() and video.stat().st_size > 100_000)
        display.press("q")
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
    figures = json.loads(report.read_text())
    assert figures["ended"] == "interrupted"
    assert figures["frames"] > 5
    capture, frames = cv2.VideoCapture(str(video)), 0
    while capture.read()[0]:
        frames += 1
    assert frames >= figures["frames"]  # the recording fills in dropped frames


def test_a_window_that_blinks(display: Display) -> None:
    with BlinkWindow() as blinking:
        until(lambda: (display.screen() == 255).mean() > 0.5)
        until(lambda: (display.screen() == 255).mean() < 0.1)
        until(lambda: len(blinking.changes) >= 4)
        blinking.check()
        assert all(gap > 0.29 for gap in np.diff(blinking.changes))
        assert blinking.changes[-1] <= time.monotonic()
        display.press("q", BLINKING)
        until(blinking._gone.is_set)
        with pytest.raises(SinkError, match="the window was closed before the end: leave it open"):
            blinking.check()
    assert blinking._process.returncode == 0


def test_no_display(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, _, err = run("run", "demo", "--show")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("framecast: no window can be shown: there is no display, DISPLAY is not set (--serve shows")


def prelude(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run this code first in the window's process."""
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return popen([*command[:-1], f"{code}\n{command[-1]}"], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setenv("DISPLAY", ":77")


def test_an_opencv_without_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in the headless build.
    error = "cv2.error('The function is not implemented. Rebuild')"
    prelude(monkeypatch, f"import cv2\ndef none(*_):\n raise {error}\ncv2.namedWindow = none")
    with pytest.raises(SinkError, match="the headless build: pip install opencv-python in its place"):
        WindowSink(lambda: None)


def test_a_window_that_never_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    prelude(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(window, "START", 0.5)
    with pytest.raises(SinkError, match=r"it did not open in 0\.5 s"):
        WindowSink(lambda: None)


def test_a_display_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":77")
    with pytest.raises(SinkError, match=r"^no window can be shown: .*\(--serve shows") as raised:
        WindowSink(lambda: None)
    assert str(raised.value).isprintable()
    assert "it did not open in" not in str(raised.value)  # no timeout
