"""The kinds of video that people have. The right values come from ffprobe and FFmpeg."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from framecast.camera import Frame, Source, open_source, video
from framecast.camera.decoder import Decoder
from framecast.camera.pictures import Pictures
from framecast.errors import SourceError

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg (make system-deps)")

X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "12")
MOVING = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=20:duration=1")

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run ffmpeg with arguments; the last one is the name of the file that it makes."""

    def made(*arguments: object) -> Path:
        path = tmp_path / str(arguments[-1])
        subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments[:-1]), path], check=True)
        return path

    return made


def probed(path: Path) -> list[float]:
    """The frames' presentation times by ffprobe, in seconds from the first."""
    call = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-show_frames", "-of", "json", str(path)]
    frames = json.loads(subprocess.run(call, capture_output=True, check=True).stdout)["frames"]
    times = [float(frame["best_effort_timestamp_time"]) for frame in frames]
    return [time - times[0] for time in times]


def shown(path: Path, *filters: str) -> NDArray[np.uint8]:
    """All frames as FFmpeg's player turns and converts them: BGR in the size of the first frame read."""
    call = ["ffmpeg", "-v", "error", "-i", str(path), *filters, "-f", "rawvideo", "-pix_fmt", "bgr24", "-"]
    return np.frombuffer(subprocess.run(call, capture_output=True, check=True).stdout, np.uint8)


def every(source: Source) -> list[Frame]:
    with source:
        return list(source)


def difference(frames: list[Frame], expected: NDArray[np.uint8]) -> float:
    """Mean difference in grey levels."""
    ours = np.stack([frame.image for frame in frames])
    return float(np.abs(ours.astype(int) - expected.reshape(ours.shape)).mean())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("-vf", "select='not(between(mod(n,7),3,4))'", "-fps_mode", "vfr", *X264), "vfr.mp4"),
        (("-r", "1/30", *X264), "timelapse.mp4"),
        (("-vf", "setpts=N*N/200/TB", "-fps_mode", "vfr", *X264), "slower.mkv"),
        (("-vf", "setpts=PTS+7/TB", *X264), "late.mp4"),
        (("-fps_mode", "passthrough", "-c:v", "libvpx", "-deadline", "realtime"), "header.webm"),
        (("-bf", "3", *X264), "reordered.ts"),
        (("-c:v", "mpeg4",), "plain.avi"),
    ],
)  # fmt: skip
def test_frames_have_their_own_times(make: Make, arguments: tuple[str, ...], name: str) -> None:
    source = (*MOVING[:2], "-r", "1/30", *MOVING[2:]) if "1/30" in arguments else MOVING
    path = make(*source, *arguments, name)
    frames = every(open_source(path))
    assert [frame.time for frame in frames] == pytest.approx(probed(path), abs=1e-6)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(later.time > earlier.time for earlier, later in itertools.pairwise(frames))


def test_a_rate_that_was_asked_for_replaces_the_stored_times(make: Make) -> None:
    path = make(*MOVING, "-vf", "setpts=N*N/200/TB", "-fps_mode", "vfr", *X264, "slower.mkv")
    times = [frame.time for frame in every(open_source(path, fps=10))]
    assert times == pytest.approx([k / 10 for k in range(len(times))])


