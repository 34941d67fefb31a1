"""The base of all sources that end: media time and looping."""

from __future__ import annotations

from abc import abstractmethod

from framecast.camera.reader import Reader
from framecast.camera.source import Frame, Image
from framecast.errors import SourceError


class Clip(Reader):
    """A source with a constant frame rate. The reader can read every frame.

    The time of frame i is i / fps, in seconds. When a clip loops, a new epoch begins; time and index keep counting.

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

    def _read(self) -> Frame | None:
        image = self._next()
        if image is None and self._index == 0:
            raise SourceError(f"cannot decode any frame: {self.name} (it is damaged or cut off; make the file again)")
        if image is None and self._loop:
            self._rewind()
            self._epoch += 1
            image = self._next()
            if image is None:
                raise SourceError(f"cannot restart: {self.name} (the file changed during playback; open it again)")
        if image is None:
            return None
        frame = Frame(image, self._index / self.fps, self._index, self._epoch)
        self._index += 1
        return frame

    @abstractmethod
    def _next(self) -> Image | None:
        """Return the next picture of this pass, or None at the end."""

    @abstractmethod
    def _rewind(self) -> None:
        """Go back to the first picture."""
