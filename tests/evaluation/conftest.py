"""A model that is computed by hand, and clips with everything that is left out of scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.evaluation.results import Contender
from framecast.graph.manifest import Manifest, StateSpec
from framecast.runtime.engines import Engine, State
from framecast.runtime.predictor import Predictor

HEIGHT, WIDTH = 20, 28


class TrendEngine(Engine):
    """Predicts frame + (k + 1) · share · (frame − the one before), K frames a step, not clamped."""

    name, device, version = "trend", "test", "0"

    def __init__(self, share: float, order: str, outputs: int, warmup: int, poison: int) -> None:
        channels = 1 if order == "GRAY" else 3
        carried = (StateSpec("before", (channels, HEIGHT, WIDTH)), StateSpec("count", (1,)))
        self.manifest = Manifest(
            "Trend",
            "trend",
            (channels, HEIGHT, WIDTH),
            carried,
            warmup,
            0,
            "by hand",
            "",
            "none",
            outputs=outputs,
            channel_order=order,
        )
        self.share, self.poison = share, poison
        self.steps = 0

    def step(self, frame: np.ndarray, state_in: State, state_out: State) -> np.ndarray:
        self.steps += 1
        change = self.share * (frame - state_in.tensors["before"]) * (state_in.tensors["count"][0] > 0)
        for k in range(self.manifest.outputs):
            state_out.prediction[:, k] = frame + (k + 1) * change
        if self.steps == self.poison:
            state_out.prediction[:] = np.nan
        state_out.tensors["count"][:] = state_in.tensors["count"] + 1
        state_out.tensors["before"][:] = frame
        return state_out.prediction

    def close(self) -> None:
        pass


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
    ) -> Contender:
        return Contender(name, name, Predictor(TrendEngine(share, order, outputs, warmup, poison)))

    return make


def moving(count: int, seed: int | None = None, step: tuple[int, int] = (2, 1)) -> list[np.ndarray]:
    """A smooth random picture that moves, uint8 [40, 56, 3] each; every seventh frame is followed by itself."""
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
    """A folder of images: a clip whose frames come back as they were."""

    def write(name: str, frames: list[np.ndarray]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for i, frame in enumerate(frames):
            cv2.imwrite(str(folder / f"{i}.png"), frame)
        return folder

    return write
