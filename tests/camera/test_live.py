"""Cameras: a real RTSP server, addresses that do not answer, webcams that are not there."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from framecast.camera import Image, cv, open_source, webcam
from framecast.camera.live import OLDEST, LiveSource
from framecast.errors import SourceError
from framecast.testing import ManualClock

from ..conftest import RtspServer  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .reading import lost, read  # noqa: TID252

FOREVER = 200.0  # seconds: a limit that no test waits for; where it was waited for, the message would say so


def refused(uri: str, timeout: float = 1.0) -> str:
    """The message with which a camera is refused."""
    with pytest.raises(SourceError) as caught:
        open_source(uri, timeout=timeout)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_live_frames_of_a_real_stream(rtsp_server: RtspServer) -> None:
    begun = time.monotonic()
    with open_source(rtsp_server.url) as source:
        assert source.live
        assert source.fps == 25.0
        assert source.name == rtsp_server.url
        frames = [read(source) for _ in range(30)]
        now = time.monotonic()
    assert [frame.index for frame in frames] == list(range(30))
    assert {frame.epoch for frame in frames} == {0}
    assert all(frame.image.shape == (240, 320, 3) and frame.image.dtype == np.uint8 for frame in frames)
    assert not np.array_equal(frames[0].image, frames[29].image)  # the ball moves
    times = [frame.time for frame in frames]
    assert times == sorted(times)
    assert begun < times[0] < times[-1] < now


def test_a_server_that_dies_is_lost_at_once_and_stays_lost(rtsp_server: RtspServer) -> None:
    with open_source(rtsp_server.url, timeout=FOREVER) as source:
        source.read()
        rtsp_server.process.kill()
        message = f"lost {rtsp_server.url}: it ended or broke off (check the camera and the network)"
        for _ in range(2):
            assert lost(source) == message


def test_a_server_that_freezes_is_lost_after_the_timeout(rtsp_server: RtspServer) -> None:
    with open_source(rtsp_server.url, timeout=1) as source:
        source.read()
        rtsp_server.process.send_signal(signal.SIGSTOP)
        assert "no frame for 1 s" in lost(source)


def test_closing_while_a_read_is_blocked(rtsp_server: RtspServer) -> None:
    source = open_source(rtsp_server.url, timeout=5)
    assert isinstance(source, LiveSource)
    source.read()
    rtsp_server.process.send_signal(signal.SIGSTOP)
    ended: list[SourceError | None] = []

    def drain() -> None:
        try:
            while source.read() is not None:
                pass
        except SourceError as error:
            ended.append(error)
        ended.append(None)

    reader = threading.Thread(target=drain)
    reader.start()
    time.sleep(0.3)
    source.close()
    source.close()
    assert reader.is_alive()  # it does not wait for the reader
    reader.join()
    assert ended
    assert not source._capture.isOpened()  # released by the reader
    assert source.read() is None


def test_credentials_open_a_stream_and_are_shown_nowhere(start_rtsp_server: Callable[..., RtspServer]) -> None:
    server = start_rtsp_server("160x120", "cam:s3cretPW")
    right = server.url.replace("rtsp://", "rtsp://cam:s3cretPW@")
    shown = server.url.replace("rtsp://", "rtsp://***@")
    with open_source(right) as source:
        assert source.name == shown
        assert read(source).image.shape == (120, 160, 3)

    # A process of its own, for what OpenCV and FFmpeg write to stderr, even when told to write much.
    code = "import sys; from framecast.camera import open_source; open_source(sys.argv[1], timeout=3)"
    for extra in ({}, {"OPENCV_LOG_LEVEL": "DEBUG"}):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")} | extra
        wrong = right.replace("s3cretPW", "s3cretXY")
        done = subprocess.run(
            [sys.executable, "-c", code, wrong],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert re.search(
            rf"no stream from {re.escape(shown)} after \d+\.\d s \(check the address, the user and pass", done.stderr
        )
        assert "s3cret" not in done.stderr + done.stdout


def test_an_address_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, int] = {}
    real: Any = cv.open_capture

    def spied(*args: Any, parameters: Sequence[int] = (), **options: Any) -> Any:
        asked.update(zip(parameters[::2], parameters[1::2], strict=True))
        return real(*args, parameters=parameters, **options)

    monkeypatch.setattr(cv, "open_capture", spied)
    with socket.create_server(("127.0.0.1", 0)) as tarpit:
        message = refused(f"rtsp://cam:s3cret@127.0.0.1:{tarpit.getsockname()[1]}/a", timeout=1)
    assert asked[cv.load().CAP_PROP_OPEN_TIMEOUT_MSEC] == 1000  # else OpenCV waits for 30 s
    assert asked[cv.load().CAP_PROP_READ_TIMEOUT_MSEC] == 1000
    assert "no stream from rtsp://***@127.0.0.1" in message
    assert "s3cret" not in message


def test_an_address_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    message = refused(f"RTSP://cam:s3cret@127.0.0.1:{port}/a?token=s3cret", timeout=FOREVER)
    assert message.startswith(f"no stream from rtsp://***@127.0.0.1:{port}/a?token=*** after ")
    assert "not a URL" in refused("rtsp://127.0.0.1/a\0b")


def test_the_users_ffmpeg_options_are_respected(rtsp_server: RtspServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # This server is asked over UDP multicast, which it does not offer: only these options can make it fail.
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp_multicast")
    assert "no stream" in refused(rtsp_server.url)
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    open_source(rtsp_server.url).close()
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's")
def test_webcams_that_are_not_there(tmp_path: Path) -> None:
    for uri in ("97", "v4l2:///dev/video97"):
        message = refused(uri)
        assert "no camera /dev/video97 (cameras here: " in message
    assert "no camera nowhere" in refused("v4l2://nowhere")
    (tmp_path / "video0").touch()
    assert "not a device" in refused(f"v4l2://{tmp_path}/video0")
    assert "cannot open the camera /dev/null" in refused("v4l2:///dev/null")


class Capture:
    """A camera that gives three frames and is then unplugged: OpenCV still calls it opened."""

    def __init__(self) -> None:
        self.left = 3

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self, image: Image | None) -> tuple[bool, Image]:
        return True, np.zeros((2, 2, 3), np.uint8)

    def release(self) -> None:
        pass


def test_a_webcam_that_is_unplugged() -> None:
    with LiveSource("/dev/video0", cast(Any, Capture()), 30.0, cure="check its cable") as source:
        assert [read(source).index for _ in range(3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(SourceError, match=r"lost /dev/video0: it ended or broke off \(check its cable"):
                source.read()


class Decoder(Capture):
    """One that decodes into the array that it is given, where that fits; its pictures grow once."""

    def __init__(self, frames: int) -> None:
        self.left = self.frames = frames

    def retrieve(self, image: Image | None) -> tuple[bool, Image]:
        side = 2 if 2 * self.left >= self.frames else 4
        if image is None or image.shape != (side, side, 3):
            image = np.empty((side, side, 3), np.uint8)
        image[:] = self.left
        return True, image


def test_frames_are_decoded_into_arrays_that_nobody_holds() -> None:
    with LiveSource("/dev/video0", cast(Any, Decoder(40)), 30.0, cure="") as source:
        held: deque[np.ndarray] = deque(maxlen=3)
        addresses = set()
        for left in range(39, -1, -1):
            held.append(read(source).image)
            addresses.add(held[-1].__array_interface__["data"][0])
            assert [image[0, 0, 0] for image in held] == list(range(left + len(held) - 1, left - 1, -1))
    assert held[-1].shape == (4, 4, 3)
    assert len(addresses) <= 2 * 5  # of each size three that are held, one more, and the first, which was not ours


class Stamping(Capture):
    """A camera whose driver stamps each frame: so many seconds before its grab."""

    def __init__(self, ages: Sequence[float], clock: ManualClock) -> None:
        self.ages, self.clock, self.left = iter(ages), clock, len(ages)

    def grab(self) -> bool:
        self.clock.work(40)
        self.age = next(self.ages, 0.0)
        return super().grab()

    def get(self, property_: int) -> float:
        assert property_ == cv2.CAP_PROP_POS_MSEC
        return 1e3 * (self.clock.now() - self.age)


def stamped(*ages: float) -> list[tuple[float, str]]:
    """How long before its grab each frame's time is, in seconds; and what the source calls its times."""
    clock = ManualClock()
    clock.time = 1000.0
    found: list[tuple[float, str]] = []
    with LiveSource("camera", cast(Any, Stamping(ages, clock)), 25.0, cure="", stamped=True, clock=clock) as source:
        assert source.times == "arrival"
        for _ in ages:
            time = read(source).time
            found.append((round(clock.now() - time, 6), source.times))
    return found


