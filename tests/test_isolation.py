"""``benchmarks/isolation.py``: its simulated cameras fail as they should, and its rows are of the first camera."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from framecast.errors import SourceError
from framecast.testing import VirtualClock

SECONDS = {"steady": 3.0, "floods": 5.0}  # of which it is steady for three
IMAGES = [np.full((48, 64, 3), level, np.uint8) for level in (0, 90, 180)]


@pytest.fixture
def script(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("isolation")


@pytest.mark.parametrize(("kind", "least", "most"), [("steady", 29, 30), ("floods", 950, 1040)])
def test_a_camera_sends_at_its_rate(script: ModuleType, kind: str, least: int, most: int) -> None:
    clock = VirtualClock()
    frames = [*iter(script.Simulated(IMAGES, 10.0, SECONDS[kind], kind, clock).read, None)]
    assert least <= len(frames) <= most  # a flood may begin a frame later
    assert [frame.index for frame in frames] == [*range(len(frames))]
    assert frames[-1].time - frames[0].time == pytest.approx(SECONDS[kind] - 0.1, abs=0.11)


def test_a_camera_dies_and_another_stalls(script: ModuleType) -> None:
    clock = VirtualClock()
    begun = clock.now()
    dying = script.Simulated(IMAGES, 10.0, 9.0, "dies", clock)
    with pytest.raises(SourceError, match="died"):
        [*iter(dying.read, None)]
    assert clock.now() - begun == pytest.approx(script.STEADY, abs=0.11)
    stalling = script.Simulated(IMAGES, 10.0, 9.0, "stalls", clock)
    assert all(stalling.read() is not None for _ in range(20))
    stalling.close()
    assert stalling.read() is None  # a close ends the read


def test_every_kind_runs_beside_the_first_camera(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "STEADY", 0.3)
    monkeypatch.setattr(script, "COUNTED", 0.0)
    for kind in script.KINDS:
        handed = script.beside(kind, "edge", IMAGES, Namespace(fps=20.0, seconds=1.0))
        assert len(handed.moments) + handed.dropped >= 10, kind


def test_a_row_has_the_first_cameras_figures(script: ModuleType) -> None:
    handed = script.Handed(0.0)
    handed.frames = [5, *range(8, 108)]  # two were left out
    handed.moments = [0.1 * n for n in range(101)]
    handed.latencies = [0.02] * 96 + [0.05] * 5
    assert [*script.row("dies", [handed])] == ["dies", "101", "2", "20.0", "50.0", "100.0", "100.0"]
