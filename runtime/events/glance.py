"""A small grey copy of a frame, and how much two of them differ."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image

Grey = NDArray[np.float32]  # [h, w]: brightness, 0 to 255

SIZE = 128  # pixels of the longer side
_READ = 40  # pixels of the frame read for each pixel of the small copy: enough to average out noise
_TILES = (8, 6)  # across and down
_FLAT = 1.0  # variance (grey levels²) below which a picture has no contrast to compare
_CONTRAST = (0.5, 2.0)  # how much the contrast may change from one frame to the next


@dataclass(frozen=True)
class Change:
    """How a frame differs from the one before, apart from a change of the whole picture's brightness and contrast.

    Attributes:
        most: the root mean square difference of the tile that changed most, in grey levels.
        overall: the same for the whole picture.
        brightness: the change of the mean, in grey levels.
        likeness: the correlation of the two pictures: 1 if they are equal, about 0 if they have nothing in common.
    """

    most: float
    overall: float
    brightness: float
    likeness: float


def glance(image: Image) -> Grey:
    """Return a small grey copy of a frame (uint8 [H, W, 3] BGR), at most 128 pixels wide and high."""
    height, width = image.shape[:2]
    factor = max(1.0, max(height, width) / SIZE)
    size = max(1, round(width / factor)), max(1, round(height / factor))
    rows = image[:: max(1, min(int(factor / 2), int(factor * factor / _READ)))]
    small = cv2.resize(rows, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)


def compare(before: Grey, now: Grey) -> Change:
    """Compare two glances of the same size."""
    mean_before, mean = float(before.mean()), float(now.mean())
    a, b = before - np.float32(mean_before), now - np.float32(mean)
    spread, spread_now, shared = (float(np.vdot(x, y)) / a.size for x, y in ((a, a), (b, b), (a, b)))
    contrast = min(max(shared / spread, _CONTRAST[0]), _CONTRAST[1]) if spread > _FLAT else 1.0
    rest = b - np.float32(contrast) * a
    squares = rest * rest
    tiles = cv2.resize(squares, _TILES, interpolation=cv2.INTER_AREA)
    likeness = shared / (spread * spread_now) ** 0.5 if min(spread, spread_now) > _FLAT else 1.0
    return Change(float(tiles.max()) ** 0.5, float(squares.mean()) ** 0.5, mean - mean_before, likeness)
