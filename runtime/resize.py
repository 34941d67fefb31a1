"""Pictures at a network's size: INTER_AREA, a large picture's two halves at the same time.

OpenCV divides an image among threads by its result, which is too small here, so it runs in one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from framecast.camera import Image

# Bytes from which on waking a thread pays: 640×480 to 256×192 takes 0.37 ms in place of 0.63 (AMD EPYC, two cores).
LARGE = 1 << 19

_second = ThreadPoolExecutor(1, thread_name_prefix="framecast-resize")  # its thread begins with the first large picture


def resize(image: Image, size: tuple[int, int], out: Image | None = None) -> Image:
    """A picture, uint8 [H, W, 3], at ``size`` (width, height), by INTER_AREA; written into ``out`` if given."""
    width, height = size
    out = np.empty((height, width, 3), np.uint8) if out is None else out
    if image.nbytes < LARGE or not _parted(image.shape[:2], (height, width)):
        return _area(image, out)
    row, cut = len(image) // 2, height // 2
    lower = [(image[row:], out[cut:])]
    other = _second.submit(_take, lower)
    _area(image[:row], out[:cut])
    if other.cancel():  # every core is busy, or the thread is with another camera's picture: it was not begun
        _take(lower)
    else:
        other.result()
    return out


def _parted(shape: tuple[int, ...], target: tuple[int, int]) -> bool:
    """Whether the halves give what the whole gives, to the bit.

    No row of the result may need both, as where a picture is enlarged. And the picture's rows to one of the result's
    must be a binary fraction: any other number would be rounded differently in the lower half.
    """
    (rows, columns), (height, width) = shape, target
    smaller = height <= rows and width <= columns
    return smaller and rows % 2 == height % 2 == 0 and 64 * rows % height == 0


def _take(half: list[tuple[Image, Image]]) -> None:
    """Resize what lies in a list, and hold it no longer than that: a pool takes back what nobody holds."""
    _area(*half.pop())


def _area(image: Image, out: Image) -> Image:
    resized: Image = cv2.resize(image, out.shape[1::-1], dst=out, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return resized
