"""``benchmarks/isolation.py``: its simulated cameras fail as they should, and its rows are of the first camera."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from framecast.errors import SourceError
from framecast.testing import VirtualClock

IMAGES = [np.full((48, 64, 3), level, np.uint8) for level in (0, 90, 180)]


@pytest.fixture
def script(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("isolation")


@pytest.mark.parametrize(("kind", "least", "most"), [("steady", 29, 30), ("floods", 950, 1010)])
def test_a_camera_sends_at_its_rate(script: ModuleType, kind: str, least: int, most: int) -> None:
    clock = VirtualClock()
    frames = [*iter(script.Simulated(IMAGES, 10.0, 3.0, kind, clock).read, None)]
    assert least <= len(frames) <= most  # a flood may begin a frame later
    assert [frame.index for frame in frames] == [*range(len(frames))]
    assert frames[-1].time - frames[0].time == pytest.approx(2.9, abs=0.11)


def test_a_camera_dies_and_another_stalls(script: ModuleType) -> None:
    clock = VirtualClock()
    begun = clock.now()
    dying = script.Simulated(IMAGES, 10.0, 3.0, "dies", clock)
    with pytest.raises(SourceError, match="died"):
        [*iter(dying.read, None)]
    assert clock.now() - begun == pytest.approx(1.0, abs=0.11)
    stalling = script.Simulated(IMAGES, 10.0, 0.0, "stalls", clock)
    stalling.close()
    assert stalling.read() is None  # a close ends the read


def test_every_kind_runs_beside_the_first_camera(script: ModuleType) -> None:
    for kind in script.KINDS:
        handed, dropped = script.beside(kind, "edge", IMAGES, Namespace(fps=20.0, seconds=1.0))
        assert len(handed.moments) + dropped >= 15, kind


def test_a_row_has_the_first_cameras_figures(script: ModuleType) -> None:
    handed = script.Handed()
    handed.moments = [0.1 * n for n in range(script.SETTLED + 101)]
    handed.latencies = [0.02] * len(handed.moments)
    handed.latencies[-5:] = [0.05] * 5
    assert [*script.row("dies", [(handed, 3)])] == ["dies", "101", "3", "20.0", "50.0", "100.0", "100.0"]
