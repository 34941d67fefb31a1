"""Resizes pictures to a network's size with INTER_AREA. Two threads share a large picture.

OpenCV chooses its number of threads by the size of the result. A network's size is small, so it would use only one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from framecast.camera import Image

# Bytes above which a second thread pays: 640×480 to 256×192 takes 0.37 ms instead of 0.63 (AMD EPYC, two cores).
LARGE = 1 << 19

_second = ThreadPoolExecutor(1, thread_name_prefix="framecast-resize")  # the first large picture starts its thread


def resize(image: Image, size: tuple[int, int], out: Image | None = None) -> Image:
    """Resize a picture, uint8 [H, W, 3], to ``size`` (width, height) with INTER_AREA, into ``out`` if given."""
    width, height = size
    out = np.empty((height, width, 3), np.uint8) if out is None else out
    if image.nbytes < LARGE or not _parted(image.shape[:2], (height, width)):
        return _area(image, out)
    row, cut = len(image) // 2, height // 2
    lower = [(image[row:], out[cut:])]
    other = _second.submit(_take, lower)
    _area(image[:row], out[:cut])
    if other.cancel():  # not started yet: all cores are busy, or the thread has another camera's picture
        _take(lower)
    else:
        other.result()
    return out


def _parted(shape: tuple[int, ...], target: tuple[int, int]) -> bool:
    """Whether resizing the halves gives the same bits as resizing the whole.

    No row of the result may need both halves, as it would in an enlarged picture. The ratio of the picture's rows to
    the result's must be a binary fraction, because the lower half would round any other ratio differently.
    """
    (rows, columns), (height, width) = shape, target
    smaller = height <= rows and width <= columns
    return smaller and rows % 2 == height % 2 == 0 and 64 * rows % height == 0


def _take(half: list[tuple[Image, Image]]) -> None:
    """Resize the half in a list, and remove it from the list, so that the pool can take its arrays back."""
    _area(*half.pop())


def _area(image: Image, out: Image) -> Image:
    resized: Image = cv2.resize(image, out.shape[1::-1], dst=out, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return resized
