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
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from framecast.camera import Image, open_source
from framecast.camera.live import OLDEST, LiveSource
from framecast.errors import SourceError
from framecast.testing import ManualClock

from ..conftest import RtspServer  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .reading import lost, read  # noqa: TID252

FFMPEGS_OWN = 20.0  # seconds: less than FFmpeg itself would wait
FOREVER = 200.0  # seconds: a limit that no test waits for; where it was waited for, the message would say so


def refused(uri: str, timeout: float = 1.0) -> str:
    """The message with which a camera is refused."""
    with pytest.raises(SourceError) as caught:
        open_source(uri, timeout=timeout)
    assert str(caught.value).isprintable()
    return str(caught.value)


def connections(server: RtspServer) -> int:
    """Open connections of this process to the server."""
    port = urlsplit(server.url).port
    here = psutil.Process().net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr.port == port and one.status == "ESTABLISHED" for one in here)


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
    with open_source(rtsp_server.url, stall=FOREVER) as source:
        source.read()
        rtsp_server.process.kill()
        message = f"lost {rtsp_server.url}: it ended or broke off (check the camera and the network)"
        for _ in range(2):
            assert lost(source) == message


def test_a_server_that_freezes_is_lost_after_the_timeout(rtsp_server: RtspServer) -> None:
    with open_source(rtsp_server.url, stall=1) as source:
        source.read()
        rtsp_server.process.send_signal(signal.SIGSTOP)
        assert "no frame for 1 s" in lost(source)


def test_closing_while_a_read_is_blocked(rtsp_server: RtspServer) -> None:
    source = open_source(rtsp_server.url, stall=1)
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
    assert connections(rtsp_server) == 0  # released by the reader
    assert source.read() is None


def test_credentials_open_a_stream_and_are_shown_nowhere(start_rtsp_server: Callable[..., RtspServer]) -> None:
    server = start_rtsp_server("160x120", "cam:s3cretPW")
    right = server.url.replace("rtsp://", "rtsp://cam:s3cretPW@")
    shown = server.url.replace("rtsp://", "rtsp://***@")
    with open_source(right) as source:
        assert source.name == shown
        assert read(source).image.shape == (120, 160, 3)

    # A process of its own, for what FFmpeg writes to stderr, even when told to write much.
    code = "import sys; from framecast.camera import open_source; open_source(sys.argv[1], timeout=3)"
    for extra in ({}, {"AV_LOG_FORCE_COLOR": "1", "FFREPORT": "level=56"}):
        environment = dict(os.environ) | extra
        wrong = right.replace("s3cretPW", "s3cretXY")
        done = subprocess.run(
            [sys.executable, "-c", code, wrong],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert re.search(rf"no stream from {re.escape(shown)} after \d+\.\d s \(401 unauthorized: check", done.stderr)
        assert "s3cret" not in done.stderr + done.stdout


def test_an_address_that_accepts_and_says_nothing() -> None:
    begun = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as tarpit:
        message = refused(f"rtsp://cam:s3cret@127.0.0.1:{tarpit.getsockname()[1]}/a", timeout=1)
    assert time.monotonic() - begun < FFMPEGS_OWN
    assert "no stream from rtsp://***@127.0.0.1" in message
    assert "no answer in time" in message
    assert "s3cret" not in message


def test_an_address_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    message = refused(f"RTSP://cam:s3cret@127.0.0.1:{port}/a?token=s3cret", timeout=FOREVER)
    assert message.startswith(f"no stream from rtsp://***@127.0.0.1:{port}/a?token=*** after ")
    assert "not a URL" in refused("rtsp://127.0.0.1/a\0b")
    assert "its port must be a number up to 65535" in refused("rtsp://127.0.0.1:99999/cam")


class Unplugged:
    """A camera that gives three frames and is then unplugged, as :class:`framecast.camera.live.Capture`."""

    def __init__(self) -> None:
        self.left = 3

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def stamp(self) -> float | None:
        return None

    def retrieve(self) -> Image:
        return np.zeros((2, 2, 3), np.uint8)

    def reason(self) -> str:
        return "it ended or broke off"

    def release(self) -> None:
        pass


def test_a_webcam_that_is_unplugged() -> None:
    with LiveSource("/dev/video0", Unplugged(), 30.0, cure="check its cable") as source:
        assert [read(source).index for _ in range(3)] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(SourceError, match=r"lost /dev/video0: it ended or broke off \(check its cable"):
                source.read()


class Stamping(Unplugged):
    """A camera whose driver stamps each frame: so many seconds before its grab, or not at all."""

    def __init__(self, ages: Sequence[float | None], clock: ManualClock) -> None:
        self.ages, self.clock, self.left = iter(ages), clock, len(ages)

    def grab(self) -> bool:
        self.clock.work(40)
        self.age = next(self.ages, 0.0)
        return super().grab()

    def stamp(self) -> float | None:
        return None if self.age is None else self.clock.now() - self.age


def stamped(*ages: float | None) -> list[tuple[float, str]]:
    """How long before its grab each frame's time is, in seconds; and what the source calls its times."""
    clock = ManualClock()
    clock.time = 1000.0
    found: list[tuple[float, str]] = []
    with LiveSource("camera", Stamping(ages, clock), 25.0, cure="", clock=clock) as source:
        assert source.times == "arrival"
        for _ in ages:
            time = read(source).time
            found.append((round(clock.now() - time, 6), source.times))
    return found


def test_a_frame_has_the_time_of_the_drivers_stamp() -> None:
    assert stamped(0.03, 0.035, 0.0) == [(0.03, "capture"), (0.035, "capture"), (0.0, "capture")]


@pytest.mark.parametrize("age", [-0.001, OLDEST + 0.001, 1000.0, -1.7e9, float("nan"), 0.06, None])
def test_a_stamp_that_cannot_be_right_gives_way_to_the_grab(age: float | None) -> None:
    # In the future, too old, 0, of the wall clock, none, and before the frame before.
    assert stamped(0.01, age, 0.02) == [(0.01, "capture"), (0.0, "arrival"), (0.02, "capture")]


def test_a_file_has_positions() -> None:
    with open_source("synthetic://") as source:
        assert source.times == "file"
