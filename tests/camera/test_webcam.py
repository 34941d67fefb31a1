"""Webcams: their URIs, the choice of a mode, raw pictures and waiting, on a driver and an OpenCV that are fakes.

A slow test uses a real driver: Linux's vivid, in a virtual machine. vivid has no MJPEG.
"""

from __future__ import annotations

import fcntl
import io
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from framecast.camera import Source, is_camera, open_source, webcam
from framecast.camera.webcam import Webcam, parse_v4l2
from framecast.errors import SourceError

from .reading import lost, read  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .v4l2 import MJPG_YUYV, Driver  # noqa: TID252

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's")


def jpeg(width: int = 64, height: int = 48) -> bytes:
    """A red and a green half with some texture, which Pillow encodes."""
    picture = np.full((height, width, 3), (200, 20, 30), np.uint8)
    picture[: height // 2] = (20, 180, 40)
    picture += np.random.default_rng(1).integers(0, 20, (height, width, 1), np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(picture).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Source]]:
    """Open a camera on a driver. /dev/null is its device."""
    opened: list[Source] = []

    def open_it(driver: Driver, options: str = "", timeout: float = 15.0) -> Source:
        monkeypatch.setattr(fcntl, "ioctl", driver.ioctl)
        monkeypatch.setattr(cv2, "VideoCapture", lambda device, backend: driver)
        opened.append(open_source(f"v4l2:///dev/null{options}", timeout=timeout, clock=driver.clock))
        return opened[-1]

    yield open_it
    for source in opened:
        source.close()


def refused(uri: str) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_options_of_a_uri() -> None:
    assert parse_v4l2("/dev/video0") == Webcam("/dev/video0")
    assert parse_v4l2("/dev/v4l/by-id/usb-Logi-video-index0?size=1280x720&fps=60&format=mjpg") == Webcam(
        "/dev/v4l/by-id/usb-Logi-video-index0", (1280, 720), 60, "MJPG"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("mode=3", "v4l2:// has no mode (it takes size, fps and format: v4l2:///dev/video0?size=1280x720&fps=60&"),
        ("size=1280", "not numbers: v4l2:///dev/video0?size=1280 (write it like v4l2:///dev/video0?size=1280x720"),
        ("size=1x2x3", "not numbers"),
        ("fps=fast", "not numbers"),
        ("fps=", "not numbers"),
        ("size=8x8", "out of range: v4l2:///dev/video0?size=8x8 (size 16x16 to 8192x8192, fps 1 to 1000)"),
        ("size=99999x64", "out of range"),
        ("fps=0", "out of range"),
        ("fps=-30", "out of range"),
        ("fps=1001", "out of range"),
        ("format=h264", "unknown format: v4l2:///dev/video0?format=h264 (it takes yuyv, uyvy, nv12,"),
        ("format=", "unknown format"),
        ("fps=30&fps=30", "the source has fps twice: give it once"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: str, says: str) -> None:
    assert says in refused(f"v4l2:///dev/video0?{options}")
    assert says in refused(f"/dev/video0?{options}")


def test_webcams_that_are_not_there(tmp_path: Path) -> None:
    for uri in ("97", "v4l2:///dev/video97", "/dev/video97", "/dev/video97?fps=30"):
        assert "no camera /dev/video97 (cameras here: " in refused(uri)
    assert "no camera /dev/v4l/by-id/x (cameras here: " in refused("/dev/v4l/by-id/x")
    assert "no camera nowhere" in refused("v4l2://nowhere")
    (tmp_path / "video0").touch()
    assert "not a device" in refused(f"v4l2://{tmp_path}/video0")
    assert "cannot open the camera /dev/null" in refused("v4l2:///dev/null")
    assert "not a regular file: /dev/null" in refused("/dev/null")  # a device, but no camera's
    with pytest.raises(SourceError, match="no such file: /dev/video97"):
        open_source(Path("/dev/video97"))


def test_a_device_is_a_camera() -> None:
    assert all(is_camera(uri) for uri in ("0", "/dev/video0", "/dev/v4l/by-id/x?fps=30", "v4l2:///dev/video0"))
    assert not any(is_camera(uri) for uri in ("/dev/null", "/dev/video", "video0", "/dev/sda"))


def asked(driver: Driver) -> tuple[str, int, int, int]:
    keys = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)
    fourcc = int(driver.asked[cv2.CAP_PROP_FOURCC]).to_bytes(4, "little").decode()
    width, height, fps = (int(driver.asked[key]) for key in keys)
    return fourcc, width, height, fps


