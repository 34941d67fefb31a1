"""The base of all sources that end: presentation times and looping."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from framecast.camera.media import MAX_PIXELS
from framecast.camera.reader import Reader
from framecast.camera.source import Frame, Image
from framecast.camera.timeline import Timeline
from framecast.errors import SourceError


class Timed(NamedTuple):
    """A picture, uint8 [H, W, 3] BGR, and its presentation time in seconds; None if the file stores no times."""

    image: Image
    time: float | None


class Clip(Reader):
    """A source that ends. The reader can read every frame.

    Times are in seconds from 0 at the first frame, and increase strictly. Where the file stores no times, frame i is at
    i / fps. When a clip loops, a new epoch begins; time and index keep counting.

    Args:
        name: its name in messages.
        fps: frames a second.
        loop: restart at the end instead of ending.
    """

    live = False
    fps: float

    def __init__(self, name: str, fps: float, loop: bool) -> None:
        super().__init__()
        self.name = name
        self.fps = fps
        self._loop = loop
        self._index = 0
        self._epoch = 0
        self._time = 0.0  # of the newest frame
        self._step: float | None = None  # seconds between the newest two frames
        self._begin(0.0)

    def _read(self) -> Frame | None:
        timed = self._next()
        if timed is None and self._index == 0:
            raise SourceError(
                f"cannot decode any frame: {self.name} (it is damaged, cut off or larger than {MAX_PIXELS} pixels; "
                "make the file again)"
            )
        if timed is None and self._loop:
            self._rewind()
            self._epoch += 1
            self._begin(self._time + self._interval)
            timed = self._next()
            if timed is None:
                raise SourceError(f"cannot restart: {self.name} (the file changed during playback; open it again)")
        if timed is None:
            return None
        time = self._timed(timed.time)
        if self._index:
            self._step = time - self._time
        self._time = time
        frame = Frame(timed.image, time, self._index, self._epoch)
        self._index += 1
        return frame

    @property
    def _interval(self) -> float:
        return self._step or 1 / self.fps

    def _begin(self, time: float) -> None:
        """Begin to play from the first picture, which is due at ``time``."""
        self._begun = time
        self._count = 0
        self._first: float | None = None  # the stamp of the pass's first frame
        self._timeline = Timeline(self.faults)

    def _timed(self, stamp: float | None) -> float:
        """The time of the next frame."""
        if stamp is None:
            self._count += 1
            return self._begun + (self._count - 1) / self.fps
        if self._first is None:
            self._first = stamp
        time = self._timeline.see(stamp - self._first, self._interval)
        if time is None:  # the stamps begin anew, as in files that were joined
            self._epoch += 1
            self._begin(self._time + self._interval)
            return self._timed(stamp)
        return self._begun + time

    @abstractmethod
    def _next(self) -> Timed | None:
        """Return the next picture of this pass, or None at the end."""

    @abstractmethod
    def _rewind(self) -> None:
        """Go back to the first picture."""
