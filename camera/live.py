"""The base of all cameras and streams: it stamps the frames, and notices a lost source."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from framecast.camera.pool import Pool
from framecast.camera.reader import Reader
from framecast.camera.source import Frame, Times
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError

if TYPE_CHECKING:
    import cv2

OLDEST = 2.0  # seconds before its grab: an older stamp is on another clock, or wrong
_POS_MSEC = 0  # cv2.CAP_PROP_POS_MSEC


class LiveSource(Reader):
    """A camera or stream. Read it continuously in a thread: unread frames queue up, and later reads get old frames.

    A broken capture never recovers, so a lost source stays lost. Open it again.

    Args:
        name: its name in messages, without credentials.
        capture: the opened capture.
        fps: nominal frames a second, or None.
        patience: seconds that a read may take. Later frames are not trusted: after a timeout, FFmpeg still returns
            frames that its decoder held back.
        cure: what to do when the source is lost.
        stamped: whether the capture's position in milliseconds is when the driver stamped the frame, on the machine's
            monotonic clock. A stamp is believed if it is later than the frame before, not later than the grab, and at
            most ``OLDEST`` before it; else the frame's time is its grab.
        clock: stamps the frames with their grab time.
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
        stamped: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__()
        self.name = name
        self.fps = fps
        self._capture = capture
        self._patience = patience
        self._cure = cure
        self._stamped = stamped
        self._clock = clock
        self._pool = Pool()
        self._shape: tuple[int, ...] | None = None  # of the last frame; the next one is decoded into this shape
        self._index = 0
        self._time = -math.inf  # of the last frame
        self._times: Times = "arrival"
        self._lost: str | None = None

    @property
    def times(self) -> Times:
        """See :attr:`Source.times`."""
        return self._times

    def _read(self) -> Frame | None:
        if self._lost is None:
            begun = self._clock.now()
            more = self._capture.grab()
            grabbed = self._clock.now()
            stamp = self._stamp(grabbed) if more and self._stamped else None
            if grabbed - begun >= self._patience:
                self._lost = f"lost {self.name}: no frame for {self._patience:g} s ({self._cure})"
            else:
                into = self._pool.take(self._shape) if self._shape else None
                more, image = self._capture.retrieve(into) if more else (False, None)
                if more and image is not None:
                    self._shape = image.shape
                    self._times = "arrival" if stamp is None else "capture"
                    self._time = grabbed if stamp is None else stamp
                    frame = Frame(image, self._time, self._index)  # type: ignore[arg-type]  # OpenCV's stubs allow any dtype
                    self._index += 1
                    return frame
                self._lost = f"lost {self.name}: it ended or broke off ({self._cure})"
        raise SourceError(self._lost)

    def _stamp(self, grabbed: float) -> float | None:
        """The driver's stamp of the grabbed frame in seconds, or None if it cannot be right."""
        stamp = 1e-3 * self._capture.get(_POS_MSEC)
        return stamp if max(self._time, grabbed - OLDEST) < stamp <= grabbed else None  # NaN fails too

    def _release(self) -> None:
        self._capture.release()
