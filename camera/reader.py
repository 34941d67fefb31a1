"""How every source is closed while another thread reads it."""

from __future__ import annotations

import threading
from abc import abstractmethod

from framecast.camera.source import Frame, Source


class Reader(Source):
    """A source that one thread reads and any thread closes.

    OpenCV crashes when a capture is released while another thread is inside its read. So close() only releases what
    nobody reads; a reader that is inside read() releases when it comes out, and then returns None.
    """

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._closed = False
        self._released = False

    def read(self) -> Frame | None:
        """The next frame; blocks until there is one. None at the end of a clip, and once the source is closed.

        Raises:
            SourceError: the source was lost, or holds something that is no frame.
        """
        try:
            with self._busy:
                frame = None if self._closed else self._read()
            return None if self._closed else frame
        finally:
            if self._closed:
                self._release_if_idle()

    def close(self) -> None:
        """Let go of the device or file; at once, or when the read that is under way returns."""
        self._closed = True
        self._release_if_idle()

    def _release_if_idle(self) -> None:
        # Whoever holds the lock looks at _closed after letting it go, so one of the two always gets here.
        if self._busy.acquire(blocking=False):
            try:
                if not self._released:
                    self._released = True
                    self._release()
            finally:
                self._busy.release()

    @abstractmethod
    def _read(self) -> Frame | None:
        """As read(); never called by two threads at once, nor after _release()."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of the device or file; called once."""
