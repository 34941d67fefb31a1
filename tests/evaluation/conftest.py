"""Hand-computed models, and clips that contain the repeated frames that scoring leaves out.

The predictors do not watch their streams, so each frame is predicted by the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.evaluation.results import Contender
from framecast.runtime.predictor import Predictor
from framecast.testing import FadeEngine, TrendEngine

HEIGHT, WIDTH = 20, 28


MakeContender = Callable[..., Contender]


@pytest.fixture
def contender() -> MakeContender:
    def make(
        name: str = "trend",
        *,
        share: float = 0.4,
        order: str = "BGR",
        outputs: int = 1,
        warmup: int = 1,
        poison: int = 0,
        size: tuple[int, int] = (HEIGHT, WIDTH),
    ) -> Contender:
        engine = TrendEngine(share, order, outputs, warmup, poison, size)
        return Contender(name, name, engine if order == "NONE" else Predictor(engine, watch=False))

    return make


@pytest.fixture
def any_size() -> Contender:
    """A hand-computed motion model that takes any size."""
    return Contender("fade", "fade", Predictor(FadeEngine(), watch=False))


def moving(count: int, seed: int | None = None, step: tuple[int, int] = (2, 1)) -> list[np.ndarray]:
    """Frames of a moving smooth random picture, uint8 [40, 56, 3] each; every seventh repeats the one before it."""
    rng = np.random.default_rng(seed)
    world = cv2.GaussianBlur(rng.random((40 + 2 * count, 56 + 2 * count, 3)), (0, 0), 3)
    world = ((world - world.min()) / np.ptp(world) * 255).astype(np.uint8)
    frames = []
    for i in range(count):
        i -= i % 7 == 6
        frames.append(np.ascontiguousarray(world[step[1] * i :][:40, step[0] * i :][:, :56]))
    return frames


Moving = Callable[..., list[np.ndarray]]


@pytest.fixture
def moving_frames() -> Moving:
    return moving


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[[str, list[np.ndarray]], Path]:
    """Write a clip as a folder of images, which loses nothing."""

    def write(name: str, frames: list[np.ndarray]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for i, frame in enumerate(frames):
            cv2.imwrite(str(folder / f"{i}.png"), frame)
        return folder

    return write
