"""A window that blinks black and white at random times and records them, to measure a camera's delay."""

from __future__ import annotations

import os
import random
import sys
import threading
from contextlib import suppress
from types import TracebackType

import cv2
import numpy as np

from framecast.clock import SYSTEM
from framecast.errors import SinkError
from framecast.runtime.delay import GAPS
from framecast.runtime.sinks.window import Window, open_window, wait

TITLE = "framecast delay"
SIZE = (720, 960)  # initial height and width in pixels

_CHANGED = b"changed "  # followed by the time in seconds
_PAUSE = 2  # ms that the toolkit gets between checks whether a change is due


class BlinkWindow(Window):
    """The window, in its own process. Use it in a ``with`` statement.

    Attributes:
        changes: when it was asked to turn white, black, white, … in seconds on the machine's clock. It starts black.

    Raises:
        SinkError: no display can be reached, or this OpenCV has no windows.
    """

    def __init__(self) -> None:
        self.changes: list[float] = []
        self._gone = threading.Event()
        cure = "run it on a machine whose screen the camera can see, and not over ssh"
        super().__init__(f"{__name__}:{blink.__name__}", self._gone.set, cure)

    def check(self) -> None:
        """Raise an error if the window is gone.

        Raises:
            SinkError: the window has failed, or the user has closed it.
        """
        super().check()
        if self._gone.is_set():
            raise SinkError("the window was closed before the end: leave it open, and try again")

    def __enter__(self) -> BlinkWindow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hear(self, line: bytes) -> bool:
        if not line.startswith(_CHANGED):
            return False
        self.changes.append(float(line.removeprefix(_CHANGED)))
        return True


def blink() -> None:
    """Blink until stdin ends or the user closes the window, then end the process."""

    def end() -> None:
        with suppress(OSError):
            sys.stdin.buffer.read()
        os._exit(0)  # whatever the toolkit is doing

    open_window(TITLE)
    threading.Thread(target=end, daemon=True).start()
    fields = [np.full((*SIZE, 3), level, np.uint8) for level in (0, 255)]
    chance = random.Random()  # noqa: S311 (not for secrets)
    cv2.resizeWindow(TITLE, SIZE[1], SIZE[0])
    cv2.imshow(TITLE, fields[0])
    white, due = 0, SYSTEM.now() + GAPS[1]
    while wait(TITLE, _PAUSE):
        if (now := SYSTEM.now()) >= due:
            white, due = 1 - white, now + chance.uniform(*GAPS)
            cv2.imshow(TITLE, fields[white])
            os.write(1, b"%s%.6f\n" % (_CHANGED, now))
    os._exit(0)  # a normal exit would wait for a lock that the input thread holds
