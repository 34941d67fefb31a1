"""A window on the desktop: the newest frame, and the prediction made from it. It shows only the newest result.

The window runs in a separate process, in :func:`view`. A toolkit needs one thread, preferably the main thread, but that
one predicts. Qt aborts its process if it cannot reach the display, and Xlib ends its process if the display goes away.
In a separate process, neither can end the run and its recordings.
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
_PAUSE = 10  # ms for the toolkit between checks for a new picture
_ELSEWHERE = "--serve shows the run in a browser"


class WindowSink(Sink):
    """Shows the newest result. It skips results that come while it draws, and nobody waits for it.

    Args:
        closed: called in another thread when the user closes the window with q, Esc or its ✕.

    Raises:
        SinkError: no display can be reached, or this OpenCV has no windows.
    """

    def __init__(self, closed: Callable[[], None]) -> None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise SinkError(f"no window can be shown: there is no display, DISPLAY is not set ({_ELSEWHERE})")
        self._closed = closed
        self._news: Mailbox[Result] = Mailbox(newest=True)
        self._ready = threading.Event()
        self._opened = self._ending = False
        self._failure: str | None = None
        self._lines: deque[str] = deque(maxlen=20)
        # Import the same modules as this process, and none from the current folder.
        code = f"import sys; sys.path[:] = {sys.path!r}; from framecast.runtime.sinks.window import view; view()"
        self._process = subprocess.Popen(  # noqa: S603 (this Python, and our own code)
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the run
        )
        self._listener = threading.Thread(target=self._listen, name="framecast-window", daemon=True)
        self._sender = threading.Thread(target=self._send, name="framecast-window-pictures", daemon=True)
        self._listener.start()
        self._sender.start()
        self._ready.wait(START)
        if not self._opened:
            self.close()
            raise SinkError(f"no window can be shown: {self._failure or f'none came up in {START:g} s'} ({_ELSEWHERE})")

    def show(self, result: Result) -> None:
        """Leave the result for the window, and return at once.

        Raises:
            SinkError: the window has failed.
        """
        if self._failure is not None:
            raise SinkError(f"the window has failed: {self._failure} ({_ELSEWHERE})")
        self._news.put(result)

    def close(self) -> None:
        """Close the window. May be called twice."""
        self._ending = True
        self._news.close()
        if not self._opened:
            self._process.kill()
        self._listener.join(GRACE)  # the process ends when its input does, and this thread when the process does
        if self._listener.is_alive():
            self._process.kill()
            self._listener.join(GRACE)
        self._sender.join(GRACE)

    def _send(self) -> None:
        pipe = self._process.stdin
        with suppress(OSError):  # the window is gone
            while pipe and (result := self._news.get()) is not None:
                picture = now_and_late(result)
                pipe.write(_HEADER.pack(*picture.shape[:2]))
                pipe.write(picture.data)
                pipe.flush()
        with suppress(OSError):  # closing may fail to flush the buffer
            if pipe:
                pipe.close()

    def _listen(self) -> None:
        output = self._process.stdout
        while output and (line := output.readline(500)):
            if line == _READY:
                self._opened = True
                self._ready.set()
            elif text := line.decode(errors="replace").strip():
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

    with suppress(OSError):  # if the system has none, use the wheel's own
        # opencv-python's copy writes into a libX11 structure in its layout of years ago. libX11 1.8 then takes replies
        # that belong to Qt, among them the one that says that the window exists: in 9 of 60 trials it stayed black.
        ctypes.CDLL("libX11-xcb.so.1", mode=ctypes.RTLD_GLOBAL)
    try:
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.waitKey(1)
    except cv2.error as error:
        if "not implemented" in str(error):
            sys.exit(_NO_WINDOWS)
        sys.exit(" ".join(str(error).split()))
    os.write(1, _READY)
    threading.Thread(target=receive, daemon=True).start()
    shown: Image | None = None
    while cv2.waitKey(_PAUSE) & 0xFF not in (27, ord("q"), ord("Q")) and _is_open():
        if newest and newest[0] is not shown:
            if shown is None:
                cv2.resizeWindow(TITLE, newest[0].shape[1], newest[0].shape[0])
            shown = newest[0]
            cv2.imshow(TITLE, shown)
    os._exit(0)  # a normal exit would wait for a lock that the input thread holds


def _is_open() -> bool:
    """Whether the window is still open."""
    try:
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # from Qt, after its last window was closed
        return False
