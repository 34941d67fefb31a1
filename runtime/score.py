"""Scores: PSNR of a prediction against the real frame, and of the baseline, which copies the last frame.

The whole frame is resized to the model's size (INTER_AREA) and compared as uint8. The first frames of a stream are not
scored, nor are frames that repeat the previous one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from framecast.camera import Image

SETTLE = 8  # the first frames of a stream are not scored
MSE_FLOOR = 0.01  # squared grey levels: limits the PSNR of an exact match to 68 dB


def psnr(image: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images of the same shape. The MSE is at least 0.01."""
    mse = max(cv2.norm(image, truth, cv2.NORM_L2SQR) / image.size, MSE_FLOOR)  # a sum of whole numbers, exact
    return float(10 * np.log10(255**2 / mse))


@dataclass(frozen=True)
class Score:
    """Sums in dB over ``n`` scored predictions: of their PSNR, and of the PSNR of copying the last frame instead."""

    n: int = 0
    prediction_sum: float = 0.0
    copy_sum: float = 0.0

    def plus(self, prediction: float, copy_last: float) -> Score:
        """The score with one more prediction."""
        return Score(self.n + 1, self.prediction_sum + prediction, self.copy_sum + copy_last)

    @property
    def prediction(self) -> float | None:
        """Mean PSNR of the predictions in dB; None if there are none."""
        return self.prediction_sum / self.n if self.n else None

    @property
    def copy_last(self) -> float | None:
        """Mean PSNR of copying in dB; None if there are no predictions."""
        return self.copy_sum / self.n if self.n else None


@dataclass(frozen=True, eq=False)
class Scored:
    """One prediction compared with its real frame: PSNR in dB, and the PSNR of copying the last frame instead."""

    horizon: int
    image: Image
    last: Image
    psnr: float
    psnr_copy: float


@dataclass(frozen=True, eq=False)
class _Pending:
    time: float
    horizon: int
    image: Image
    last: Image


class Scorer:
    """Holds predictions until their real frame arrives, and then scores them."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin a new stream: forget pending predictions, and do not score the first frames."""
        self._pending: deque[_Pending] = deque()
        self._last: Image | None = None
        self._frames = 0

    def expect(self, image: Image, time: float, horizon: int, last: Image) -> None:
        """Hold a prediction for ``time`` (seconds), made when ``last`` was the newest real frame."""
        self._pending.append(_Pending(time, horizon, image, last))

    def arrive(self, frame: Image, time: float, interval: float) -> list[Scored]:
        """Score the predictions for this frame: those within half an ``interval`` (seconds) of ``time``."""
        repeated = self._last is not None and not cv2.norm(frame, self._last, cv2.NORM_INF)
        settled = self._frames >= SETTLE
        self._last, self._frames = frame, self._frames + 1
        due: dict[int, _Pending] = {}
        for p in sorted(self._pending, key=lambda p: -abs(p.time - time)):  # the nearest of a horizon wins
            if abs(p.time - time) <= interval / 2:
                due[p.horizon] = p
        self._pending = deque(p for p in self._pending if p.time > time + interval / 2)
        if repeated or not settled:
            return []
        return [Scored(p.horizon, p.image, p.last, psnr(p.image, frame), psnr(p.last, frame)) for p in due.values()]
