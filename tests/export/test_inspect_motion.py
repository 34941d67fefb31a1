"""``framecast inspect`` on the motion model: colours show directions, guesses show their gain, short clips fail."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.camera import Frame
from framecast.errors import SourceError
from framecast.export.inspect_motion import ROWS, flow_image, watch
from framecast.testing import ListSource

from ..conftest import Run  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)


def moving(count: int, size: tuple[int, int] = (240, 480)) -> list[Frame]:
    """Smooth noise that moves to the right by 3 pixels a frame, 25 frames a second."""
    height, width = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width + 3 * count, 3), dtype=np.uint8)
    wide = np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.uint8)
    return [
        Frame(np.ascontiguousarray(wide[:, 3 * (count - i) : 3 * (count - i) + width]), i / 25, i) for i in range(count)
    ]


def test_the_flow_matches_the_motion() -> None:
    found = watch(ListSource(moving(30)), 30)
    assert found.frames == 30
    assert len(found.moments) == ROWS
    last = found.moments[-1]
    inner = last.flow[20:-20, 20:-20]
    assert np.median(inner[..., 0]) == pytest.approx(75, rel=0.05)  # pixels per second: 3 per frame
    assert abs(np.median(inner[..., 1])) < 2
    assert last.psnr > 40
    assert set(last.weights) == {*found.earned} - {"all"}
    together = found.worth("all")[0]
    assert all(found.worth(name)[0] <= together + 1e-6 for name in found.ranked)  # the mixture is never beaten
    assert all(found.worth(name)[1] >= -1e-6 for name in found.ranked)  # leaving one out never helps


def test_hue_shows_direction_and_saturation_shows_speed() -> None:
    flow = np.array([[[1, 0], [0, 1], [-1, 0], [0, 0]]], np.float32)
    hsv = cv2.cvtColor(flow_image(flow, 1.0), cv2.COLOR_BGR2HSV)[0]
    assert [int(h) for h in hsv[:3, 0]] == [0, 45, 90]  # OpenCV's half degrees
    assert [int(s) for s in hsv[:, 1]] == [255, 255, 255, 0]


def test_the_command_writes_pictures_and_numbers(run: Run, tmp_path: Path) -> None:
    code, out, err = run("inspect", "edge", "demo", "-o", tmp_path / "look", "--frames", 20)
    assert (code, err) == (0, "")
    assert "all guesses together gain" in out
    figures = json.loads((tmp_path / "look" / "inspect.json").read_text())
    assert figures["frames"] == 20
    assert len(figures["moments"]) == ROWS
    for name in ("motion.png", "weights.png"):
        picture = cv2.imread(str(tmp_path / "look" / name))
        assert picture is not None
        assert picture.std() > 10


def test_a_clip_that_is_too_short_is_refused() -> None:
    with pytest.raises(SourceError, match="it has 5 frames; give at least 10"):
        watch(ListSource(moving(5)), 40)