@pytest.mark.parametrize(
    ("options", "mode", "note"),
    [
        ("", ("YUYV", 640, 480, 30), "/dev/null gives 640x480 YUYV at 30 frames a second"),
        ("?size=1280x720", ("MJPG", 1280, 720, 60), "/dev/null gives 1280x720 MJPG at 60 frames a second"),
        ("?size=1280x720&fps=30", ("MJPG", 1280, 720, 30), "/dev/null gives 1280x720 MJPG at 30 frames a second"),
        ("?size=1280x720&format=yuyv", ("YUYV", 1280, 720, 10), "/dev/null gives 1280x720 YUYV at 10 frames a second"),
        (
            "?size=2000x1000&fps=60",
            ("MJPG", 1920, 1080, 60),
            "/dev/null gives 1920x1080 MJPG at 60 frames a second; asked for: 2000x1000",
        ),
    ],
)
def test_what_is_asked_of_the_driver_and_what_it_gives(
    plug: Callable[..., Source], options: str, mode: tuple[str, int, int, int], note: str
) -> None:
    driver = Driver(MJPG_YUYV)
    source = plug(driver, options)
    assert asked(driver) == mode
    assert list(source.notes) == [note]
    assert source.fps == mode[3]
    assert (cv2.CAP_PROP_CONVERT_RGB in driver.asked) is (mode[0] == "MJPG")


def test_a_driver_that_gives_something_else(plug: Callable[..., Source], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "set", lambda *_: True)
    source = plug(Driver(MJPG_YUYV), "?size=1280x720&fps=60&format=mjpg")
    (note,) = source.notes
    assert note == "/dev/null gives 64x48 YUYV at 30 frames a second; asked for: 1280x720, MJPG, 60 frames a second"


def test_a_driver_that_lists_nothing_is_asked_all_the_same(plug: Callable[..., Source]) -> None:
    driver = Driver([])
    plug(driver, "?size=1280x720&fps=60&format=mjpg")
    assert asked(driver) == ("MJPG", 1280, 720, 60)
    silent = Driver([])
    assert list(plug(silent).notes) == ["/dev/null gives 64x48 YUYV at 30 frames a second"]
    assert silent.asked == {}


def test_formats_that_are_not_there(plug: Callable[..., Source]) -> None:
    with pytest.raises(SourceError, match=r"the camera /dev/null does not give GREY \(it gives YUYV, MJPG\)"):
        plug(Driver(MJPG_YUYV), "?format=grey")
    with pytest.raises(SourceError, match=r"does not give any of YUYV, .* \(it gives H264\)"):
        plug(Driver([("H264", [((640, 480), [(1, 30)])])]))


def test_jpegs_are_decoded_and_damaged_ones_left_out(plug: Callable[..., Source], capfd: Any) -> None:
    whole = jpeg()
    middle = len(whole) // 2
    damaged = [whole[:middle], whole[:middle] + b"\xff" * 40 + whole[middle + 40 :], b"", b"no picture", whole[:200]]
    driver = Driver(MJPG_YUYV, whole, *damaged, whole + bytes(100), whole[:-2])
    with plug(driver, "?format=mjpg") as source:
        frames = [read(source) for _ in range(3)]  # the last two have padding, and no end marker
        assert dict(source.faults) == {"damaged": len(damaged)}
    right = np.asarray(Pillow.open(io.BytesIO(whole)).convert("RGB"))[..., ::-1]
    for frame in frames:
        assert np.abs(frame.image.astype(int) - right).mean() < 3  # full range, with another chroma filter
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [round(frame.time, 3) for frame in frames] == [0.01, 0.07, 0.08]  # each its own stamp
    assert capfd.readouterr() == ("", "")
    assert driver.released


def test_a_camera_that_gives_only_damage_is_lost(plug: Callable[..., Source]) -> None:
    with plug(Driver(MJPG_YUYV, *[b"\xff\xd8"] * 1000), "?format=mjpg") as source:
        assert lost(source).startswith("lost /dev/null: 100 damaged pictures in a row (check its cable")
        assert source.faults == {"damaged": 100}


