"""Small training data: clips of sliding patterns, and blobs instead of MNIST's digits."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def write_clip(path: Path, frames: int, speed: int = 2, size: tuple[int, int] = (256, 192)) -> None:
    """Write a video of ``size`` (width, height) in which a pattern slides by ``speed`` pixels a frame."""
    width, height = size
    coarse = np.random.default_rng(speed).integers(0, 256, (12, 30, 3), dtype=np.uint8)
    scene = cv2.resize(coarse, (2 * width, height))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, size)
    for index in range(frames):
        x = speed * index % width
        writer.write(np.ascontiguousarray(scene[:, x : x + width]))
    writer.release()


def write_clips(folder: Path, size: tuple[int, int] = (256, 192), seed: int = 0, **frames: int) -> Path:
    """Write a folder of clips; ``frames`` maps the name of each to its number of frames."""
    folder.mkdir()
    for index, (name, count) in enumerate((frames or {"a": 30, "b": 30}).items()):
        write_clip(folder / f"{name}.avi", count, 2 + seed + index, size)
    return folder


def write_digits(path: Path, seed: int = 4) -> Path:
    """Write an IDX file of ten images, with random blobs instead of digits."""
    blobs = np.random.default_rng(seed).integers(0, 256, (10, 7, 7), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    path.write_bytes(struct.pack(">IIII", 0x803, 10, 28, 28) + blobs.tobytes())
    return path


def moving_pictures(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """A smooth picture that moves by a pixel or two a frame, uint8 [h, w, 3] at ``size`` (width, height).

    For tests of warping: on noise or at hard edges, a flow that differs in its last bit changes a grey value.
    """
    rng, (width, height) = np.random.default_rng(), size
    coarse = rng.integers(60, 196, (5, 6, 3)).astype(np.uint8)
    whole = cv2.resize(coarse, (width + 2 * count, height + count), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(whole[i : i + height, 2 * i : 2 * i + width]) for i in range(count)]


def write_flows(path: Path, train: int = 6, test: int = 3, most: float = 1.0, kind: type = np.float32) -> Path:
    """Write a file like TaxiBJ's. In each sequence, random traffic of up to ±``most`` moves by a cell a frame."""
    arrays: dict[str, Any] = {}
    for name, count in (("train", train), ("test", test)):
        field = np.random.default_rng().uniform(-most, most, (count, 2, 32, 32))
        sequences: NDArray[Any] = np.stack([np.roll(field, age, axis=3) for age in range(8)], axis=1).astype(kind)
        arrays |= {f"X_{name}": sequences[:, :4], f"Y_{name}": sequences[:, 4:]}
    np.savez(path, **arrays)
    return path
