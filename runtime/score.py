"""Scores: PSNR of a prediction against the real frame that follows, beside that of copying the last frame.

The whole frame is resized to the model's size (INTER_AREA) and compared as uint8. Left out are the first frames of a
stream, and frames that only repeat the one before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image

SETTLE = 8  # the first frames of a stream are not scored
MSE_FLOOR = 0.01  # squared grey levels: bounds the PSNR of an exact match at 68 dB


def psnr(image: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images of one shape, the MSE floored at 0.01."""
    mse = max(cv2.norm(image, truth, cv2.NORM_L2SQR) / image.size, MSE_FLOOR)  # a sum of whole numbers, exact
    return float(10 * np.log10(255**2 / mse))


@dataclass(frozen=True, eq=False)
class Scored:
    """One prediction, held against the frame that came: PSNR in dB, and that of the frame copied in its place."""

    horizon: int
    image: Image
    psnr: float
    psnr_copy: float


@dataclass(frozen=True, eq=False)
class _Pending:
    time: float
    horizon: int
    image: Image
    last: Image


class Scorer:
    """Holds predictions until the real frame of their time arrives, and keeps the means for each horizon."""

    def __init__(self) -> None:
        self._sums: dict[int, NDArray[np.float64]] = {}  # horizon: [n, prediction, copy]
        self.restart()

    def restart(self) -> None:
        """The stream is broken: what is pending is void, and the first frames are left out again."""
        self._pending: deque[_Pending] = deque()
        self._last: Image | None = None
        self._seen = 0

    def expect(self, image: Image, time: float, horizon: int, last: Image) -> None:
        """Note a prediction for ``time`` (seconds), made when ``last`` was the newest real frame."""
        self._pending.append(_Pending(time, horizon, image, last))

    def arrive(self, frame: Image, time: float, interval: float) -> list[Scored]:
        """Score what was predicted for this frame: all that is within half an ``interval`` (seconds) of ``time``."""
        repeated = self._last is not None and not cv2.norm(frame, self._last, cv2.NORM_INF)
        settled = self._seen >= SETTLE
        self._last, self._seen = frame, self._seen + 1
        due: dict[int, _Pending] = {}
        for p in sorted(self._pending, key=lambda p: -abs(p.time - time)):  # where two are due, the nearest is
            if abs(p.time - time) <= interval / 2:
                due[p.horizon] = p
        self._pending = deque(p for p in self._pending if p.time > time + interval / 2)
        if repeated or not settled:
            return []
        scored = [Scored(p.horizon, p.image, psnr(p.image, frame), psnr(p.last, frame)) for p in due.values()]
        for s in scored:
            self._sums[s.horizon] = self._sums.get(s.horizon, np.zeros(3)) + np.array([1, s.psnr, s.psnr_copy])
        return scored

    def mean(self, horizon: int) -> tuple[int, float | None, float | None]:
        """How many predictions were scored, and their mean PSNR and that of copying, in dB; None where none was."""
        count, predicted, copied = self._sums.get(horizon, np.zeros(3))
        return (int(count), float(predicted / count), float(copied / count)) if count else (0, None, None)
