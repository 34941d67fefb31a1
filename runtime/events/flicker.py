"""Flicker: the brightness of the whole picture changes periodically, as under lamps on alternating current."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from framecast.camera import Image

_ORDER = 6  # frames: enough for three frequencies at once, so for any period of up to seven frames
_MEMORY = 0.97  # weight of old evidence one frame later
_MEAN = 0.05  # least weight of a frame in the mean brightness
_RIDGE = 1e-3
_QUIET = 0.25  # grey levels²: weaker flicker is not removed
_LOCK, _UNLOCK = 0.6, 0.3  # share of the change in brightness that must be predicted, to lock and to stay locked
_MOST = 60.0  # grey levels: the largest flicker expected


class Flicker:
    """The brightness of one stream's frames: a slow mean, and a linear prediction of the deviation from it.

    The prediction is an autoregression of order 6 by recursive least squares. Flicker is accepted (``locked``) if this
    predicts most of the error of the best of three baselines: the mean, the last value, and linear extrapolation. So a
    slow change of exposure does not count as flicker. A frame of brightness M + o is modelled as

        picture = M + o + (clean - M) · (1 + b · o)

    where b is learned, and says how much the contrast changes with it: 1/M for a change of light, 0 for an offset.
    """

    def __init__(self) -> None:
        self.locked = False
        self._mean: float | None = None
        self._spread = 0.0
        self._frames = 0
        self._offsets: deque[float] = deque(maxlen=_ORDER)
        self._products = np.zeros((_ORDER, _ORDER))
        self._targets = np.zeros(_ORDER)
        self._expected: list[float] = []
        self._missed, self._change = 0.0, 0.0  # mean squares
        self._contrast = [0.0, 1e-6]  # sums: contrast times offset, offset squared

    def see(self, mean: float, spread: float, arrivals: int = 1, *, cut: bool = False) -> None:
        """Add the newest frame's mean and standard deviation, ``arrivals`` frames after the last one seen."""
        expected = self.expected(arrivals)
        for offset in (self.expected(k) for k in range(1, arrivals)):
            self._offsets.append(offset)  # stand in for frames that were not seen
        if self._mean is None or cut:
            self._mean, self._spread = mean - expected, spread
        self._frames += 1
        share = max(_MEAN, 1 / self._frames)
        self._mean += share * (mean - self._mean)
        self._spread += share * (spread - self._spread)
        offset = mean - self._mean
        past = np.array(self._offsets)
        self._offsets.append(offset)
        if len(past) == _ORDER and not cut:
            rivals = offset, offset - past[-1], offset - 2 * past[-1] + past[-2]
            self._missed = 0.9 * self._missed + 0.1 * (offset - expected) ** 2
            self._change = 0.9 * self._change + 0.1 * min(rival * rival for rival in rivals)
            self._products = _MEMORY * self._products + np.outer(past, past)
            self._targets = _MEMORY * self._targets + past * offset
            self._contrast[0] = _MEMORY * self._contrast[0] + (spread - self._spread) * offset
            self._contrast[1] = _MEMORY * self._contrast[1] + self._spread * offset * offset
            foreseen = 1 - self._missed / self._change if self._change > _QUIET else 0.0
            self.locked = foreseen > (_UNLOCK if self.locked else _LOCK)
        self._expected = []

    def expected(self, arrivals: int) -> float:
        """The deviation from the mean expected ``arrivals`` frames after the newest one; 0 means the newest one."""
        if len(self._offsets) < _ORDER:
            return 0.0
        if not self._expected:
            ridge = _RIDGE * (np.trace(self._products) / _ORDER + 1) * np.eye(_ORDER)
            self._weights = np.linalg.solve(self._products + ridge, self._targets)
            self._expected = list(self._offsets)
        while len(self._expected) < _ORDER + arrivals:
            offset = float(self._weights @ np.array(self._expected[-_ORDER:]))
            self._expected.append(min(max(offset, -_MOST), _MOST))
        return self._expected[_ORDER + arrivals - 1]

    def take_out(self, image: Image) -> Image:
        """Remove the flicker from the newest frame: correct its brightness to the mean."""
        if not self.locked:
            return image
        offset = self._offsets[-1]
        return _scaled(image, 1 / self._gain(offset), self._level, offset)

    def put_in(self, image: Image, arrivals: int) -> Image:
        """Add the flicker expected ``arrivals`` frames after the newest one to a picture of mean brightness."""
        if not self.locked:
            return image
        offset = self.expected(arrivals) if arrivals else self._offsets[-1]
        gain = self._gain(offset)
        return _scaled(image, gain, self._level, -offset / gain)

    @property
    def _level(self) -> float:
        return self._mean or 0.0

    def _gain(self, offset: float) -> float:
        share = min(max(self._contrast[0] / self._contrast[1], 0.0), 1.5 / max(self._level, 1.0))
        return min(max(1 + share * offset, 0.3), 3.0)


def _scaled(image: Image, gain: float, level: float, offset: float) -> Image:
    """``level + (image - level - offset) · gain``, rounded and clipped."""
    return np.asarray(cv2.addWeighted(image, gain, image, 0.0, level - (level + offset) * gain), np.uint8)
