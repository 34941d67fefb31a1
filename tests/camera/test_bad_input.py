"""What cannot be opened: one line that says the cure; never a hang, a crash or a password."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from framecast.camera import open_source
from framecast.camera.media import MAX_PIXELS
from framecast.errors import SourceError
from framecast.redact import redact


def refusal(uri: str | Path) -> str:
    """The message with which a source is refused, when it is opened or first read."""
    with pytest.raises(SourceError) as caught, open_source(uri) as source:
        source.read()
    message = str(caught.value)
    assert message.isprintable()  # one line
    return message


def test_no_such_file() -> None:
    message = "no such file: clips/a.mp4 (check the path, or use 'demo' for the shipped clip)"
    assert refusal("clips/a.mp4") == message
    assert "no such file: /clips/a.mp4" in refusal("file:///clips/a.mp4")
    assert "no such file" in refusal("/etc/passwd/a.mp4")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert "empty file" in refusal(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "content",
    [
        np.random.default_rng(1).bytes(5000),
        b"hello world\n" * 50,
        b"#EXTM3U\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        b"ffconcat version 1.0\nfile clip.mp4\n",  # which FFmpeg plays, whatever its name
    ],
    ids=["random", "text", "m3u8", "sdp", "ffconcat"],
)
def test_a_file_that_is_no_video(make_clip: Callable[..., Path], content: bytes) -> None:
    clip = make_clip()
    fake = clip.with_name("fake.mp4")
    fake.write_bytes(content)
    assert "not a video that can be decoded" in refusal(fake)


def test_a_video_that_was_cut_off_before_its_index(make_clip: Callable[..., Path]) -> None:
    clip = make_clip()
    clip.write_bytes(clip.read_bytes()[:-200])
    assert "not a video" in refusal(clip)


def write_with_cover(path: Path, film: bool) -> None:
    """Write music with the picture of its cover; or a film of 96x64 that has one."""
    with av.open(path, "w", format="mp4") as out:
        cover = out.add_stream("mjpeg", rate=1, width=64, height=48, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        video = out.add_stream("mpeg4", rate=20, width=96, height=64, pix_fmt="yuv420p") if film else None
        audio = out.add_stream("aac", rate=8000)
        out.mux([*cover.encode(av.VideoFrame(64, 48, "yuvj420p")), *cover.encode(None)])
        for number in range(5):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.rate, sound.pts = 8000, 1024 * number
            out.mux(audio.encode(sound))
            if video is not None:
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), "rgb24")
                frame.pts = number
                out.mux(video.encode(frame))
        for stream in (audio, *([video] if film else [])):
            out.mux(stream.encode(None))


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    write_with_cover(tmp_path / "song.m4a", film=False)
    assert "(it has no video, only a cover picture; try ffprobe)" in refusal(tmp_path / "song.m4a")
    write_with_cover(tmp_path / "film.mp4", film=True)
    with open_source(tmp_path / "film.mp4") as source:
        assert [frame.image.shape for frame in source] == [(64, 96, 3)] * 5


def test_a_video_without_a_single_frame(make_clip: Callable[..., Path]) -> None:
    clip = make_clip("a.avi", "MJPG")
    content = clip.read_bytes()
    clip.write_bytes(content[: content.index(b"movi") + 4])
    assert "damaged" in refusal(clip)


def test_a_video_of_enormous_frames(make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framecast.camera.media.MAX_PIXELS", 64 * 48 - 1)
    assert "damaged, cut off or larger than 67108864 pixels" in refusal(make_clip())  # the decoder refuses it
    assert "frames too large" in refusal(make_clip("a.webm", "VP80"))  # the header tells the size


def test_the_decoder_has_the_limit_before_it_sees_a_picture(
    make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening decodes one: a file of 0.4 MB took 380 MB before its size was looked at."""
    import av

    real, given = av.open, []

    def opened(*arguments: Any, **named: Any) -> Any:
        given.append(named["options"])
        return real(*arguments, **named)

    monkeypatch.setattr(av, "open", opened)
    open_source(make_clip()).close()
    assert given[0]["max_pixels"] == str(MAX_PIXELS)


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.mp4"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"x")
    assert "rename it" in refusal(os.fsdecode(path))


