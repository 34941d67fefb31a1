"""What a source is: frames, each with the time at which it was grabbed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # [H, W, 3] BGR
DEFAULT_FPS = 25.0  # frames a second of a source that does not say


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    Attributes:
        image: uint8 [H, W, 3], BGR.
        time: seconds. Of a live source the moment of the grab, on its clock; of a file its place in the clip.
        index: number of the frame in its source from 0, counted before any is dropped.
        epoch: counts up where the stream is broken (a clip starts over): nothing before it explains what follows.
    """

    image: Image
    time: float
    index: int
    epoch: int = 0


class Source(ABC):
    """An opened camera, stream, clip or folder. Close it, or use it in a ``with``.

    Attributes:
        name: what to call it in messages; credentials are never part of it.
        live: frames come at their own time and are lost if not taken (a camera); otherwise every one can be read.
        fps: nominal frames a second, or None where the source does not say.
    """

    name: str
    live: bool
    fps: float | None

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame; blocks until there is one. None at the end of a clip, and once the source is closed.

        Raises:
            SourceError: the source was lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the device or file. May be called twice, and from another thread than the reader's.

        It waits for no read: one that is under way lets go of the device when it returns, and returns None.
        """

    def __iter__(self) -> Iterator[Frame]:
        """The frames to come, to the end."""
        return iter(self.read, None)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
