"""What a V4L2 driver offers, and which of it is taken."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from array import array

import pytest

from framecast.camera import modes
from framecast.camera.modes import Mode, choose, list_modes

from .v4l2 import MJPG_YUYV, Driver, code  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's")


def test_the_drivers_lists_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", Driver(MJPG_YUYV).ioctl)
    assert list_modes("/dev/null", (1280, 720)) == [Mode("YUYV", (1280, 720), 10.0), Mode("MJPG", (1280, 720), 60.0)]
    assert list_modes("/dev/null", (1900, 1000)) == [Mode("YUYV", (1280, 720), 10.0), Mode("MJPG", (1920, 1080), 30.0)]
    monkeypatch.setattr(fcntl, "ioctl", Driver([("YUYV", []), ("MJPG", [((640, 480), [])])]).ioctl)
    with monkeypatch.context() as patch:  # it lists formats alone
        patch.setattr(Driver, "_sizes", lambda *_: [])
        assert list_modes("/dev/null", (640, 480)) == [Mode("YUYV", None, None), Mode("MJPG", None, None)]
    assert list_modes("/dev/video97", (640, 480)) == []
    monkeypatch.undo()
    assert list_modes("/dev/null", (640, 480)) == []


def test_ranges_of_sizes_and_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        2: [0, 0, 0, *[0] * 8, code("UYVY")],
        74: [0, 0, 3, 32, 1920, 16, 24, 1080, 8],  # stepwise: 32 to 1920 by 16, 24 to 1080 by 8
        75: [0, 0, 0, 0, 2, 1, 120, 1, 5, 1, 1],  # continuous: 1/120 s to 1/5 s
    }

    def ioctl(descriptor: int, request: int, words: array[int]) -> int:
        if words[0]:
            raise OSError(errno.EINVAL, "Invalid argument")
        for place, value in enumerate(answers[request & 0xFF]):
            words[place] = value or words[place]
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    for wanted, size in (((640, 480), (640, 480)), ((647, 487), (640, 480)), ((1, 9999), (32, 1080))):
        assert list_modes("/dev/null", wanted) == [Mode("UYVY", size, 120.0)]


VGA, HD = (640, 480), (1280, 720)


@pytest.mark.parametrize(
    ("offered", "wanted", "fps", "chosen"),
    [
        ([Mode("YUYV", HD, 10.0), Mode("MJPG", HD, 30.0)], HD, None, 1),
        ([Mode("YUYV", HD, 10.0), Mode("MJPG", HD, 30.0)], HD, 10, 0),  # no compression where it is fast enough
        ([Mode("MJPG", VGA, 30.0), Mode("YUYV", VGA, 29.97)], VGA, None, 1),
        ([Mode("MJPG", HD, 60.0), Mode("YUYV", VGA, 30.0)], VGA, None, 1),  # the size first
        ([Mode("GREY", VGA, 120.0), Mode("MJPG", VGA, 30.0)], VGA, None, 1),  # colour
        ([Mode("GREY", VGA, 120.0), Mode("H264", VGA, 60.0)], VGA, None, 0),
        ([Mode("YUYV", None, None), Mode("MJPG", None, None)], VGA, None, 0),
        ([Mode("H264", HD, 30.0)], HD, None, None),
        ([], HD, None, None),
    ],
)
def test_the_choice(offered: list[Mode], wanted: tuple[int, int], fps: float | None, chosen: int | None) -> None:
    assert choose(offered, wanted, fps) == (None if chosen is None else offered[chosen])


def test_a_driver_that_never_stops_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda descriptor, request, words: 0)
    monkeypatch.setattr(modes, "_MOST", 8)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert list_modes("/dev/null", VGA) == [Mode("\0\0\0\0", (0, 0), None)]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
