"""Streams over the network and standard input, from real servers and FFmpeg."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.camera import Frame, Source, open_source
from framecast.camera.live import LiveSource
from framecast.errors import SourceError
from framecast.testing import shades

from .. import mjpeg  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from ..conftest import RtspServer  # noqa: TID252
from .reading import read  # noqa: TID252

JPEGS = [cv2.imencode(".jpg", shade.image)[1].tobytes() for shade in shades(20, size=(48, 64))]
BY_MARKERS = "they are read by their markers, a frame later"
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg (make system-deps)")


class Handler(mjpeg.QuietHandler):
    """Serves a folder, an MJPEG camera at /cam, the answer 503 at /503, and leads from /to?X to X."""

    def do_GET(self) -> None:  # noqa: N802 (its name in http.server)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to?"))
            self.end_headers()
        elif self.path.lstrip("/").isdecimal():
            self.send_error(int(self.path.lstrip("/")))
        elif self.path != "/cam":
            super().do_GET()
        else:
            mjpeg.send(self, JPEGS)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a web server, and the folder that it serves."""
    folder = tmp_path_factory.mktemp("web")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def refused(uri: str, timeout: float = 5.0) -> str:
    """The message with which an address is refused."""
    with pytest.raises(SourceError) as caught:
        open_source(uri, timeout=timeout)
    assert str(caught.value).isprintable()
    return str(caught.value)


def ffmpeg(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["ffmpeg", "-hide_banner", "-loglevel", "quiet", "-nostdin", *map(str, arguments)])


def test_a_camera_that_sends_jpegs_over_http(web: tuple[str, Path]) -> None:
    with open_source(f"{web[0]}/cam") as source:
        assert source.live
        assert source.fps is None  # FFmpeg's guess is not believed
        frames = [read(source) for _ in range(len(JPEGS))]
        with pytest.raises(SourceError, match="it ended or broke off"):
            source.read()
    for frame, jpeg in zip(frames, JPEGS, strict=True):
        expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(frame.image.astype(int) - expected).max() <= 2  # the one decoder rounds, the other does not
    assert source.times == "arrival"


@pytest.mark.parametrize("wrong", [-200, -1, 37])
def test_a_camera_that_tells_wrong_lengths_is_read_by_markers(wrong: int) -> None:
    with mjpeg.camera(JPEGS, wrong=wrong) as address, open_source(address) as source:
        frames: list[Frame] = []
        with pytest.raises(SourceError, match="it ended or broke off"):
            frames.extend(source)
        assert source.notes == ["the camera tells wrong lengths of its JPEGs (Content-Length): " + BY_MARKERS]
    levels = [round(float(frame.image.mean())) for frame in frames][-len(JPEGS) :]
    assert levels == [round(float(shade.image.mean())) for shade in shades(20)]
    assert source.fps is None
    assert source.faults["damaged"] <= 2


@needs_ffmpeg
def test_a_playlist_is_a_clip_with_its_own_times(web: tuple[str, Path], make_clip: Callable[..., Path]) -> None:
    address, folder = web
    segments = ("-c:v", "libx264", "-g", 10, "-f", "hls", "-hls_time", 0.5, "-hls_list_size", 0)
    assert ffmpeg("-i", make_clip(), *segments, folder / "live.m3u8").wait() == 0
    with open_source(f"{address}/live.m3u8") as source:
        assert not source.live
        times = [frame.time for frame in source]
    assert times == pytest.approx([k / 20 for k in range(30)], abs=1e-4)


def test_a_file_of_a_web_server_is_a_clip(web: tuple[str, Path], make_clip: Callable[..., Path]) -> None:
    shutil.copy(make_clip("clip.mkv"), web[1])
    with open_source(f"{web[0]}/clip.mkv", loop=True) as source:
        frames = [read(source) for _ in range(40)]
    assert [frame.epoch for frame in frames] == [0] * 30 + [1] * 10
    assert frames[29].time == pytest.approx(29 / 20)


@needs_ffmpeg
def test_a_file_without_a_known_duration_is_a_clip(web: tuple[str, Path], make_clip: Callable[..., Path]) -> None:
    """This server has no ranges, so FFmpeg cannot look at the end of the file."""
    assert ffmpeg("-i", make_clip(), "-c:v", "mpeg2video", web[1] / "clip.ts").wait() == 0
    with open_source(f"{web[0]}/clip.ts") as source:
        assert not source.live
        assert len(list(source)) == 30


def test_a_playlist_opens_no_files(web: tuple[str, Path], make_clip: Callable[..., Path]) -> None:
    entry = f"#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{make_clip()}\n#EXT-X-ENDLIST\n"
    (web[1] / "local.m3u8").write_text(f"#EXTM3U\n{entry}")
    with pytest.raises(SourceError), open_source(f"{web[0]}/local.m3u8") as source:
        source.read()


def test_a_server_can_lead_only_to_other_servers(web: tuple[str, Path], make_clip: Callable[..., Path]) -> None:
    clip = make_clip("clip.mkv")
    shutil.copy(clip, web[1])
    with open_source(f"{web[0]}/to?/clip.mkv") as source:
        assert read(source).index == 0
    for place in (f"file://{clip}", f"concat:{clip}", f"subfile,,start,0,end,0,,:{clip}", "data:video/x-matroska,x"):
        assert "of a kind that framecast does not open" in refused(f"{web[0]}/to?{place}")


