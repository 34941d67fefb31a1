"""Videos in every container, and images in every format, with their bytes damaged."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from framecast.camera import open_source

from .kind import Kind, only
from .mutate import damaged

FRAMES = 200  # how many are read of each input
SIZE = (96, 64)
# name: container, encoder, its options
VIDEOS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "a.mp4": ("mp4", "libx264", {"g": "10", "bf": "2"}),
    "fragments.mp4": ("mp4", "libx264", {"g": "5"}),
    "interlaced.mp4": ("mp4", "libx264", {"flags": "+ilme+ildct"}),
    "a.mov": ("mov", "mpeg4", {}),
    "a.mkv": ("matroska", "libx264", {"bf": "2"}),
    "ffv1.mkv": ("matroska", "ffv1", {}),
    "a.ts": ("mpegts", "mpeg2video", {"bf": "2"}),
    "a.avi": ("avi", "mjpeg", {}),
    "xvid.avi": ("avi", "mpeg4", {}),
    "a.webm": ("webm", "libvpx", {"deadline": "realtime"}),
    "vp9.webm": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "a.flv": ("flv", "flv", {}),
    "a.ogv": ("ogg", "libtheora", {}),
    "a.gif": ("gif", "gif", {}),
    "a.mjpeg": ("mjpeg", "mjpeg", {}),
    "a.h264": ("h264", "libx264", {}),
    "a.hevc": ("hevc", "libx265", {"x265-params": "log-level=none:pools=none:frame-threads=1"}),
    "a.ivf": ("ivf", "libvpx", {"deadline": "realtime"}),
    "a.y4m": ("yuv4mpegpipe", "wrapped_avframe", {}),
    "a.mpg": ("mpeg", "mpeg1video", {}),
}
_MUXING = {"fragments.mp4": {"movflags": "frag_keyframe+empty_moov"}}
IMAGES = (
    "a.png",
    "a.apng",
    "a.gif",
    "a.jpg",
    "a.tif",
    "deflate.tif",
    "16.tif",
    "a.webp",
    "a.avif",
    "a.bmp",
    "a.ppm",
    "16.png",
)


def video(name: str) -> bytes:
    """A clip of 20 frames: noise that moves. Raises ValueError where FFmpeg's libraries here have no such encoder."""
    container, encoder, options = VIDEOS[name]
    file, chance = io.BytesIO(), np.random.default_rng(1)
    texture = chance.integers(0, 256, (8, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    muxing = {"fflags": "+bitexact", **_MUXING.get(name, {})}
    with av.open(file, "w", format=container, options=muxing) as out:
        stream = out.add_stream(encoder, rate=Fraction(20), options={**options, "threads": "1"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(encoder, "yuv420p")
        stream.codec_context.thread_count = 1
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(np.roll(texture, 3 * index, 1), "rgb24").reformat(format=stream.pix_fmt)
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def image(name: str) -> bytes:
    """An image of noise; three of them where the format has pages."""
    chance, file, kind = np.random.default_rng(2), io.BytesIO(), Path(name).suffix[1:]
    if name.startswith("16"):
        pages = [Image.fromarray(chance.integers(0, 65536, (24, 32), np.uint16))]
    else:
        pages = [Image.fromarray(chance.integers(0, 256, (24, 32, 3), np.uint8)) for _ in range(3)]
    many = {"save_all": True, "append_images": pages[1:]} if kind in ("apng", "gif", "tif", "webp", "avif") else {}
    more = {"compression": "tiff_adobe_deflate"} if name == "deflate.tif" else {}
    pages[0].save(file, format={"apng": "PNG", "tif": "TIFF", "jpg": "JPEG"}.get(kind, kind.upper()), **many, **more)
    return file.getvalue()


class Videos(Kind):
    """A damaged video, read frame by frame."""

    inputs = 1500

    def __init__(self, folder: Path) -> None:
        self.whole: dict[str, bytes] = {}
        for name in VIDEOS:
            try:
                self.whole[name] = video(name)
            except (ValueError, av.error.FFmpegError):  # noqa: PERF203 (FFmpeg's libraries here lack its encoder)
                continue

    def make(self, chance: random.Random, folder: Path) -> None:
        name, other = chance.choice([*self.whole]), chance.choice([*self.whole.values()])
        (folder / name).write_bytes(damaged(self.whole[name], chance, other))

    def attempt(self, folder: Path) -> None:
        look(only(folder))


class Pictures(Kind):
    """A damaged image, alone or beside a whole one."""

    inputs = 1500

    def __init__(self, folder: Path) -> None:
        self.whole = {name: image(name) for name in IMAGES}

    def make(self, chance: random.Random, folder: Path) -> None:
        name, other = chance.choice([*self.whole]), chance.choice([*self.whole.values()])
        (folder / name).write_bytes(damaged(self.whole[name], chance, other))
        if chance.randrange(4) == 0:
            (folder / "whole.png").write_bytes(self.whole["a.png"])

    def attempt(self, folder: Path) -> None:
        files = [*folder.iterdir()]
        look(files[0] if len(files) == 1 else folder)


def look(path: Path) -> None:
    """Read a source to its end, or up to :data:`FRAMES` frames. Every one must be a picture."""
    with open_source(path) as source:
        for frame, _ in zip(source, range(FRAMES), strict=False):
            assert frame.image.ndim == 3
            assert frame.image.dtype == np.uint8
            assert frame.image.shape[2] == 3
            assert frame.time >= 0
