"""Copies the newest frame where predictions do worse than that."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image

_SAMPLES = 4096  # pixels of a picture that are compared
_PENDING = 256  # predictions kept until their moment
_MEMORY = 16  # frames compared, at most, in the mean gain,
_PRIOR = 4  # as many as which a prediction is trusted to begin with, at a gain of 0
_COPY, _PREDICT = -0.1, 0.0  # dB: mean gain below which to copy, and above which to predict again
_PLAIN = 0.5  # dB: one frame that gains as much ends the copying at once
_MOST = 6.0  # dB: what one frame can say for or against prediction
_FLOOR = 0.01  # grey levels²: the least mean square error, as in every score here


@dataclass(frozen=True, eq=False)
class _Promise:
    """Samples of a prediction, and of the copy beside it, until a real frame comes that they can be compared with."""

    time: float
    key: tuple[str, int]
    prediction: NDArray[np.uint8]
    copy: NDArray[np.uint8]


class Guard:
    """Compares predictions with copying, each kind of moment and each rough lookahead apart.

    Use: :meth:`see` each real frame that is not a repeat, before it is predicted from; ask :meth:`choose` for each
    prediction that is to be shown. Predictions are compared whether or not they were shown, so a model that has become
    better is used again. Repeats are left out, as in all scores: a repeat that no pattern foretells is a frame that
    the camera missed, and copying would win by being equally late.

    Attributes:
        copied: how often the copy was chosen.
    """

    def __init__(self) -> None:
        self.copied = 0
        self.reset()

    def reset(self) -> None:
        """Forget the stream's evidence; the count stays."""
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
        """Return the prediction, or the copy where that has lately been better.

        Args:
            prediction: uint8 [H, W, 3], of ``time``.
            copy: the newest frame, which would be shown without prediction, of the same shape.
            time: the moment that both are for, in seconds.
            ahead: seconds from the newest frame to it.
            interval: the camera's own, in seconds.
            moment: what kind of moment this is (:attr:`Watch.moment`).
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
            mean, count = max(mean, 0.0), _PRIOR  # what was still moves now: begin to trust anew
        self._gains[key] = mean, count


def _samples(image: Image) -> NDArray[np.uint8]:
    """Every n-th pixel across and down: a fair sample of the full-size picture, not a blurred one."""
    step = max(1, math.isqrt(image.shape[0] * image.shape[1] // _SAMPLES))
    return np.array(image[step // 2 :: step, step // 2 :: step])
