"""What cameras and streams have in common: the time of the grab, and being lost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from framecast.camera.pool import Pool
from framecast.camera.reader import Reader
from framecast.camera.source import Frame
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError

if TYPE_CHECKING:
    import cv2


class LiveSource(Reader):
    """A camera or stream. Read it all the time, in a thread: what is not read queues up, and what is read then is old.

    A broken capture never recovers, so once lost it stays lost; open the source again.

    Args:
        name: what to call it in messages, without credentials.
        capture: the opened capture.
        fps: nominal frames a second, or None.
        patience: seconds that a read may take. What comes later is not trusted: FFmpeg, once it timed out, still hands
            out frames that its decoder had held back.
        cure: what to do when it is lost.
        clock: on which frames say when they were grabbed.
    """

    live = True

    def __init__(
        self,
        name: str,
        capture: cv2.VideoCapture,
        fps: float | None,
        *,
        patience: float = math.inf,
        cure: str,
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__()
        self.name = name
        self.fps = fps
        self._capture = capture
        self._patience = patience
        self._cure = cure
        self._clock = clock
        self._pool = Pool()
        self._shape: tuple[int, ...] | None = None  # of the frame before, into the like of which the next is decoded
        self._index = 0
        self._lost: str | None = None

    def _read(self) -> Frame | None:
        if self._lost is None:
            begun = self._clock.now()
            more = self._capture.grab()
            grabbed = self._clock.now()
            if grabbed - begun >= self._patience:
                self._lost = f"lost {self.name}: no frame for {self._patience:g} s ({self._cure})"
            else:
                into = self._pool.take(self._shape) if self._shape else None
                more, image = self._capture.retrieve(into) if more else (False, None)
                if more and image is not None:
                    self._shape = image.shape
                    frame = Frame(image, grabbed, self._index)  # type: ignore[arg-type]  # OpenCV's stubs allow any dtype
                    self._index += 1
                    return frame
                self._lost = f"lost {self.name}: it ended or broke off ({self._cure})"
        raise SourceError(self._lost)

    def _release(self) -> None:
        self._capture.release()
