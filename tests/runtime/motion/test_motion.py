from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest

from framecast.camera import Image
from framecast.runtime.motion import Motion, Seen

from .scenes import panned, psnr, texture  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)

STEP = 0.04
SMALL, LARGE = (256, 192), (480, 272)  # below and above the size from which the mixture is rendered with one warp


def watched(motion: Motion, images: Sequence[Image], times: Sequence[float], ahead: float = STEP) -> Seen:
    seen, last = None, 0.0
    for image, time in zip(images, times, strict=True):
        seen = motion.perceive(seen, image, time - last)
        motion.render(seen, ahead)
        last = time
    assert seen is not None
    return seen


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("steps", [0.5, 1, 1.5, 3])
def test_a_steady_pan_is_foreseen(size: tuple[int, int], fast: bool, steps: float) -> None:
    def at(time: float) -> Image:
        return panned(*size, 50 * time, 25 * time)  # 2 and 1 pixels per step

    times = [STEP * i for i in range(12)]
    motion = Motion(*size, fast=fast)
    seen = watched(motion, [at(t) for t in times], times, STEP * steps)
    truth = at(times[-1] + STEP * steps)
    assert psnr(motion.render(seen, STEP * steps), truth, border=16) > psnr(at(times[-1]), truth, border=16) + 8
    assert psnr(motion.render(seen, STEP * steps), truth, border=16) > 38


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_velocity_is_per_second_whatever_the_intervals(size: tuple[int, int]) -> None:
    gaps = [0.04, 0.08, 0.04, 0.03, 0.05, 0.08, 0.04, 0.04, 0.08]
    times = np.cumsum(gaps).tolist()
    motion = Motion(*size)
    seen = watched(motion, [panned(*size, 50 * t) for t in times], times)
    flow = motion.fields(seen, STEP)["flow"]
    inner = flow[8:-8, 8:-8]
    assert np.median(inner[..., 0]) == pytest.approx(-50, abs=2)  # the view moves right
    assert np.median(inner[..., 1]) == pytest.approx(0, abs=2)
    truth = panned(*size, 50 * (times[-1] + STEP))
    assert psnr(motion.render(seen, STEP), truth, border=16) > 38


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_still_scene_stays(size: tuple[int, int]) -> None:
    image = texture(*size)
    motion = Motion(*size)
    seen = watched(motion, [image] * 6, [STEP * i for i in range(6)])
    for steps in (0.5, 1, 4):
        assert psnr(motion.render(seen, STEP * steps), image) > 50


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_first_frame_and_no_time_ahead_are_copies(size: tuple[int, int]) -> None:
    motion = Motion(*size)
    first, second = texture(*size), texture(*size, seed=1)
    seen = motion.perceive(None, first, 0.0)
    assert np.array_equal(motion.render(seen, 0.2), first)
    assert motion.fields(seen, 0.2) == {}
    seen = motion.perceive(seen, second, STEP)
    picture = motion.render(seen, 0.0)
    assert np.array_equal(picture, second)
    picture[:] = 0
    assert np.array_equal(motion.render(seen, 0.0), second)


def test_what_the_caller_does_to_a_frame_afterwards_changes_nothing() -> None:
    motion, image = Motion(*LARGE), texture(*LARGE)
    seen = motion.perceive(None, image, STEP)
    kept = image.copy()
    image[:] = 0
    assert np.array_equal(motion.render(seen, STEP), kept)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_perceive_leaves_what_it_was_given(size: tuple[int, int]) -> None:
    motion = Motion(*size)
    seen = watched(motion, [panned(*size, 2 * i) for i in range(5)], [STEP * i for i in range(5)])
    kept = copy.deepcopy(seen)
    picture = motion.render(seen, STEP)
    branch = motion.perceive(seen, texture(*size, seed=3), STEP)
    motion.render(branch, 3 * STEP)
    assert seen.statistics.keys() == kept.statistics.keys()
    assert all(np.array_equal(seen.statistics[k], kept.statistics[k]) for k in kept.statistics)
    assert seen.intervals == kept.intervals
    assert seen.notes.asked == kept.notes.asked
    assert np.array_equal(motion.render(seen, STEP), picture)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_two_streams_of_one_motion_are_as_two_alone(size: tuple[int, int]) -> None:
    streams = [[panned(*size, 2 * i) for i in range(5)], [panned(*size, 40 - 3 * i, i) for i in range(5)]]
    times = [STEP * i for i in range(5)]
    alone = [Motion(*size) for _ in streams]
    expected = [m.render(watched(m, images, times), STEP) for m, images in zip(alone, streams, strict=True)]
    motion, seen = Motion(*size), [None, None]
    both: list[Seen | None] = list(seen)
    for i in range(5):
        for k, images in enumerate(streams):
            now = motion.perceive(both[k], images[i], STEP)
            motion.render(now, STEP)
            both[k] = now
    for known, picture in zip(both, expected, strict=True):
        assert known is not None
        assert np.array_equal(motion.render(known, STEP), picture)


def test_pictures_in_the_place_of_missing_frames_teach_nothing() -> None:
    motion, images = Motion(*SMALL), [panned(*SMALL, i) for i in range(6)]
    seen = watched(motion, images[:5], [STEP * k for k in range(5)])
    for k in range(2, 9):
        motion.render(seen, k * STEP)
    assert set(motion.perceive(seen, images[5], 9 * STEP).notes.asked) == {1}
    assert set(motion.perceive(seen, images[5], STEP).notes.asked) > {1, 5}


def test_horizons_that_are_asked_for_are_learned_and_forgotten() -> None:
    motion = Motion(*SMALL)
    images = [panned(*SMALL, i) for i in range(50)]
    seen = watched(motion, images[:12], [STEP * i for i in range(12)], 5 * STEP)
    assert set(seen.statistics) == {1, 2, 3, 4, 5}  # all up to five, because no frame is five steps old at first
    assert len(seen.moments) == 6
    for image in images[12:]:
        seen = motion.perceive(seen, image, STEP)
        motion.render(seen, STEP)
    assert set(seen.notes.asked) == {1}
    assert len(seen.moments) == 2


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (101, 640), (640, 33), (321, 243), (483, 271), (1366, 768)])
def test_any_size(size: tuple[int, int]) -> None:
    motion = Motion(*size)
    images = [panned(*size, 2 * i) for i in range(5)]
    seen = watched(motion, images, [STEP * i for i in range(5)])
    picture = motion.render(seen, STEP)
    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8
    assert psnr(picture, panned(*size, 10)) > psnr(images[-1], panned(*size, 10))


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("ahead", [0.001, STEP, 12 * STEP, 60.0])
def test_extremes_stay_finite(size: tuple[int, int], ahead: float) -> None:
    shape = (size[1], size[0], 3)
    noise = np.random.default_rng(0)
    black, white = np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)
    images = [black, black, white, noise.integers(0, 256, shape, np.uint8), texture(*size), texture(*size, seed=1)]
    motion = Motion(*size)
    seen = None
    with np.errstate(all="raise", under="ignore"):
        for image in [*images, *images]:
            seen = motion.perceive(seen, image, 1e-3 if image is white else STEP)
            motion.render(seen, ahead)
            for values in (*seen.statistics.values(), *motion.fields(seen, ahead).values()):
                assert np.isfinite(values).all()
    assert seen is not None
    still = panned(*size, 0)
    for _ in range(6):  # a cut: frames after it are not smeared for long
        seen = motion.perceive(seen, still, STEP)
    assert psnr(motion.render(seen, STEP), still) > 40
