"""DIS optical flow as a predictor: the second baseline of every score, besides copying."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.clock import SYSTEM, Clock
from framecast.runtime.score import Expected

T = TypeVar("T", np.uint8, np.float32)
MIN_SIDE = 12  # pixels: OpenCV's DIS accepts no smaller frame
ITERATIONS = 3  # fixed-point iterations: on real motion, a residual far below a tenth of a pixel remains
SHARE = 0.02  # largest share of the time that the live baseline may compute


class DisFlow:
    """Continues all motion at constant velocity: out(p) = I_t(p + d(p)), where d = k F(p + d).

    F is the flow from I_t to I_{t−1}, from OpenCV's DIS with the medium preset on grey images (Kroeger et al., "Fast
    optical flow using dense inverse search", 2016). The content that will be at p is now at p + d, so F must be read
    there. Iteration from d = k F(p) finds d. Sampling is bilinear. Border pixels repeat beyond the border.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._grid = np.empty((0, 0, 2), np.float32)  # each pixel's own coordinates

    def predict(self, last: Image, before: Image, steps: Sequence[float]) -> list[Image]:
        """Predict the pictures some steps after ``last``.

        Args:
            last: the newest frame, uint8 [h, w, C], C = 1 or 3 (BGR), at least 12 pixels a side.
            before: the frame one step before.
            steps: how many steps ahead; need not be whole.
        """
        flow = self.flow(last, before)
        return [self.pulled(last, flow, k) for k in steps]

    def flow(self, last: Image, before: Image) -> NDArray[np.float32]:
        """Where each pixel of ``last`` was in ``before``: [h, w, 2], in pixels."""
        return self._dis.calc(_grey(last), _grey(before), None)  # type: ignore[call-overload, no-any-return]

    def pulled(self, last: Image, flow: NDArray[np.float32], steps: float) -> Image:
        """The picture ``steps`` steps after ``last``, along its ``flow``."""
        height, width = last.shape[:2]
        if self._grid.shape != flow.shape:
            self._grid = np.dstack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (width, height))))
        k = np.float32(steps)
        shift = k * flow
        for _ in range(ITERATIONS):
            shift = k * _sample(flow, self._grid + shift)
        return _sample(last, self._grid + shift)


class LiveRival:
    """Computes DIS flow now and then during a run, in its own thread, for predictions that wait for their score.

    It takes at most 2 % of the time, and nothing waits for it before the end of the run.

    Args:
        clock: measures how long it takes.
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._dis: DisFlow | None = None
        self._free = 0.0  # the moment from which it may compute again
        self._busy: threading.Thread | None = None

    def offer(self, expected: Expected, before: Image, elapsed: float) -> None:
        """Start to fill in :attr:`Expected.rival`, if enough time has passed since the last computation.

        Args:
            expected: a prediction; its ``last`` is the newest frame.
            before: the frame before that, of the same size.
            elapsed: seconds between the two.
        """
        if self._clock.now() < self._free or (self._busy is not None and self._busy.is_alive()):
            return
        if min(before.shape[:2]) < MIN_SIDE or before.shape != expected.last.shape or elapsed <= 0:
            return
        self._busy = threading.Thread(
            target=self._compute, args=(expected, before, elapsed), name="framecast-rival", daemon=True
        )
        self._busy.start()

    def close(self) -> None:
        """Wait for the last computation."""
        if self._busy is not None:
            self._clock.join(self._busy)

    def _compute(self, expected: Expected, before: Image, elapsed: float) -> None:
        begun = self._clock.now()
        self._dis = self._dis or DisFlow()
        (expected.rival,) = self._dis.predict(expected.last, before, [expected.ahead / elapsed])
        done = self._clock.now()
        self._free = done + (done - begun) / SHARE


def _grey(image: Image) -> Image:
    grey = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(grey)


def _sample(image: NDArray[T], places: NDArray[np.float32]) -> NDArray[T]:
    sampled = cv2.remap(image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return sampled.reshape(image.shape)  # type: ignore[no-any-return]  # remap drops the axis of a single channel
