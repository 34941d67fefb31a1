"""A window on the desktop: input, prediction and error side by side, the newest picture only.

The window is a process of its own, which runs :func:`view`. A toolkit wants one thread, best the main one, and that one
predicts; Qt aborts the process that cannot reach its display, and Xlib ends the process whose display goes away: so
neither takes the run and its recordings along.
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
from framecast.runtime.sinks.picture import triptych
from framecast.runtime.sinks.sink import Result, Sink

TITLE = "framecast"
START = 30.0  # seconds that the window may take to open
GRACE = 3.0  # seconds that it may take to close

_HEADER = struct.Struct("<II")  # height and width; then the pixels, [H, W, 3] BGR
_READY = b"ready\n"
_NO_WINDOWS = 3  # exit code
_PAUSE = 10  # ms that the toolkit works between looks for a new picture
_ELSEWHERE = "--serve shows the run in a browser"


class WindowSink(Sink):
    """Shows the newest result; those that come while it draws are left out, and nobody waits for it.

    Args:
        closed: called, in another thread, when the user closes the window: by q, Esc or its ✕.

    Raises:
        SinkError: there is no display that can be reached, or this OpenCV has no windows.
    """

    def __init__(self, closed: Callable[[], None]) -> None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise SinkError(f"no window can be shown: there is no display here, DISPLAY is not set ({_ELSEWHERE})")
        self._closed = closed
        self._news: Mailbox[Result] = Mailbox(newest=True)
        self._ready = threading.Event()
        self._opened = self._ending = False
        self._failure: str | None = None
        self._said: deque[str] = deque(maxlen=20)
        # The modules that are ours here, and none that lies in the folder where we were started.
        code = f"import sys; sys.path[:] = {sys.path!r}; from framecast.runtime.sinks.window import view; view()"
        self._process = subprocess.Popen(  # noqa: S603 (this Python, and a text of ours)
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the run alone
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
        """Leave the result for the window: returns at once.

        Raises:
            SinkError: the window has failed.
        """
        if self._failure is not None:
            raise SinkError(f"the window has failed: {self._failure} ({_ELSEWHERE})")
        self._news.put(result)

    def close(self) -> None:
        """Take the window away. May be called twice."""
        self._ending = True
        self._news.close()
        if not self._opened:
            self._process.kill()
        self._listener.join(GRACE)  # the process ends with its input, and this thread with the process
        if self._listener.is_alive():
            self._process.kill()
            self._listener.join(GRACE)
        self._sender.join(GRACE)

    def _send(self) -> None:
        pipe = self._process.stdin
        with suppress(OSError):  # the window is gone
            while pipe and (result := self._news.get()) is not None:
                picture = triptych(result)
                pipe.write(_HEADER.pack(*picture.shape[:2]))
                pipe.write(picture.data)
                pipe.flush()
        with suppress(OSError):  # there may be something in its buffer
            if pipe:
                pipe.close()

    def _listen(self) -> None:
        output = self._process.stdout
        while output and (line := output.readline(500)):
            if line == _READY:
                self._opened = True
                self._ready.set()
            elif text := line.decode(errors="replace").strip():
                self._said.append(text)
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
            return "this OpenCV has none, it is the headless build: pip install opencv-python in its place"
        said = "".join(c if c.isprintable() else " " for c in (self._said[0] if self._said else f"exit code {code}"))
        return f"{said}, DISPLAY is {os.environ.get('DISPLAY', 'not set')}"


def view() -> None:
    """Show the pictures that come on stdin until they end or the user has enough; then leave the process."""
    newest: list[Image] = []

    def receive() -> None:
        with suppress(OSError):
            while len(header := sys.stdin.buffer.read(_HEADER.size)) == _HEADER.size:
                height, width = _HEADER.unpack(header)
                pixels = np.frombuffer(sys.stdin.buffer.read(height * width * 3), np.uint8)
                newest[:] = [pixels.reshape(height, width, 3)]
        os._exit(0)  # whatever the toolkit is doing

    with suppress(OSError):  # not here: the wheel's own, then
        # opencv-python's copy writes into a structure of libX11 as it was years ago, so that libX11 1.8 takes results
        # that are Qt's, the one that says the window is there among them: in 9 of 60 trials it stayed black.
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
    os._exit(0)  # the thread that waits for input holds a lock that Python's own exit would want


def _is_open() -> bool:
    """Whether the user has left the window there."""
    try:
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # Qt, whose last window has been closed
        return False
