"""Sources whose frames are known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from framecast.camera import DEFAULT_FPS, Frame, Source
from framecast.clock import SYSTEM, Clock


class ListSource(Source):
    """Gives a list of frames; an exception in it is raised in its place.

    Args:
        frames: in their order.
        live: whether it is a camera, whose frames are lost if not taken. Give them times on the run's clock: a live
            frame's latency counts from its time.
        fps: nominal frames a second.
        name: what to call it.
        gap: seconds before each frame.
        clock: to wait by.

    Attributes:
        closed: whether it was closed.
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
    """Grey frames of ``size`` (height, width) that brighten by 2 levels each, over and over, 25 a second.

    Args:
        count: how many.
        size: of a frame.
        epoch: of all of them.
        start: index of the first.
    """
    frames = []
    for i in range(count):
        image = np.full((*size, 3), 2 * i % 256, np.uint8)
        frames.append(Frame(image, (start + i) / DEFAULT_FPS, start + i, epoch))
    return frames
