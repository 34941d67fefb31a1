"""The baselines that need no model, compared with plain recomputations."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from framecast.evaluation.rivals import CopyLast, DisFlow, Linear
from framecast.runtime.score import psnr

from .conftest import moving  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

CHANNELS = pytest.mark.parametrize("channels", [1, 3])


def two(channels: int, step: tuple[int, int] = (2, 1)) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The last frame, the one before it, and the three that follow."""
    before, last, *after = (frame[..., :channels] for frame in moving(5, step=step))
    return last, before, after


@CHANNELS
def test_copying(channels: int) -> None:
    last, before, _ = two(channels)
    assert all(np.array_equal(image, last) for image in CopyLast().predict(last, before, [1, 2, 3]))


@CHANNELS
def test_linear(channels: int) -> None:
    rng = np.random.default_rng()
    last, before = (rng.integers(0, 256, (14, 17, channels), np.uint8) for _ in range(2))
    ahead = (0.5, 1, 2, 300)
    for k, image in zip(ahead, Linear().predict(last, before, ahead), strict=True):
        expected = last.astype(np.float64) + k * (last.astype(np.float64) - before)
        assert np.array_equal(image, np.rint(expected).clip(0, 255))
        assert image.dtype == np.uint8


def bilinear(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sample at (x, y) in float64; the border pixels repeat outside the picture."""
    height, width = picture.shape[:2]
    found = np.zeros((*x.shape, picture.shape[2]))
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        left, top = np.floor(x) + dx, np.floor(y) + dy
        weight = (1 - np.abs(x - left)) * (1 - np.abs(y - top))
        inside = top.clip(0, height - 1).astype(int), left.clip(0, width - 1).astype(int)
        found += weight[..., None] * picture[inside]
    return found


@CHANNELS
def test_dis_warps_the_last_frame_along_its_flow(channels: int) -> None:
    last, before, _ = two(channels)
    ahead = (1, 1.5, 3)
    images = DisFlow().predict(last, before, ahead)
    grey = [cv2.cvtColor(i, cv2.COLOR_BGR2GRAY) if channels == 3 else i[..., 0].copy() for i in (last, before)]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)  # type: ignore[call-overload]  # OpenCV's stubs want a flow
    height, width = last.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    for k, image in zip(ahead, images, strict=True):
        shift = k * flow
        for _ in range(20):  # to the fixed point
            shift = k * bilinear(flow, columns + shift[..., 0], rows + shift[..., 1])
        expected = bilinear(last, columns + shift[..., 0], rows + shift[..., 1])
        assert image.shape == last.shape
        assert np.abs(image - expected).max() <= 2  # OpenCV's interpolation weights have only five bits


def test_dis_follows_motion_better_than_copying() -> None:
    last, before, after = two(3)
    inner = slice(10, -10)
    for image, copied, truth in zip(DisFlow().predict(last, before, [1, 2, 3]), [last] * 3, after, strict=True):
        assert psnr(image[inner, inner], truth[inner, inner]) > psnr(copied[inner, inner], truth[inner, inner]) + 6


def test_two_equal_frames_predict_no_motion() -> None:
    last, _, _ = two(3)
    for rival in (CopyLast(), Linear(), DisFlow()):
        assert all(np.array_equal(image, last) for image in rival.predict(last, last, [1, 2]))