def test_a_frame_has_the_time_of_the_drivers_stamp() -> None:
    assert stamped(0.03, 0.035, 0.0) == [(0.03, "capture"), (0.035, "capture"), (0.0, "capture")]


@pytest.mark.parametrize("age", [-0.001, OLDEST + 0.001, 1000.0, -1.7e9, float("nan"), 0.06])
def test_a_stamp_that_cannot_be_right_gives_way_to_the_grab(age: float) -> None:
    # In the future, too old, 0, of the wall clock, none, and before the frame before.
    assert stamped(0.01, age, 0.02) == [(0.01, "capture"), (0.0, "arrival"), (0.02, "capture")]


def test_a_camera_whose_driver_is_not_asked_has_arrivals() -> None:
    clock = ManualClock()
    with LiveSource("camera", cast(Any, Stamping([0.03], clock)), 25.0, cure="", clock=clock) as source:
        assert (read(source).time, source.times) == (clock.now(), "arrival")


def test_a_webcam_is_asked_for_its_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr(cv, "open_capture", lambda *_: Stamping([0.03], clock))
    monkeypatch.setattr(cv, "frame_rate", lambda capture: 30.0)
    with webcam.open_v4l2("/dev/null", clock=clock) as source:
        time = read(source).time
        assert clock.now() - time == pytest.approx(0.03)
        assert source.times == "capture"


def test_a_file_has_positions() -> None:
    with open_source("synthetic://") as source:
        assert source.times == "file"
