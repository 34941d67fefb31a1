"""The lattice: small pictures on which motion is estimated, and their mapping to full size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera.source import Image

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
AnyArray = NDArray[Any]  # OpenCV returns the type that it is given

CELLS = 320  # lattice points along the longer side of a large picture
LEAST = 48  # lattice points along the shorter side of a small picture, unless it has fewer pixels
DETAIL = 2  # pixels per lattice point, along each axis, of the picture that corrects the flow


@dataclass(frozen=True)
class Greys:
    """One frame's brightness at the two sizes of the flow.

    Attributes:
        coarse: uint8 [h, w], the lattice.
        fine: uint8 [≤ 2h, ≤ 2w].
    """

    coarse: Bytes
    fine: Bytes


class Lattice:
    """The lattice of one picture size.

    Attributes:
        size: (W, H) of the picture.
        coarse: (w, h) of the lattice.
        fine: (width, height) of the picture that corrects the flow: twice the lattice, or the picture itself if it
            is smaller.
        scale: float32 [2]: pixels per lattice point along x and y.
        grid: float32 [h, w, 2]: each lattice point's own coordinates (x, y).
    """

    def __init__(self, width: int, height: int) -> None:
        cell = max(2, round(max(width, height) / CELLS), 1)
        if min(width, height) / cell < LEAST:
            cell = max(1, min(width, height) // LEAST)
        self.size = (width, height)
        self.coarse = (max(1, round(width / cell)), max(1, round(height / cell)))
        self.fine = (min(width, DETAIL * self.coarse[0]), min(height, DETAIL * self.coarse[1]))
        self.scale = np.array([width / self.coarse[0], height / self.coarse[1]], np.float32)
        self.grid = points(*self.coarse)

    def greys(self, image: Image) -> Greys:
        """The brightness of ``image`` [H, W, 3] at both sizes."""
        full = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        fine = full if self.fine == self.size else cv2.resize(full, self.fine, interpolation=cv2.INTER_AREA)
        coarse = fine if self.coarse == self.fine else cv2.resize(fine, self.coarse, interpolation=cv2.INTER_AREA)
        return Greys(cast(Bytes, coarse), cast(Bytes, fine))


def points(width: int, height: int) -> Floats:
    """Each pixel's own coordinates (x, y): float32 [height, width, 2]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.dstack([x, y])


def pull(picture: AnyArray, at: Floats, out: AnyArray | None = None) -> AnyArray:
    """Read ``picture`` [H, W, …] at coordinates ``at`` [h, w, 2] (x, y; pixels): bilinear, borders replicated."""
    return cv2.remap(picture, at, None, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload, no-any-return]