@pytest.mark.parametrize("fourcc", ["NV12", "NV21"])
def test_nv12_has_the_right_colours(plug: Callable[..., Source], fourcc: str) -> None:
    luma, blue, red = 81, 90, 240  # BT.601's red
    chroma = (blue, red) if fourcc == "NV12" else (red, blue)
    data = bytes([luma]) * (64 * 48) + bytes(chroma) * (64 * 48 // 4)
    driver = Driver([(fourcc, [((64, 48), [(1, 30)])])], data, data[:-1], data)
    with plug(driver, "?size=64x48") as source:
        for _ in range(2):
            assert np.abs(read(source).image.astype(int) - (0, 0, 255)).max() <= 2
        assert source.faults == {"damaged": 1}


def test_the_first_frame_may_take_longer_than_the_others(plug: Callable[..., Source]) -> None:
    driver = Driver(MJPG_YUYV, *["late"] * 6, jpeg(), "late")
    with plug(driver, "?format=mjpg") as source:
        assert read(source).time == pytest.approx(12.01)
        assert lost(source).startswith("lost /dev/null: no frame in 2 s (check its cable")


def test_a_camera_that_never_starts(plug: Callable[..., Source]) -> None:
    driver = Driver(MJPG_YUYV, *["late"] * 100)
    with plug(driver, timeout=7) as source:
        assert lost(source).startswith("lost /dev/null: no first frame in 8 s (check its cable")
        assert driver.grabs == 4


def test_a_camera_that_fails_at_once_is_not_waited_for(plug: Callable[..., Source]) -> None:
    driver = Driver(MJPG_YUYV, "gone")
    with plug(driver) as source:
        assert lost(source).startswith("lost /dev/null: it ended or broke off (")
        assert driver.grabs == 1


def test_one_that_is_unplugged(tmp_path: Path) -> None:
    driver: Any = Driver([], "gone")
    reader = webcam.WebcamCapture(driver, device=str(tmp_path / "video0"), clock=driver.clock)
    assert not reader.grab()
    assert reader.reason() == "it was unplugged"


def test_closing_while_it_waits_for_the_first_frame(plug: Callable[..., Source]) -> None:
    driver = Driver(MJPG_YUYV, *["late"] * 100)
    source = plug(driver, timeout=100)
    grab = driver.grab
    driver.grab = lambda: (source.close() if driver.grabs == 2 else None, grab())[1]  # type: ignore[method-assign]
    assert source.read() is None
    assert driver.grabs == 3
    assert driver.released


def test_a_camera_has_the_drivers_stamps_if_it_is_a_device() -> None:
    driver: Any = Driver([])
    driver.clock.time = 1.25
    assert webcam.WebcamCapture(driver, device="/dev/null").stamp() == 1.25
    assert webcam.WebcamCapture(driver).stamp() is None


class Growing:
    """OpenCV's capture: it decodes into the array that it is given, where that fits; its pictures grow once."""

    def __init__(self, frames: int) -> None:
        self.left = self.frames = frames

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self, image: np.ndarray | None) -> tuple[bool, np.ndarray]:
        side = 2 if 2 * self.left >= self.frames else 4
        if image is None or image.shape != (side, side, 3):
            image = np.empty((side, side, 3), np.uint8)
        image[:] = self.left
        return True, image


def test_frames_are_decoded_into_arrays_that_nobody_holds() -> None:
    capture: Any = Growing(40)
    reader = webcam.WebcamCapture(capture)
    held: deque[np.ndarray] = deque(maxlen=3)
    addresses = set()
    for left in range(39, -1, -1):
        assert reader.grab()
        image = reader.retrieve()
        assert image is not None
        held.append(image)
        addresses.add(image.__array_interface__["data"][0])
        assert [one[0, 0, 0] for one in held] == list(range(left + len(held) - 1, left - 1, -1))
    assert held[-1].shape == (4, 4, 3)
    assert len(addresses) <= 2 * 5  # of each size three that are held, one more, and the first, which was not ours


@pytest.mark.slow
def test_linuxs_virtual_webcam() -> None:
    script = Path(__file__).with_name("vivid") / "run"
    done = subprocess.run([script, sys.executable], check=False, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
