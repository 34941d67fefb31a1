"""Scores: PSNR of a prediction against the real frame that comes, beside that of copying the last frame.

The whole frame is resized to the model's size (INTER_AREA) and compared as uint8. The first frames of a stream, and
frames that only repeat the one before, are not scored.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from framecast.camera import Image

SETTLE = 8  # the first frames of a stream are not scored
MSE_FLOOR = 0.01  # squared grey levels: bounds the PSNR of an exact match at 68 dB


def psnr(image: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images of one shape, the MSE floored at 0.01."""
    mse = max(cv2.norm(image, truth, cv2.NORM_L2SQR) / image.size, MSE_FLOOR)  # a sum of whole numbers, exact
    return float(10 * np.log10(255**2 / mse))


@dataclass(frozen=True)
class Score:
    """Sums over ``n`` scored predictions, in dB: of their PSNR, and of copying the last frame in their place."""

    n: int = 0
    prediction_sum: float = 0.0
    copy_sum: float = 0.0

    def plus(self, prediction: float, copy_last: float) -> Score:
        """With one more."""
        return Score(self.n + 1, self.prediction_sum + prediction, self.copy_sum + copy_last)

    @property
    def prediction(self) -> float | None:
        """Mean PSNR of the predictions in dB; None where there is none."""
        return self.prediction_sum / self.n if self.n else None

    @property
    def copy_last(self) -> float | None:
        """Mean PSNR of copying in dB; None where there is none."""
        return self.copy_sum / self.n if self.n else None


@dataclass(frozen=True, eq=False)
class Scored:
    """One prediction, compared with the frame that came: PSNR in dB, and that of the frame copied in its place."""

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
    """Holds predictions until the real frame of their time arrives, and scores them then."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new stream begins: forget what is pending, and do not score the first frames."""
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
        return [Scored(p.horizon, p.image, psnr(p.image, frame), psnr(p.last, frame)) for p in due.values()]
