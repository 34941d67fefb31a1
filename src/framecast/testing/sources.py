"""Sources whose frames are known in advance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from framecast.camera import DEFAULT_FPS, Frame, Source
from framecast.clock import SYSTEM, Clock


class ListSource(Source):
    """Returns the frames of a list. An exception in the list is raised in its place.

    Args:
        frames: the frames and exceptions, in order.
        live: whether it is a camera, whose frames are lost if nobody takes them. Their times must then be on the run's
            clock, because a live frame's latency counts from its time.
        fps: nominal frames per second.
        name: its name in messages.
        gap: seconds to wait before each frame.
        clock: the clock to wait on.

    Attributes:
        closed: whether it is closed.
    """

    def __init__(
        self,
        frames: Iterable[Frame | Exception],
        *,
        live: bool = False,
        fps: float | None = DEFAULT_FPS,
        name: str = "a list",
        gap: float = 0.0,
        clock: Clock = SYSTEM,
    ) -> None:
        self.live, self.fps, self.name = live, fps, name
        self.closed = False
        self._rest: Iterator[Frame | Exception] = iter(frames)
        self._gap, self._clock = gap, clock

    def read(self) -> Frame | None:
        """See :meth:`framecast.Source.read`."""
        if self._gap:
            self._clock.wait_until(self._clock.now() + self._gap)
        frame = None if self.closed else next(self._rest, None)
        if isinstance(frame, Exception):
            raise frame
        return frame

    def close(self) -> None:
        """See :meth:`framecast.Source.close`."""
        self.closed = True


def shades(count: int, *, size: tuple[int, int] = (12, 16), epoch: int = 0, start: int = 0) -> list[Frame]:
    """Grey frames at 25 per second. Each is 2 levels brighter than the last, and starts again at black after white.

    Args:
        count: number of frames.
        size: (height, width) of a frame.
        epoch: epoch of all frames.
        start: index of the first frame.
    """
    frames = []
    for i in range(count):
        image = np.full((*size, 3), 2 * i % 256, np.uint8)
        frames.append(Frame(image, (start + i) / DEFAULT_FPS, start + i, epoch))
    return frames
