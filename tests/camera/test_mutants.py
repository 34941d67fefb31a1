"""Damaged videos and images: 500 mutants end in frames or in one error, and print nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

READ = """
import sys
from framecast.camera import open_source
from framecast.errors import SourceError
for path in sys.argv[1:]:
    try:
        with open_source(path) as source:
            for frame, _ in zip(source, range(200)):
                assert frame.image.ndim == 3
    except SourceError as error:
        assert str(error).isprintable(), ascii(error)
"""
ENCODERS = {
    "a.mp4": ("-c:v", "libx264", "-g", "10"),
    "interlaced.mp4": ("-vf", "interlace=scan=tff", "-c:v", "libx264", "-flags", "+ilme+ildct"),
    "a.mkv": ("-c:v", "libx264", "-bf", "2"),
    "a.ts": ("-c:v", "mpeg2video"),
    "a.avi": ("-c:v", "mjpeg"),
    "a.webm": ("-c:v", "libvpx", "-deadline", "realtime"),
    "a.mjpeg": ("-c:v", "mjpeg"),
    "a.h264": ("-c:v", "libx264"),
}
IMAGES = ("a.png", "a.apng", "a.gif", "a.jpg", "a.tif", "a.webp", "a.avif", "a.bmp", "a.ppm")
PER_KIND = 30


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, a hole, a cut, or a part that comes twice."""
    out = bytearray(data)
    place, length = int(rng.integers(len(out))), int(rng.integers(1, max(2, len(out) // 8)))
    match rng.integers(4):
        case 0:
            for _ in range(int(rng.integers(1, 30))):
                out[int(rng.integers(len(out)))] = int(rng.integers(256))
        case 1:
            out[place : place + length] = bytes(length)
        case 2:
            del out[max(1, place) :]
        case _:
            out[place:place] = out[place : place + length]
    return bytes(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ENCODERS, *IMAGES])
def test_mutants(tmp_path: Path, name: str) -> None:
    path, rng = tmp_path / name, np.random.default_rng(len(name) + sum(name.encode()))
    if name in ENCODERS:
        picture = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=20:duration=1")
        subprocess.run(["ffmpeg", "-v", "error", *picture, *ENCODERS[name], path], check=True)
    else:
        pages = [Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)) for _ in range(3)]
        many = (
            {"save_all": True, "append_images": pages[1:]} if path.suffix[1:] in ("apng", "gif", "tif", "webp") else {}
        )
        pages[0].save(path, format="PNG" if path.suffix == ".apng" else None, **many)
    mutants = []
    for number in range(PER_KIND):
        mutants.append(path.with_name(f"{number}{path.suffix}"))
        mutants[-1].write_bytes(mutated(path.read_bytes(), rng))
    done = subprocess.run(
        [sys.executable, "-c", READ, *mutants], check=False, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
