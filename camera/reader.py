"""The base of every source that one thread reads while another may close it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import Counter

from framecast.camera.source import Frame, Source
from framecast.errors import SourceError


class Reader(Source):
    """A source that one thread reads and any thread closes.

    OpenCV crashes if a capture is released during a read in another thread. So close() releases the source only if
    nobody is reading. Otherwise the reader releases it when its read() finishes, and that read() returns None.
    """

    def __init__(self, faults: Counter[str] | None = None, notes: list[str] | None = None) -> None:
        self.faults: Counter[str] = Counter() if faults is None else faults
        self.notes: list[str] = [] if notes is None else notes
        self._busy = threading.Lock()
        self._closed = False
        self._released = False

    def read(self) -> Frame | None:
        """Wait for the next frame. Returns None at the end of a clip and after the source was closed.

        Raises:
            SourceError: the source was lost, or its data is not a frame.
        """
        try:
            with self._busy:
                frame = None if self._closed else self._read()
            return None if self._closed else frame
        except SourceError:
            if self._closed:  # it ended because it was closed
                return None
            raise
        finally:
            if self._closed:
                self._release_if_idle()

    def close(self) -> None:
        """Release the device or file: at once, or when the running read returns."""
        self._closed = True
        self._release_if_idle()

    def _release_if_idle(self) -> None:
        # The lock's holder checks _closed after unlocking, so one of the two threads always gets here.
        if self._busy.acquire(blocking=False):
            try:
                if not self._released:
                    self._released = True
                    self._release()
            finally:
                self._busy.release()

    @abstractmethod
    def _read(self) -> Frame | None:
        """Like read(), but never called by two threads at once or after _release()."""

    @abstractmethod
    def _release(self) -> None:
        """Release the device or file. Called once."""