def test_a_name_of_several_lines_or_none() -> None:
    assert "no such file: a\N{REPLACEMENT CHARACTER}b.mp4" in refusal("a\nb.mp4")
    assert "cannot read" in refusal("a\0b.mp4")
    assert "File name too long" in refusal("a" * 256)
    assert "no source given" in refusal("")


def test_folders_and_globs_without_images(tmp_path: Path) -> None:
    assert "no images in" in refusal(tmp_path)
    (tmp_path / "a.txt").touch()
    assert "no images match" in refusal(f"{tmp_path}/*")
    assert "no images match" in refusal(f"{tmp_path}/*.mp4")
    assert "no images match" in refusal(f"{tmp_path}/a**b/*.png")


def test_an_image_that_is_none(folder: Path) -> None:
    alone = folder / "img9.png"
    alone.write_bytes(b"no image")
    with open_source(alone) as source, pytest.raises(SourceError, match=r"img9\.png \(empty or damaged"):
        source.read()
    alone.write_bytes(b"")
    assert "empty file" in refusal(alone)


def test_an_image_of_enormous_size(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    cv2.imwrite(str(path), np.zeros((9000, 9000), np.uint8))
    with open_source(path) as source, pytest.raises(SourceError, match=r"image too large: .*big\.png"):
        source.read()


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "a.png")
    assert "not a regular file" in refusal(tmp_path / "a.mp4")
    assert "not a regular file" in refusal(tmp_path / "a.png")
    assert "no images in" in refusal(tmp_path)
    assert "not a regular file" in refusal("/dev/zero")


def test_unknown_schemes_name_the_known_ones() -> None:
    for uri in (
        "ftp://host/a.mp4",
        "concat:a.mp4|b.mp4",
        "gopher://user:s3cret@host/cam",
        "hls://a",
        "data:video/mp4,x",
    ):
        message = refusal(uri)
        assert "unknown scheme" in message
        assert "rtsp://" in message
        assert "s3cret" not in message


@pytest.mark.parametrize(
    ("module", "words"),
    [("cv2", "apt-get install libgl1"), ("av", "PyAV cannot be loaded"), ("PIL", "Pillow cannot be")],
)
def test_a_library_that_cannot_be_loaded(folder: Path, module: str, words: str) -> None:
    code = f"""
import sys
sys.modules[{module!r}] = None
from framecast.camera import open_source
open_source("synthetic://").read()
open_source(sys.argv[1]).read()
"""
    source = "demo" if module == "av" else folder
    done = subprocess.run([sys.executable, "-c", code, source], check=False, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert "SourceError" in last
    assert words in last


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://cam:s3cret@host:554/a", "rtsp://***@host:554/a"),
        ("rtsp://s3cret@host/a", "rtsp://***@host/a"),
        ("rtsp://cam:s3/c@r?e#t@host/a", "rtsp://***@host/a"),
        ("rtsp:/cam:s3cret@host/a", "rtsp:/***@host/a"),
        ("cam:s3cret@host/a", "***@host/a"),
        ("rtsp://host/a?user=x&password=s3cret&fps=5", "rtsp://host/a?user=x&password=***&fps=5"),
        ("rtsp://host/a?access_token=s3/cret", "rtsp://host/a?access_token=***"),
        ("http://host/a.cgi?loginuse=x&loginpas=s3cret", "http://host/a.cgi?loginuse=x&loginpas=***"),
        ("http://host/a?jwt=s3cret", "http://host/a?jwt=***"),
        ("rtsp://host/a?Api-Key=s3cret", "rtsp://host/a?Api-Key=***"),
        ("rtsp://host/user=x_password=s3cret_channel=1.sdp", "rtsp://host/user=x_password=***"),
        ("rtsp://host/a?password=s3@cret&fps=5", "rtsp://***@***&fps=5"),
        ("rtsp://cam:s3key=c@host/a?fps=5", "rtsp://***@host/a?fps=5"),
        ("rtsp://host/a?fps=5", "rtsp://host/a?fps=5"),
        ("clips/cup@2x.mp4", "clips/cup@2x.mp4"),
        ("clips/key=1.mp4", "clips/key=1.mp4"),
        ("rtsp://host/a\n\x1b[31m", "rtsp://host/a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[31m"),
    ],
)
def test_credentials_are_redacted(uri: str, shown: str) -> None:
    assert redact(uri) == shown
