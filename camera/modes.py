"""Which formats, sizes and rates a V4L2 camera offers, and which of them to take."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FORMATS = ("YUYV", "UYVY", "NV12", "NV21", "YU12", "YV12", "BGR3", "RGB3", "MJPG", "JPEG", "GREY")
"""FourCCs that can be decoded. At the same rate, an earlier one is better: without compression first, grey last."""

JPEGS = ("MJPG", "JPEG")
"""Those of them whose pictures are JPEGs."""

USUAL = (640, 480)
"""The wanted size if none is asked for."""

# linux/videodev2.h: each request number holds the size of its structure. The structures consist of 32-bit numbers, of
# which the first is an index.
_ENUM_FMT, _FMT_WORDS = 0xC0405602, 16  # type (1), FourCC (11)
_ENUM_FRAMESIZES, _SIZE_WORDS = 0xC02C564A, 11  # FourCC (1), kind (2), a size or its ranges (3 to 8)
_ENUM_FRAMEINTERVALS, _INTERVAL_WORDS = 0xC034564B, 13  # FourCC, width, height (1 to 3), kind (4), seconds (5 to 10)
_CAPTURE = (1, 9)  # V4L2_BUF_TYPE_VIDEO_CAPTURE, and the same with several planes
_DISCRETE = 1  # any other kind is a range
_MOST = 256  # answers to one question: a driver that gives more is broken


@dataclass(frozen=True)
class Mode:
    """A format at the size that is nearest to the wanted one.

    Attributes:
        format: FourCC.
        size: width and height in pixels, or None if the driver does not list its sizes.
        fps: the highest rate at this size in frames a second, or None if the driver does not list its rates.
    """

    format: str
    size: tuple[int, int] | None
    fps: float | None


def list_modes(device: str, wanted: tuple[int, int]) -> list[Mode]:
    """List a camera's formats, also those that cannot be decoded.

    Args:
        device: its path.
        wanted: width and height in pixels. Each format is listed at the nearest size.

    Returns:
        The modes in the driver's order; none if it is no camera, or lists nothing.
    """
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return [_mode(descriptor, fourcc, wanted) for fourcc in dict.fromkeys(_formats(descriptor))]
    finally:
        os.close(descriptor)


def choose(modes: Sequence[Mode], wanted: tuple[int, int], fps: float | None) -> Mode | None:
    """Choose the mode of the nearest size, then colour before grey, then the highest rate up to the wanted one.

    Args:
        modes: as :func:`list_modes` gives them.
        wanted: width and height in pixels.
        fps: wanted frames a second, or None for as many as there are.

    Returns:
        The mode, or None if none can be decoded.
    """

    def rank(mode: Mode) -> tuple[float, bool, float, int]:
        rate = mode.fps or 0.0
        rate = rate if fps is None else min(rate, fps)
        # Rates are rounded: 30 and 30000/1001 are the same.
        return (_distance(mode.size or wanted, wanted), mode.format == "GREY", -round(rate), FORMATS.index(mode.format))

    return min((mode for mode in modes if mode.format in FORMATS), key=rank, default=None)


def _mode(descriptor: int, fourcc: int, wanted: tuple[int, int]) -> Mode:
    sizes = [_nearest(answer, wanted) for answer in _answers(descriptor, _ENUM_FRAMESIZES, _SIZE_WORDS, fourcc)]
    size = min(sizes, key=lambda size: _distance(size, wanted), default=None)
    question = (fourcc, *(size or wanted))
    # Of a range, the shortest interval comes first.
    intervals = [answer[5:7] for answer in _answers(descriptor, _ENUM_FRAMEINTERVALS, _INTERVAL_WORDS, *question)]
    rates = [denominator / numerator for numerator, denominator in intervals if numerator and denominator]
    name = fourcc.to_bytes(4, "little").decode("latin-1").rstrip()
    return Mode(name, size, max(rates, default=None))


def _formats(descriptor: int) -> list[int]:
    answers = (answer for kind in _CAPTURE for answer in _answers(descriptor, _ENUM_FMT, _FMT_WORDS, kind))
    return list(dict.fromkeys(answer[11] for answer in answers))


def _nearest(answer: Sequence[int], wanted: tuple[int, int]) -> tuple[int, int]:
    """The size that an answer to ``VIDIOC_ENUM_FRAMESIZES`` offers, or of its ranges the one nearest to the wanted."""
    if answer[2] == _DISCRETE:
        return answer[3], answer[4]
    width, height = (
        least + (min(max(side, least), most) - least) // max(step, 1) * max(step, 1)
        for side, (least, most, step) in zip(wanted, (answer[3:6], answer[6:9]), strict=True)
    )
    return width, height


def _distance(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    return abs(size[0] - wanted[0]) + abs(size[1] - wanted[1])


def _answers(descriptor: int, request: int, words: int, *question: int) -> Iterator[Sequence[int]]:
    """Ask for index 0, 1, … until the driver refuses, as it does after the last."""
    import fcntl  # not on Windows

    for index in range(_MOST):
        asked = [index, *question]
        answer = array("I", asked + [0] * (words - len(asked)))
        try:
            fcntl.ioctl(descriptor, request, answer)
        except OSError:
            return
        yield answer
