"""The base of all cameras and streams: it stamps the frames, and notices a lost source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from framecast.camera.reader import Reader
from framecast.camera.source import Frame, Image, Times
from framecast.camera.timeline import CATCH_UP
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError

OLDEST = 2.0  # seconds before its grab: an older stamp is on another clock, or wrong


class Capture(Protocol):
    """An opened camera or stream, as :class:`LiveSource` reads it."""

    def grab(self) -> bool:
        """Wait for the next frame; False if the source was lost."""

    def stamp(self) -> float | None:
        """When the grabbed frame was captured, in seconds on the monotonic clock; None if unknown."""

    def retrieve(self) -> Image | None:
        """The grabbed frame as uint8 [H, W, 3] BGR, in an array that nobody else holds; None if it is no picture."""

    def reason(self) -> str:
        """Why the newest grab or retrieve failed."""

    def release(self) -> None:
        """Release the device or connection."""


class LiveSource(Reader):
    """A camera or stream. Read it continuously in a thread: unread frames queue up, and later reads get old frames.

    A broken capture never recovers, so a lost source stays lost. Open it again.

    A capture's stamp is believed if it is later than the last one, not later than the grab, and at most ``OLDEST``
    before it. Otherwise the frame's time is its grab. Times increase strictly: where stamps begin after frames without
    (RTSP tells its first after seconds), times advance at half speed until they agree with the stamps.

    Args:
        name: its name in messages, without credentials.
        capture: the opened capture.
        fps: nominal frames a second, or None.
        patience: seconds that a read may take. Later frames are not trusted: after a timeout, a decoder may still
            return frames that it held back.
        cure: what to do when the source is lost.
        stop: called when it is closed, from any thread: a running grab may return without a frame.
        ended: whether the capture, after a failed grab, is at the end of a stream that may end.
        clock: stamps the frames with their grab time.
        faults: see :attr:`Source.faults`; the capture counts in it.
        notes: see :attr:`Source.notes`; the capture adds to it.
    """

    live = True

    def __init__(
        self,
        name: str,
        capture: Capture,
        fps: float | None,
        *,
        patience: float = math.inf,
        cure: str,
        stop: Callable[[], None] = lambda: None,
        ended: Callable[[], bool] = lambda: False,
        clock: Clock = SYSTEM,
        faults: Counter[str] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        super().__init__(faults, notes)
        self.name = name
        self.fps = fps
        self._capture = capture
        self._patience = patience
        self._cure = cure
        self._ended = ended
        self._stop = stop
        self._clock = clock
        self._index = 0
        self._time = self._before = -math.inf  # of the last frame; the last stamp that was believed
        self._times: Times = "arrival"
        self._lost: str | None = None

    @property
    def times(self) -> Times:
        """See :attr:`Source.times`."""
        return self._times

    def close(self) -> None:
        """See :meth:`Source.close`."""
        super().close()
        self._stop()

    def _read(self) -> Frame | None:
        if self._lost is None:
            begun = self._clock.now()
            more = self._capture.grab()
            grabbed = self._clock.now()
            stamp = self._stamp(grabbed) if more else None
            if grabbed - begun >= self._patience:
                self._lost = f"lost {self.name}: no frame for {self._patience:g} s ({self._cure})"
            elif not more and self._ended():
                return None
            elif more and (image := self._capture.retrieve()) is not None:
                self._times = "arrival" if stamp is None else "capture"
                self._time = grabbed if stamp is None else stamp
                frame = Frame(image, self._time, self._index)
                self._index += 1
                return frame
            else:
                self._lost = f"lost {self.name}: {self._capture.reason()} ({self._cure})"
        raise SourceError(self._lost)

    def _stamp(self, grabbed: float) -> float | None:
        """The grabbed frame's time in seconds by the capture's stamp, or None if the stamp cannot be right."""
        stamp, before = self._capture.stamp(), self._before
        if stamp is None or not max(before, grabbed - OLDEST) < stamp <= grabbed:
            return None
        self._before = stamp
        if stamp > self._time:
            return stamp
        return self._time + CATCH_UP * (stamp - before) if before > -math.inf else None

    def _release(self) -> None:
        self._capture.release()
