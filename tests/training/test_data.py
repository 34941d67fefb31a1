"""Videos decoded into cached arrays: every frame is there, even if the cache file was damaged."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from framecast.camera import open_source
from framecast.camera.layouts import Clip
from framecast.errors import SinkError, SourceError
from framecast.training.data import Augmentation, Camera, decode
from framecast.training.footage import Videos, open_footage
from framecast.training.view import View

from ..clips import write_clip, write_clips  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .small_runs import largest_file  # noqa: TID252 (likewise)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_clip(tmp_path / "a.avi", 12, size=(160, 120))
    return tmp_path / "a.avi"


def test_every_frame_is_kept_unchanged(video: Path, tmp_path: Path) -> None:
    kept = decode(Clip("a.avi", video), tmp_path / "cache", (1, 1))
    with open_source(video) as source:
        frames = [frame.image for frame in iter(source.read, None)]
    assert np.array_equal(kept, np.stack(frames))
    assert isinstance(kept, np.memmap)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_frames_are_reduced_to_the_size_needed(video: Path, tmp_path: Path) -> None:
    assert decode(Clip("a.avi", video), tmp_path, (1, 1), (80, 48)).shape == (12, 60, 80, 3)
    assert decode(Clip("a.avi", video), tmp_path, (1, 1), (200, 48)).shape == (12, 120, 160, 3)


@pytest.mark.parametrize("size", [0, 60, 5000])
def test_a_damaged_cache_file_is_rebuilt(video: Path, tmp_path: Path, size: int) -> None:
    cache = tmp_path / "cache"
    whole = np.array(decode(Clip("a.avi", video), cache, (1, 1)))
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:size])
    assert np.array_equal(decode(Clip("a.avi", video), cache, (1, 1)), whole)


def test_a_data_set_is_split_thinned_and_cut(tmp_path: Path) -> None:
    """KITTI to train with, whole; every third frame of Caltech to score on. Both are cut to the network's shape."""
    image = np.random.default_rng().integers(0, 256, (20, 60, 3), np.uint8)
    for folder in (
        "2011_09_26_drive_0001_sync/image_03/data",
        "2011_09_26_drive_0104_sync/image_03/data",
        "set06/V000",
    ):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for index in range(7):
            cv2.imwrite(str(tmp_path / "data" / folder / f"{index}.png"), image + index)
    view = View((3, 16, 32), "BGR", (16, 32))
    for scored, name, frames in (
        (False, "2011_09_26_drive_0001_sync/image_03/data", range(7)),
        (True, "set06/V000", range(0, 7, 3)),
    ):
        for _ in range(2):  # from the images, then from the cache
            footage = open_footage(
                tmp_path / "data", view, tmp_path / "cache", 2, print, scored=scored, layout="kitti-caltech"
            )
            assert isinstance(footage, Videos)
            assert list(footage.files) == [name]
            assert np.array_equal(footage.clips[0], np.stack([image[:, 10:50] + index for index in frames]))
            assert next(iter(footage.scored(footage.clips[0]))).shape == (16, 32, 3)


def test_frames_of_several_sizes_are_no_clip(tmp_path: Path) -> None:
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((20 + index, 60, 3), np.uint8))
    with pytest.raises(SourceError, match="its frames have several sizes"):
        decode(Clip("a", tmp_path), tmp_path / "cache", (1, 1))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    folder, cache = write_clips(tmp_path / "clips", (160, 120)), tmp_path / "cache"
    view = View((3, 96, 128), "BGR", (96, 128))
    message = r"cannot write .*cache.*\.npy: File too large \(choose another --cache\)"
    with largest_file(100_000), pytest.raises(SinkError, match=message):
        open_footage(folder, view, cache, 2, print, scored=True)
    assert not list(cache.iterdir())


def test_a_file_that_is_not_a_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("nothing")
    with pytest.raises(SourceError, match="not a video"):
        decode(Clip("x.mp4", tmp_path / "x.mp4"), tmp_path / "cache", (1, 1))
    assert not (tmp_path / "cache").exists()


def test_a_still_camera_sees_the_middle() -> None:
    frame = np.random.default_rng().integers(0, 256, (60, 80, 3), dtype=np.uint8)
    still = Camera((0.0, 0.0), np.zeros((1, 5)), (0.0, 0.01))
    assert np.array_equal(still.look(frame, 7, (40, 30)), frame[15:45, 20:60])


def test_a_camera_pans_back_and_forth_within_the_frame() -> None:
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[..., 0] = np.arange(80)
    camera = Camera((5.0, 0.0), np.zeros((1, 5)), (0.0, 0.01))
    left = [int(camera.look(frame, age, (40, 30))[0, 0, 0]) for age in range(18)]
    assert left[:5] == [20, 25, 30, 35, 40]
    assert (min(left), max(left)) == (0, 40)
    assert {abs(a - b) for a, b in pairwise(left)} == {5}


def test_crops_lie_within_the_frame_in_half_of_the_cases() -> None:
    rng = np.random.default_rng()
    augmentations = [Augmentation.draw(rng, aspect=0.6) for _ in range(400)]
    for x, y, width, height in (one.crop for one in augmentations):
        assert min(x, y) >= 0 < min(width, height)
        assert max(x + width, y + height) <= 1 + 1e-9
    crops = [one for one in augmentations if one.crop != (0.0, 0.0, 1.0, 1.0)]
    assert 0.35 < len(crops) / len(augmentations) < 0.65
    ratios = np.log([one.crop[2] / one.crop[3] / 0.6 for one in crops])
    assert abs(ratios).max() < 0.26
    assert all(one.camera is None for one in augmentations if one not in crops)
