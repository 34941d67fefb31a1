"""Falls back to copying the newest frame where predictions are worse."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image

_SAMPLES = 4096  # pixels compared per picture
_PENDING = 256  # the most predictions kept until their real frame
_MEMORY = 16  # the most frames that the mean gain covers
_PRIOR = 4  # weight of the initial mean gain of 0, in frames
_COPY, _PREDICT = -0.1, 0.0  # dB: mean gain below which to copy, and above which to predict again
_PLAIN = 0.5  # dB: a larger gain in one frame ends the copying at once
_MOST = 6.0  # dB: larger gains and losses of a frame are clipped to this
_FLOOR = 0.01  # grey levels²: the least mean square error, as in every score here


@dataclass(frozen=True, eq=False)
class _Promise:
    """Samples of a prediction and of the copy, kept until the real frame comes."""

    time: float
    key: tuple[str, int]
    prediction: NDArray[np.uint8]
    copy: NDArray[np.uint8]


class Guard:
    """Compares predictions with copying, separately for each kind of moment and each approximate lookahead.

    Usage: call :meth:`see` with each real frame that is not a repeat, before predicting from it. Call :meth:`choose`
    with each prediction to be shown. Predictions are compared whether or not they were shown, so a model that has
    improved is used again. Repeats are left out, as in all scores: at an unexpected repeat the camera missed a frame,
    and copying would win only because it is as late as the camera.

    Attributes:
        copied: how often the copy was chosen.
    """

    def __init__(self) -> None:
        self.copied = 0
        self.reset()

    def reset(self) -> None:
        """Forget the evidence about the stream, but keep the count."""
        self._pending: deque[_Promise] = deque(maxlen=_PENDING)
        self._gains: dict[tuple[str, int], tuple[float, int]] = {}  # mean, dB; frames in it
        self._copying: set[tuple[str, int]] = set()

    def see(self, frame: Image, time: float, interval: float) -> None:
        """Compare the predictions that were due within half an interval of ``time`` with the real frame."""
        real = _samples(frame).astype(np.float32)
        waiting = list(self._pending)
        self._pending.clear()
        for promise in waiting:
            if promise.time > time + interval / 2:
                self._pending.append(promise)
            elif promise.time >= time - interval / 2:
                self._judge(promise, real)

    def choose(self, prediction: Image, copy: Image, time: float, ahead: float, interval: float, moment: str) -> Image:
        """Return the prediction, or the copy if that has lately been better.

        Args:
            prediction: uint8 [H, W, 3], for ``time``.
            copy: the newest frame, of the same shape.
            time: the moment that both are for, in seconds.
            ahead: seconds from the newest frame to that moment.
            interval: the camera's own interval, in seconds.
            moment: the kind of moment (:attr:`Watch.moment`).
        """
        steps = max(ahead / interval, 0.5) if interval > 0 else 1.0
        key = moment, round(2 * math.log2(steps))
        self._pending.append(_Promise(time, key, _samples(prediction), _samples(copy)))
        if key not in self._copying:
            return prediction
        self.copied += 1
        return copy

    def _judge(self, promise: _Promise, real: NDArray[np.float32]) -> None:
        if promise.prediction.shape != real.shape:
            return
        error, rival = (
            max(float(np.mean(np.square(samples - real))), _FLOOR) for samples in (promise.prediction, promise.copy)
        )
        gain = min(max(10 * math.log10(rival / error), -_MOST), _MOST)
        key = promise.key
        mean, count = self._gains.get(key, (0.0, _PRIOR))
        count = min(count + 1, _MEMORY)
        mean += (gain - mean) / count
        if mean < _COPY and key not in self._copying:
            self._copying.add(key)
        elif key in self._copying and (mean > _PREDICT or gain > _PLAIN):
            self._copying.discard(key)
            mean, count = max(mean, 0.0), _PRIOR  # the scene moves again, so give prediction a fresh start
        self._gains[key] = mean, count


def _samples(image: Image) -> NDArray[np.uint8]:
    """Every n-th pixel across and down: unlike a resized picture, the samples are not blurred."""
    step = max(1, math.isqrt(image.shape[0] * image.shape[1] // _SAMPLES))
    return np.array(image[step // 2 :: step, step // 2 :: step])
