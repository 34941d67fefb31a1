"""Scores: PSNR of a prediction against the real frame, and of the baseline, which copies the last frame.

The whole frame is resized to the model's size (INTER_AREA) and compared as uint8. The first frames of a stream are not
scored, nor are frames that repeat the previous one (compression aside): on those, copying is trivially right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image

SETTLE = 8  # the first frames of a stream are not scored
MSE_FLOOR = 0.01  # squared grey levels: limits the PSNR of an exact match to 68 dB


def psnr(image: NDArray[np.uint8 | np.floating], truth: NDArray[np.uint8 | np.floating]) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images of the same shape. The MSE is at least 0.01.

    Both may be floats in 0…1 instead, which are not rounded. As in OpenSTL, predictions beyond that range are clamped.
    """
    if truth.dtype != np.uint8:
        mse = float(np.mean(np.square(np.clip(image, 0, 1, dtype=np.float64) - truth)))
        return -10 * math.log10(max(mse, MSE_FLOOR / 255**2))
    mse = max(cv2.norm(image, truth, cv2.NORM_L2SQR) / image.size, MSE_FLOOR)  # exact: a sum of whole numbers
    return float(10 * np.log10(255**2 / mse))


@dataclass(frozen=True)
class Score:
    """Sums over ``n`` scored predictions, in dB: PSNR of the prediction, of copying the last frame, of any rival."""

    n: int = 0
    prediction_sum: float = 0.0
    copy_sum: float = 0.0
    rival_sum: float = 0.0

    def plus(self, prediction: float, copy_last: float, rival: float = 0.0) -> Score:
        """The score with one more prediction."""
        return Score(self.n + 1, self.prediction_sum + prediction, self.copy_sum + copy_last, self.rival_sum + rival)

    @property
    def prediction(self) -> float | None:
        """Mean PSNR of the predictions in dB; None if there are none."""
        return self.prediction_sum / self.n if self.n else None

    @property
    def copy_last(self) -> float | None:
        """Mean PSNR of copying in dB; None if there are no predictions."""
        return self.copy_sum / self.n if self.n else None

    @property
    def rival(self) -> float | None:
        """Mean PSNR of the rival in dB; None if there are no predictions."""
        return self.rival_sum / self.n if self.n else None


@dataclass(frozen=True, eq=False)
class Scored:
    """One prediction compared with its real frame.

    Attributes:
        ahead: the lookahead in seconds.
        image: the prediction, uint8 [h, w, 3] BGR.
        last: the newest real frame when the prediction was made: what a viewer would have seen without prediction.
        psnr: PSNR of the prediction, dB.
        psnr_copy: PSNR of ``last``, dB.
        rival: PSNR in dB of another method's picture for the same moment, if there is one.
    """

    ahead: float
    image: Image
    last: Image
    psnr: float
    psnr_copy: float
    rival: float | None = None


@dataclass(eq=False)
class Expected:
    """A prediction that waits for its real frame; see :class:`Scored`.

    Attributes:
        time: the moment that it shows, in seconds.
        rival: another method's picture of the same moment; it may be filled in while the prediction waits.
    """

    time: float
    ahead: float
    image: Image
    last: Image
    rival: Image | None = None


class Scorer:
    """Holds predictions until their real frame arrives, and then scores them.

    One thread calls it; only :meth:`wants` may be called from any thread.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin a new stream: forget pending predictions, and do not score the first frames."""
        self._pending: tuple[Expected, ...] = ()  # replaced as a whole, for :meth:`wants`
        self._last: Image | None = None
        self._frames = 0

    def expect(self, image: Image, time: float, ahead: float, last: Image) -> Expected:
        """Hold a prediction for ``time``, made ``ahead`` seconds before, when ``last`` was the newest frame."""
        expected = Expected(time, ahead, image, last)
        self._pending = (*self._pending, expected)
        return expected

    def wants(self, time: float, interval: float) -> bool:
        """Whether a frame of this time would score any prediction."""
        return any(abs(p.time - time) <= interval / 2 for p in self._pending)

    def pass_by(self, frame: Image, time: float, interval: float) -> list[Scored]:
        """Score the predictions for a dropped frame: see :meth:`arrive`."""
        return self._score(frame, time, interval) if self._frames >= SETTLE else []

    def arrive(self, frame: Image, time: float, interval: float, *, repeated: bool = False) -> list[Scored]:
        """Score the predictions for this frame: those within half an ``interval`` (seconds) of ``time``.

        If several have the same lookahead in whole intervals, only the nearest counts. A frame that ``repeated`` the
        one before, or is equal to it, scores nothing.
        """
        repeated = repeated or (self._last is not None and _equal(frame, self._last))
        settled = self._frames >= SETTLE
        self._last, self._frames = frame, self._frames + 1
        scored = [] if repeated or not settled else self._score(frame, time, interval)
        self._pending = tuple(p for p in self._pending if p.time > time + interval / 2)
        return scored

    def _score(self, frame: Image, time: float, interval: float) -> list[Scored]:
        due: dict[int, Expected] = {}
        for p in sorted(self._pending, key=lambda p: -abs(p.time - time)):  # the nearest comes last, so it wins
            if abs(p.time - time) <= interval / 2:
                due[round(p.ahead / interval)] = p
        self._pending = tuple(p for p in self._pending if p not in due.values())
        return [
            Scored(
                p.ahead,
                p.image,
                p.last,
                psnr(p.image, frame),
                psnr(p.last, frame),
                None if p.rival is None else psnr(p.rival, frame),
            )
            for p in due.values()
        ]


def _equal(a: Image, b: Image) -> bool:
    return a.shape == b.shape and not cv2.norm(a, b, cv2.NORM_INF)
