"""What a source with an end has in common: media time, and starting over."""

from __future__ import annotations

from abc import abstractmethod

from framecast.camera.reader import Reader
from framecast.camera.source import Frame, Image
from framecast.errors import SourceError


class Clip(Reader):
    """Frames at a constant rate, every one of which can be read.

    The time of frame i is i / fps, in seconds. A clip that loops goes on counting where it starts over, in a new epoch.

    Args:
        name: what to call it in messages.
        fps: frames a second.
        loop: start over at the end instead of ending.
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
            raise SourceError(f"no frame can be decoded: {self.name} (damaged, or cut off: make the file again)")
        if image is None and self._loop:
            self._rewind()
            self._epoch += 1
            image = self._next()
            if image is None:
                raise SourceError(f"cannot start over: {self.name} (it changed while it was played)")
        if image is None:
            return None
        frame = Frame(image, self._index / self.fps, self._index, self._epoch)
        self._index += 1
        return frame

    @abstractmethod
    def _next(self) -> Image | None:
        """The next picture of this pass, or None at its end."""

    @abstractmethod
    def _rewind(self) -> None:
        """Go back to the first picture."""
