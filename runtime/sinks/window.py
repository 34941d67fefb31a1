"""A window on the desktop: the newest frame, and the prediction made from it. It shows only the newest result.

The window runs in a separate process, in :func:`view`. A GUI toolkit needs one thread, preferably the main one, but
that one predicts. Qt aborts its process if it cannot reach the display, and Xlib ends its process if the display goes
away. In a separate process, neither can end the run and its recordings.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import cv2
import numpy as np

from framecast.camera import Image
from framecast.errors import SinkError
from framecast.runtime.mailbox import Mailbox
from framecast.runtime.sinks.picture import now_and_late
from framecast.runtime.sinks.sink import Result, Sink

TITLE = "framecast"
START = 30.0  # seconds that the window may take to open
GRACE = 3.0  # seconds that the window may take to close

_HEADER = struct.Struct("<II")  # height and width; then the pixels, [H, W, 3] BGR
_READY = b"ready\n"
_NO_WINDOWS = 3  # exit code
_PAUSE = 10  # ms that the toolkit gets between checks for a new picture


class Window:
    """A window in its own process.

    Args:
        shows: the function that the process runs, ``module:name``. It opens the window with :func:`open_window`, and
            ends the process with code 0 when its input ends or the user closes the window.
        closed: called in another thread when the user closes the window with q, Esc or its ✕.
        cure: what to do if no window can be shown, for error messages.

    Raises:
        SinkError: no display can be reached, or this OpenCV has no windows.
    """

    def __init__(self, shows: str, closed: Callable[[], None], cure: str) -> None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise SinkError(f"no window can be shown: there is no display, DISPLAY is not set ({cure})")
        self._closed = closed
        self._cure = cure
        self._ready = threading.Event()
        self._opened = self._ending = False
        self._failure: str | None = None
        self._lines: deque[str] = deque(maxlen=20)
        # Import the same modules as this process, and none from the current folder.
        module, _, name = shows.partition(":")
        code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import {name}; {name}()"
        self._process = subprocess.Popen(  # noqa: S603 (this Python, and our own code)
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the run
        )
        self._listener = threading.Thread(target=self._listen, name="framecast-window", daemon=True)
        self._listener.start()
        self._ready.wait(START)
        if not self._opened:
            self.close()
            raise SinkError(f"no window can be shown: {self._failure or f'it did not open in {START:g} s'} ({cure})")

    def check(self) -> None:
        """Raise an error if the window has failed.

        Raises:
            SinkError: the window has failed.
        """
        if self._failure is not None:
            raise SinkError(f"the window has failed: {self._failure} ({self._cure})")

    def close(self) -> None:
        """Close the window. May be called twice."""
        self._ending = True
        self._end_input()
        if not self._opened:
            self._process.kill()
        self._listener.join(GRACE)  # the process ends with its input, and this thread with the process
        if self._listener.is_alive():
            self._process.kill()
            self._listener.join(GRACE)

    def _end_input(self) -> None:
        """End the process's input. A subclass whose input is written by another thread overrides this."""
        with suppress(OSError):  # closing may fail to flush the buffer
            if self._process.stdin:
                self._process.stdin.close()

    def _hear(self, line: bytes) -> bool:
        """Handle a line of the process's output. Returns False if it is the toolkit's, not ours."""
        return False

    def _listen(self) -> None:
        output = self._process.stdout
        while output and (line := output.readline(500)):
            if line == _READY:
                self._opened = True
                self._ready.set()
            elif not self._hear(line) and (text := line.decode(errors="replace").strip()):
                self._lines.append(text)
        if output:
            output.close()
        code = self._process.wait()
        if code == 0 and not self._ending:
            self._closed()
        elif not self._ending:
            self._failure = self._why(code)
        self._ready.set()

    def _why(self, code: int) -> str:
        if code == _NO_WINDOWS:
            return "this OpenCV is the headless build: pip install opencv-python in its place"
        text = "".join(c if c.isprintable() else " " for c in (self._lines[0] if self._lines else f"exit code {code}"))
        return f"{text}, DISPLAY is {os.environ.get('DISPLAY', 'not set')}"


class WindowSink(Window, Sink):
    """Shows the newest result. It skips results that come while it draws, so the run never waits for it.

    Args:
        closed: called in another thread when the user closes the window with q, Esc or its ✕.

    Raises:
        SinkError: no display can be reached, or this OpenCV has no windows.
    """

    def __init__(self, closed: Callable[[], None]) -> None:
        self._news: Mailbox[Result] = Mailbox(newest=True)
        self._sender = threading.Thread(target=self._send, name="framecast-window-pictures", daemon=True)
        super().__init__(f"{__name__}:{view.__name__}", closed, "--serve shows the run in a browser")
        self._sender.start()

    def show(self, result: Result) -> None:
        """Leave the result for the window, and return at once.

        Raises:
            SinkError: the window has failed.
        """
        self.check()
        self._news.put(result)

    def close(self) -> None:
        """Close the window. May be called twice."""
        super().close()
        if self._sender.ident is not None:
            self._sender.join(GRACE)

    def _end_input(self) -> None:
        self._news.close()
        if self._sender.ident is None:  # it never opened
            super()._end_input()

    def _send(self) -> None:
        pipe = self._process.stdin
        with suppress(OSError):  # the window is gone
            while pipe and (result := self._news.get()) is not None:
                picture = now_and_late(result)
                pipe.write(_HEADER.pack(*picture.shape[:2]))
                pipe.write(picture.data)
                pipe.flush()
        super()._end_input()


def view() -> None:
    """Show the pictures from stdin until they end or the user closes the window. Then end the process."""
    newest: list[Image] = []

    def receive() -> None:
        with suppress(OSError):
            while len(header := sys.stdin.buffer.read(_HEADER.size)) == _HEADER.size:
                height, width = _HEADER.unpack(header)
                pixels = np.frombuffer(sys.stdin.buffer.read(height * width * 3), np.uint8)
                newest[:] = [pixels.reshape(height, width, 3)]
        os._exit(0)  # whatever the toolkit is doing

    open_window(TITLE)
    threading.Thread(target=receive, daemon=True).start()
    shown: Image | None = None
    while wait(TITLE, _PAUSE):
        if newest and newest[0] is not shown:
            if shown is None:
                cv2.resizeWindow(TITLE, newest[0].shape[1], newest[0].shape[0])
            shown = newest[0]
            cv2.imshow(TITLE, shown)
    os._exit(0)  # a normal exit would wait for a lock that the input thread holds


def open_window(title: str) -> None:
    """Open the window in this process and report it on stdout. On failure, end the process with the reason."""
    with suppress(OSError):  # if the system has none, use the wheel's own
        # opencv-python's copy writes to a libX11 structure in an outdated layout. libX11 1.8 then takes replies that
        # belong to Qt, among them the one that confirms the window: in 9 of 60 trials the window stayed black.
        ctypes.CDLL("libX11-xcb.so.1", mode=ctypes.RTLD_GLOBAL)
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.waitKey(1)
    except cv2.error as error:
        if "not implemented" in str(error):
            sys.exit(_NO_WINDOWS)
        sys.exit(" ".join(str(error).split()))
    os.write(1, _READY)


def wait(title: str, milliseconds: int) -> bool:
    """Let the toolkit work for a while. Returns whether the window is still open."""
    if cv2.waitKey(milliseconds) & 0xFF in (27, ord("q"), ord("Q")):
        return False
    try:
        return cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # from Qt, after its last window was closed
        return False
