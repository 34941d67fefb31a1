"""Clips and images to read: frame i is a grey of 8·i, so that each frame is known by its brightness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

FRAMES = 30


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "clip.mp4", codec: str = "mp4v", fps: float = 20.0, size: tuple[int, int] = (64, 48)) -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
        assert writer.isOpened()
        for number in range(FRAMES):
            writer.write(np.full((size[1], size[0], 3), 8 * number, np.uint8))
        writer.release()
        return path

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """img8.png to img11.png, brightness 8 to 11; and what is no image."""
    place = tmp_path / "frames"
    place.mkdir()
    for number in (8, 9, 10, 11):
        cv2.imwrite(str(place / f"img{number}.png"), np.full((48, 64, 3), number, np.uint8))
    (place / "notes.txt").write_text("no image")
    return place
