"""An engine and a source whose behaviour is known exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from framecast.camera import Frame, Source
from framecast.graph.manifest import Manifest, StateSpec
from framecast.runtime.engines import Engine, State

HEIGHT, WIDTH = 12, 16


class DriftEngine(Engine):
    """Predicts frame + 0.1 (not clamped), and counts its steps in a carried state; can be told to break."""

    name, device, version = "drift", "test", "0"

    def __init__(self) -> None:
        count = StateSpec("count", (1,))
        self.manifest = Manifest("Drift", "drift", (3, HEIGHT, WIDTH), (count,), 1, 0, "random", "", "none")
        self.poison: Callable[[float], bool] = lambda count: False
        self.seconds = 0.0

    def step(self, frame: np.ndarray, state_in: State, state_out: State) -> np.ndarray:
        assert state_in is not state_out
        assert not np.shares_memory(frame, state_out.prediction)
        time.sleep(self.seconds)
        state_out.tensors["count"][:] = state_in.tensors["count"] + 1
        state_out.prediction[:, 0] = np.nan if self.poison(float(state_in.tensors["count"][0, 0])) else frame + 0.1
        return state_out.prediction

    def close(self) -> None:
        pass


@dataclass
class ListSource(Source):
    """Gives a list of frames; an exception in it is raised."""

    frames: list[Frame | Exception]
    live: bool = False
    fps: float | None = 25.0
    name: str = "a list"
    gap: float = 0.0  # seconds before each frame
    closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._rest: Iterator[Frame | Exception] = iter(self.frames)

    def read(self) -> Frame | None:
        time.sleep(self.gap)
        frame = next(self._rest, None)
        if isinstance(frame, Exception):
            raise frame
        return frame

    def close(self) -> None:
        self.closed = True


def shades(
    count: int, *, size: tuple[int, int] = (HEIGHT, WIDTH), epoch: int = 0, start: int = 0
) -> list[Frame | Exception]:
    """Grey frames that brighten by 2 levels each, 25 a second."""
    return [Frame(np.full((*size, 3), 2 * i, np.uint8), (start + i) / 25, start + i, epoch) for i in range(count)]


@pytest.fixture
def engine() -> DriftEngine:
    return DriftEngine()


@pytest.fixture
def list_source() -> type[ListSource]:
    return ListSource


@pytest.fixture
def make_frames() -> Callable[..., list[Frame | Exception]]:
    return shades
