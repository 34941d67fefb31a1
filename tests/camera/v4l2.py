"""A V4L2 driver that is a fake."""

from __future__ import annotations

import errno
from array import array

import cv2
import numpy as np

from framecast.testing import ManualClock

MJPG_YUYV = [  # as a usual USB 2 webcam lists them
    ("YUYV", [((640, 480), [(1, 30), (1, 15)]), ((1280, 720), [(1, 10)])]),
    ("MJPG", [((640, 480), [(1, 30)]), ((1280, 720), [(1, 30), (1, 60)]), ((1920, 1080), [(1, 30)])]),
]
Listed = list[tuple[str, list[tuple[tuple[int, int], list[tuple[int, int]]]]]]


def code(fourcc: str) -> int:
    return int.from_bytes(fourcc.encode(), "little")


class Driver:
    """A V4L2 driver, at its ioctls and behind OpenCV's capture.

    Args:
        listed: formats, sizes and intervals, as it enumerates them.
        pictures: what it captures: JPEGs, the text "late" for a timeout of OpenCV, or "gone".
    """

    def __init__(self, listed: Listed, *pictures: bytes | str, clock: ManualClock | None = None) -> None:
        self.listed, self.pictures, self.clock = listed, iter(pictures), clock or ManualClock()
        self.asked: dict[int, float] = {}
        self.grabs = 0
        self.released = False
        self.data: bytes = b""

    def ioctl(self, descriptor: int, request: int, words: array[int]) -> int:
        assert words.itemsize * len(words) == request >> 16 & 0x3FFF  # the request holds the structure's size
        index = words[0]
        try:
            if request >> 30 != 3 or request >> 8 & 0xFF != ord("V"):
                raise IndexError
            if request & 0xFF == 2:
                words[11] = code(self.listed[index if words[1] == 1 else 10**6][0])
            elif request & 0xFF == 74:
                words[2] = 1
                words[3], words[4] = self._sizes(words[1])[index][0]
            else:
                intervals = next((rates for size, rates in self._sizes(words[1]) if size == (words[2], words[3])), [])
                words[4] = 1
                words[5], words[6] = intervals[index]
        except IndexError:
            raise OSError(errno.EINVAL, "Invalid argument") from None
        return 0

    def _sizes(self, fourcc: int) -> list[tuple[tuple[int, int], list[tuple[int, int]]]]:
        (sizes,) = (sizes for name, sizes in self.listed if code(name) == fourcc)
        return sizes

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def set(self, key: int, value: float) -> bool:
        self.asked[key] = value
        return True

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self.clock.now()
        default = {cv2.CAP_PROP_FRAME_WIDTH: 64, cv2.CAP_PROP_FRAME_HEIGHT: 48, cv2.CAP_PROP_FOURCC: code("YUYV")}
        return self.asked.get(key, default.get(key, 30.0))

    def grab(self) -> bool:
        self.grabs += 1
        picture = next(self.pictures, "gone")
        self.clock.work(2000 if picture == "late" else 10)
        if isinstance(picture, str):
            return False
        self.data = picture
        return True

    def retrieve(self, image: np.ndarray | None = None) -> tuple[bool, np.ndarray]:
        assert self.asked[cv2.CAP_PROP_CONVERT_RGB] == 0
        return True, np.frombuffer(self.data, np.uint8)[None]

    def release(self) -> None:
        self.released = True