def test_interlaced_video_is_deinterlaced(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(*MOVING, "-vf", "interlace=scan=tff", *X264, "-flags", "+ilme+ildct", "interlaced.mp4")
    poison_pools(monkeypatch)
    source = open_source(path)
    frames = every(source)
    assert source.notes == ["interlaced video is deinterlaced (bwdif)"]
    assert [frame.time for frame in frames] == pytest.approx(probed(path), abs=1e-6)
    assert difference(frames, shown(path, "-vf", "bwdif=mode=send_frame")) < 1


def poison_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reader does not write stays magenta."""
    real = Pictures.picture

    def poisoned(self: Pictures, *args: Any) -> Any:
        take = self._pool.take

        def filled(*shape: Any) -> Any:
            array = take(*shape)
            array[:] = (255, 0, 255)
            return array

        monkeypatch.setattr(self._pool, "take", filled)
        picture = real(self, *args)
        monkeypatch.undo()
        return picture

    monkeypatch.setattr(Pictures, "picture", poisoned)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_display_rotation_is_applied(make: Make, degrees: int) -> None:
    upright = make(*MOVING, *X264, "upright.mp4")
    turned = make("-i", upright, "-c", "copy", "-metadata:s:v", f"rotate={degrees}", "turned.mp4")
    frames = every(open_source(turned))
    assert frames[0].image.shape == ((64, 96, 3) if degrees == 180 else (96, 64, 3))
    assert difference(frames, shown(turned)) < 0.5


def test_pixels_that_are_not_square(make: Make) -> None:
    wide = every(open_source(make(*MOVING, "-vf", "setsar=16/9", *X264, "wide.mp4")))
    tall = every(open_source(make(*MOVING, "-vf", "setsar=1/2", *X264, "tall.mp4")))
    nearly = every(open_source(make(*MOVING, "-vf", "setsar=512/513", *X264, "nearly.mp4")))
    assert wide[0].image.shape == (64, 171, 3)
    assert tall[0].image.shape == (128, 96, 3)
    assert nearly[0].image.shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("pixels", "matrix"),
    [("yuv420p", "bt709"), ("yuvj420p", "smpte170m"), ("yuv420p10le", "bt709"), ("yuv444p", "smpte170m")],
)
def test_colours_follow_the_matrix_the_range_and_the_depth(make: Make, pixels: str, matrix: str) -> None:
    smooth = "gblur=6,format=bgr0"
    coded = ("-vf", f"{smooth},scale=out_color_matrix={matrix}", "-c:v", "ffv1", "-pix_fmt", pixels)
    path = make(*MOVING, *coded, "-colorspace", matrix, "colours.mkv")
    plain = every(open_source(make(*MOVING, "-vf", smooth, "-c:v", "ffv1", "-pix_fmt", "bgr0", "plain.mkv")))
    frames = every(open_source(path))
    assert difference(frames, shown(path)) < 1.5
    assert difference(frames, np.stack([frame.image for frame in plain])) < 2  # another matrix: 6 and more


@pytest.mark.parametrize(("trc", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_says_that_it_is_not_tone_mapped(make: Make, trc: str, name: str) -> None:
    tags = ("-color_trc", trc, "-color_primaries", "bt2020", "-colorspace", "bt2020nc")
    source = open_source(make(*MOVING, "-c:v", "ffv1", "-pix_fmt", "yuv420p10le", *tags, "hdr.mkv"))
    assert len(every(source)) == 20
    (note,) = source.notes
    assert f"HDR video ({name}) is not tone-mapped" in note


def test_deep_grey_is_stretched(make: Make) -> None:
    """A thermal camera: 14 bits, of which the picture uses a small part."""
    path = make(*MOVING, "-vf", "format=gray16le,lutyuv=y=val/64+7000", "-c:v", "ffv1", "-pix_fmt", "gray16le", "t.mkv")
    source = open_source(path)
    frames = every(source)
    (note,) = source.notes
    assert "pictures of uint16 are stretched: " in note
    assert frames[0].image.min() < 64
    assert frames[0].image.max() > 190
    assert (frames[0].image[..., :1] == frames[0].image).all()


def test_transparent_video_lies_over_black(make: Make) -> None:
    path = make("-f", "lavfi", "-i", "color=red@0.0:size=64x48:rate=5:duration=1,format=rgba", "-c:v", "png", "a.mkv")
    assert all((frame.image == 0).all() for frame in every(open_source(path)))


def test_damage_in_mid_file_keeps_the_time_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # FFmpeg's H.264 decoder may lose the mark of a damaged picture with several threads (4 threads: 1 of 200; 8: 22).
    monkeypatch.setattr(
        video, "Decoder", lambda container, threads, faults: Decoder(container, threads=1, faults=faults)
    )
    whole = make(*(part.replace("duration=1", "duration=4") for part in MOVING), *X264, "-g", 10, "whole.mkv")
    data = bytearray(whole.read_bytes())
    middle, hole = len(data) // 2, len(data) // 8
    data[middle : middle + hole] = bytes(hole)
    damaged = whole.with_name("damaged.mkv")
    damaged.write_bytes(data)
    source = open_source(damaged)
    times = [frame.time for frame in every(source)]
    assert source.faults["damaged"] >= 1
    assert set(np.round(times, 3)) <= set(np.round(probed(whole), 3))
    assert times[-1] == pytest.approx(3.95)
    assert max(np.diff(times)) > 0.2  # the gap


def test_files_that_were_joined_begin_anew(make: Make) -> None:
    path = make(*(part.replace("duration=1", "duration=3") for part in MOVING), *X264, "one.ts")
    joined = path.with_name("joined.ts")
    joined.write_bytes(path.read_bytes() * 2)
    frames = every(open_source(joined))
    assert [frame.time for frame in frames] == pytest.approx([k / 20 for k in range(120)], abs=1e-3)
    assert [frame.epoch for frame in frames] == [0] * 60 + [1] * 60


def test_a_size_that_changes_in_mid_file(make: Make) -> None:
    small = make(*MOVING, *X264, "-bsf:v", "h264_mp4toannexb", "small.h264")
    large = make(*(part.replace("96x64", "128x80") for part in MOVING), *X264, "-bsf:v", "h264_mp4toannexb", "l.h264")
    joined = small.with_name("joined.h264")
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    shapes = [frame.image.shape for frame in every(open_source(joined))]
    assert shapes == [(64, 96, 3)] * 20 + [(80, 128, 3)] * 20


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(("-pix_fmt", "yuv420p"), "a.y4m"), (("-c:v", "mjpeg"), "a.mjpeg"), (("-f", "mpjpeg"), "a.mpj")],
)
def test_raw_and_joined_pictures(make: Make, arguments: tuple[str, ...], name: str) -> None:
    assert len(every(open_source(make(*MOVING, *arguments, name)))) == 20


def test_colours_that_cannot_be_converted_are_said(make: Make) -> None:
    source = open_source(make(*MOVING, *X264, "-colorspace", "ycgco", "y.mp4"))
    with pytest.raises(SourceError, match=r"cannot convert its colours \(yuv420p, matrix 8 of H.273\)"):
        every(source)


def test_a_file_that_was_cut_off_gives_all_whole_frames(make: Make) -> None:
    whole = make(*MOVING, *X264, "-bf", 3, "-movflags", "+faststart", "whole.mp4")
    cut = whole.with_name("cut.mp4")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    call = ["ffprobe", "-v", "quiet", "-show_packets", "-of", "json", str(cut)]
    packets = json.loads(subprocess.run(call, capture_output=True, check=True).stdout)["packets"]
    source = open_source(cut)
    assert len(every(source)) == len(packets) - 1  # the last one is cut
    assert source.faults["damaged"] == 1