def test_a_playlist_on_standard_input_opens_nothing(
    web: tuple[str, Path], make_clip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip("clip.mkv")
    for entry in (clip, f"file://{clip}", f"{web[0]}/clip.mkv"):
        for text in (
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{entry}\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile {entry}\n",
        ):
            (tmp_path / "list").write_text(text)
            with (tmp_path / "list").open() as file:
                monkeypatch.setattr(sys, "stdin", file)
                assert "no video on standard input" in refused("-")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (401, "401 unauthorized: check the user and password"),
        (403, "403 forbidden"),
        (404, "404 not found: the host answers, but has no such path"),
        (503, "the host has an error of its own (5xx)"),
    ],
)
def test_why_an_address_is_refused(web: tuple[str, Path], code: int, words: str) -> None:
    assert words in refused(f"{web[0]}/{code}")
    with socket.create_server(("127.0.0.1", 0)) as server:  # a camera whose RTSP server refuses
        threading.Thread(target=answer, args=(server, code), daemon=True).start()
        message = refused(f"rtsp://cam:s3cret@127.0.0.1:{server.getsockname()[1]}/a")
    assert words in message
    assert "s3cret" not in message


def answer(server: socket.socket, code: int) -> None:
    """Refuse whatever an RTSP client asks."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, connection.makefile("rwb") as file:
            number = 0
            while line := file.readline():
                if line == b"\r\n":
                    number += 1
                    file.write(f"RTSP/1.0 {code} No\r\nCSeq: {number}\r\n\r\n".encode())
                    file.flush()


def test_hosts_that_are_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for scheme in ("rtsp", "http", "rtmp"):
        assert "connection refused: nothing listens at this port" in refused(f"{scheme}://127.0.0.1:{port}/a")
    assert "no such host" in refused("rtsp://camera.invalid/a")
    assert "ffmpeg -i ADDRESS -c copy -f mpegts - | framecast run -" in refused("srt://127.0.0.1:9/a")


def once_it_listens(address: str) -> Source:
    for _ in range(100):
        with contextlib.suppress(SourceError):
            return open_source(address, timeout=10)
        time.sleep(0.05)
    return open_source(address)


@pytest.mark.parametrize("scheme", ["rtmp", "udp"])
@needs_ffmpeg
def test_a_stream_that_ffmpeg_sends(scheme: str, make_clip: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
    coded = ("-stream_loop", -1, "-re", "-i", make_clip(), "-c:v", "libx264", "-tune", "zerolatency", "-g", 5)
    form = ("-f", "flv", "-listen", 1) if scheme == "rtmp" else ("-f", "mpegts")
    sender = ffmpeg(*coded, *form, address + "/a" * (scheme == "rtmp"))
    try:
        with once_it_listens(address + "/a" * (scheme == "rtmp")) as source:
            frames = [read(source) for _ in range(12)]
        assert source.live
        assert frames[-1].image.shape == (48, 64, 3)
        assert frames[0].time < frames[-1].time
    finally:
        sender.kill()
        sender.wait()


READ = """
import sys
from framecast.camera import Source, open_source
from framecast.camera.live import LiveSource
with open_source("-", timeout=float(sys.argv[1])) as source:
    print(source.live, *(round(float(frame.image.mean())) for frame in source))
"""


def piped(data: bytes | Path, timeout: float = 5.0) -> tuple[str, str]:
    """What a program reads from standard input, a pipe or a file: (whether it is live, and the shades; its error)."""
    call = [sys.executable, "-c", READ, str(timeout)]
    if isinstance(data, bytes):
        done = subprocess.run(call, input=data, capture_output=True, check=False)
    else:
        with data.open("rb") as file:
            done = subprocess.run(call, stdin=file, capture_output=True, check=False)
    return done.stdout.decode().strip(), done.stderr.decode().strip().rpartition("\n")[2]


def test_standard_input(make_clip: Callable[..., Path]) -> None:
    shown, _ = piped(b"".join(JPEGS))
    live, *levels = shown.split()
    assert live == "True"  # and the pipe's end is the end, not a loss
    assert [int(level) for level in levels] == pytest.approx([shade.image.mean() for shade in shades(20)], abs=1)
    shown, _ = piped(make_clip())
    live, *levels = shown.split()
    assert live == "False"
    assert [int(level) for level in levels] == pytest.approx([8 * k for k in range(30)], abs=5)
    assert "no video on standard input: it is damaged, cut off, or no video" in piped(b"hello\n" * 100)[1]


def test_standard_input_that_says_nothing() -> None:
    with subprocess.Popen(["sleep", "30"], stdout=subprocess.PIPE) as silent:
        done = subprocess.run(
            [sys.executable, "-c", READ, "0.2"], stdin=silent.stdout, capture_output=True, text=True, check=False
        )
        silent.kill()
    assert "no video on standard input: no data for 0.2 s" in done.stderr


def test_the_cameras_own_time(rtsp_server: RtspServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's RTCP reports tell when it captured a frame; server and test have one clock."""
    with open_source(rtsp_server.url) as source:
        read(source)
        said: list[str] = [source.times]
        while said[-1] == "arrival" and len(said) < 250:
            read(source)
            said.append(source.times)
        for _ in range(8):
            frame = read(source)
        age = time.monotonic() - frame.time
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 3600)  # somebody sets the wall clock
        said += [source.times for _ in range(3) if read(source)]
        frame = read(source)
        later = time.monotonic() - frame.time
    assert said[0] == "arrival"  # no report has come yet
    assert said[-4:] == ["capture"] * 4
    assert 0.01 < age < 1.0  # encoding and sending take longer than reading
    assert 0.01 < later < 1.0
    with open_source(rtsp_server.url, sender_clock=False) as source:
        assert isinstance(source, LiveSource)
        assert read(source)
        assert source._capture.stamp() is None
