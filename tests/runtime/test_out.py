"""The prediction as a camera: real receivers (FFmpeg's and GStreamer's) take it, and its loss ends the run."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import framecast
from framecast.camera import Frame
from framecast.errors import OptionError, SinkError
from framecast.runtime.predictor import Prediction
from framecast.runtime.sinks import out
from framecast.runtime.sinks.out import OutSink, check_out
from framecast.runtime.sinks.sink import Result
from framecast.testing import STAMPS

from ..probing import decoded, probed  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

COLOUR = (40, 90, 200)  # BGR


def predicted(i: int, size: tuple[int, int] = (121, 161)) -> Result:
    image = np.full((*size, 3), COLOUR, np.uint8)
    late = np.zeros_like(image)
    return Result(Frame(late, 5 + i / 25, i), late, Prediction(image, 5 + i / 25, 0.0), STAMPS)


def listening(port: int) -> bool:
    """Whether something listens at a port; connecting would take the place of the one client that it waits for."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)


class Receiver:
    """FFmpeg, waiting for one stream and writing it to a file as it comes."""

    def __init__(self, scheme: str, path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}/live/x"
        listen = ["-rtsp_flags", "listen"] if scheme == "rtsp" else ["-f", "flv", "-listen", "1"]
        command = ["ffmpeg", "-v", "error", *listen, "-i", self.url, "-c", "copy", "-flush_packets", "1", str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        while not listening(self.port):
            assert self.process.poll() is None
            time.sleep(0.02)


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    started: list[Receiver] = []
    yield started
    for receiver in started:
        receiver.process.kill()
        receiver.process.wait()


@pytest.mark.parametrize("scheme", ["rtsp"])
def test_a_server_receives_every_picture(tmp_path: Path, scheme: str, receivers: list[Receiver]) -> None:
    path = tmp_path / "received.mkv"
    receivers.append(receiver := Receiver(scheme, path))
    sink = OutSink(receiver.url.replace("://", "://user:s3cret@"), 25)
    for i in range(25):
        sink.show(predicted(i))
    sink.close()
    receiver.process.wait(60)
    found = probed(path)
    assert (found["codec_name"], found["height"], found["width"]) == ("h264", 122, 162)  # odd sides are padded
    assert found["color_space"] == "bt709"
    assert len(found["frames"]) == 25
    # FFmpeg's RTSP server gives the first two one time: it knows the sender's clock only from the second on.
    assert np.diff(found["frames"])[1:] == pytest.approx([0.04] * 23, abs=2e-3)
    assert np.abs(decoded(path, (122, 162)).mean((0, 1)) - COLOUR[::-1]).max() < 4
    output = sink.written()
    assert output["to"] == f"{scheme}://***@127.0.0.1:{receiver.port}/live/x"
    assert (output["codec"], output["files"]) == ("H.264", 1)


def test_without_reconnect_a_lost_receiver_ends_the_run_with_one_line(
    tmp_path: Path, receivers: list[Receiver]
) -> None:
    received = tmp_path / "received.mkv"
    receivers.append(receiver := Receiver("rtsp", received))

    def cut(result: framecast.Result) -> None:
        if received.exists() and received.stat().st_size:
            receiver.process.kill()
            receiver.process.wait()

    with pytest.raises(SinkError) as raised:
        framecast.run(
            "synthetic://?size=160x120&fps=100",
            out=receiver.url.replace("://", "://u:s3cret@"),
            sinks=[cut],
            reconnect=False,
        )
    said = f"lost rtsp://***@127.0.0.1:{receiver.port}/live/x: what received the pictures has ended (start it again"
    assert str(raised.value).startswith(said)


def test_a_udp_stream_is_mpeg_ts(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        sink = OutSink(f"udp://127.0.0.1:{receiver.getsockname()[1]}", 25)
        for i in range(5):
            sink.show(predicted(i))
        sink.close()
        receiver.setblocking(False)
        data = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                data += receiver.recv(2000)
    path = tmp_path / "received.ts"
    path.write_bytes(data)
    assert probed(path)["codec_name"] == "h264"
    assert np.diff(probed(path)["frames"]) == pytest.approx([0.04] * 4, abs=1e-3)


@pytest.fixture
def y4m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "frames.y4m"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(out, "standard_output", lambda: file)
    sink = OutSink("-", 29.97)
    sizes = [(121, 161), (121, 161), (242, 322)]  # a camera may change its size
    for i, size in enumerate(sizes):
        sink.show(predicted(i, size))
    sink.close()
    os.close(file)
    return path


def test_standard_output_is_y4m_for_ffmpeg(y4m: Path) -> None:
    found = probed(y4m)
    assert (found["codec_name"], found["pix_fmt"], found["height"], found["width"]) == ("rawvideo", "yuv420p", 122, 162)
    assert found["r_frame_rate"] == "2997/100"
    assert len(found["frames"]) == 3
    assert np.abs(decoded(y4m, (122, 162)).astype(float) - COLOUR[::-1]).max() < 4


@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="no GStreamer (make system-deps)")
def test_standard_output_is_y4m_for_gstreamer(y4m: Path, tmp_path: Path) -> None:
    raw = tmp_path / "frames.bgr"
    line = f"filesrc location={y4m} ! y4mdec ! videoconvert ! video/x-raw,format=BGR ! filesink location={raw}"
    subprocess.run(["gst-launch-1.0", "-q", *line.split()], check=True, capture_output=True)
    rows = np.frombuffer(raw.read_bytes(), np.uint8).reshape(3, 122, 3 * 162 + 2)  # GStreamer pads rows to 4 bytes
    pictures = rows[:, :, : 3 * 162].reshape(3, 122, 162, 3)
    assert np.abs(pictures.astype(float) - COLOUR).max() < 6


def test_what_cannot_receive_is_refused_in_one_line(tmp_path: Path) -> None:
    cases: list[tuple[str, type[Exception], str]] = [
        ("gopher://u:s3cret@host/x", OptionError, "use rtsp://host:port/path, udp://"),
        ("run.mp4", OptionError, "use rtsp://host:port/path"),
        ("rtsp:///x", OptionError, "the address is not complete"),
        ("rtsp://u:s3cret@host:port/x", OptionError, "the address is not complete"),
        ("udp://127.0.0.1", OptionError, "the address is not complete"),
        ("v4l2:///dev/video99", SinkError, "modprobe v4l2loopback"),
        (f"v4l2://{tmp_path}", SinkError, "is no device"),
    ]
    for target, kind, cure in cases:
        with pytest.raises(kind) as raised:
            check_out(target)
        assert cure in str(raised.value)
        assert "s3cret" not in str(raised.value)
        assert "\n" not in str(raised.value)
    for target, cure in (
        ("rtsp://u:s3cret@127.0.0.1:1/x", "connection refused"),
        ("v4l2:///dev/null", "give a device of v4l2loopback"),
    ):
        with pytest.raises(SinkError) as raised:
            OutSink(target, 25).show(predicted(0))
        assert str(raised.value).startswith("cannot send pictures to ")
        assert cure in str(raised.value)
        assert "s3cret" not in str(raised.value)


def test_a_server_that_is_mute_does_not_stop_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    name, codecs, options = out._FORMATS["rtsp"]
    assert int(options["timeout"]) == 1e6 * out.PATIENCE
    monkeypatch.setitem(out._FORMATS, "rtsp", (name, codecs, {**options, "timeout": "200000"}))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        sink = OutSink(f"rtsp://user:secret@127.0.0.1:{mute.getsockname()[1]}/now", 25)
        with pytest.raises(SinkError, match=r"cannot send pictures to rtsp://\*\*\*@.*: no proper answer"):
            sink.show(predicted(0))
