"""A picture resized in two halves equals OpenCV's result for the whole picture, bit by bit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from framecast.runtime import resize as module
from framecast.runtime.resize import resize

from ..calls import watched  # noqa: TID252 (pytest's importlib mode puts no test folder on the path)

# Sizes of cameras and of networks. Some cannot be resized in halves: enlarged pictures, odd rows, scales that are
# not binary fractions.
CAMERAS = [(480, 640), (720, 1280), (1080, 1920), (1024, 1280), (481, 640), (100, 2000), (192, 256), (96, 128)]
TARGETS = [(256, 192), (512, 512), (160, 128), (64, 64), (100, 75), (640, 480)]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng().integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that resize. Pictures of any size are resized in two halves."""
    names: list[str] = []
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(
        module, "_area", watched(module._area, lambda *_: names.append(threading.current_thread().name))
    )
    return names


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("camera", CAMERAS)
def test_every_bit_equals_opencvs_result(camera: tuple[int, int], target: tuple[int, int], halved: list[str]) -> None:
    image = picture(*camera)
    out = np.full((target[1], target[0], 3), 77, np.uint8)
    assert resize(image, target, out) is out
    assert np.array_equal(out, whole(image, target))
    assert np.array_equal(resize(image[:, ::-1], target), whole(np.ascontiguousarray(image[:, ::-1]), target))


@pytest.mark.parametrize(
    ("camera", "target", "parts"),
    [
        ((480, 640), (256, 192), 2),
        ((1080, 1920), (256, 192), 2),
        ((1024, 1280), (256, 192), 1),  # one row covers 5⅓ rows
        ((481, 640), (256, 192), 1),
        ((480, 640), (512, 512), 1),  # enlarged
    ],
)
def test_number_of_parts(camera: tuple[int, int], target: tuple[int, int], parts: int, halved: list[str]) -> None:
    resize(picture(*camera), target)
    assert len(halved) == parts


def test_a_small_picture_wakes_no_thread(halved: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 1 << 19)
    resize(picture(192, 256), (64, 64))
    assert halved == ["MainThread"]


def test_a_busy_thread_is_not_waited_for(halved: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    with ThreadPoolExecutor(1) as busy:
        monkeypatch.setattr(module, "_second", busy)
        busy.submit(release.wait)
        image = picture(480, 640)
        try:
            assert np.array_equal(resize(image, (256, 192)), whole(image, (256, 192)))
        finally:
            release.set()
    assert halved == ["MainThread", "MainThread"]


def test_an_error_in_the_other_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def area(image: np.ndarray, out: np.ndarray) -> None:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(120)
            return
        begun.set()
        raise MemoryError("the lower half")

    monkeypatch.setattr(module, "_area", area)
    with pytest.raises(MemoryError, match="the lower half"):
        resize(picture(480, 640), (256, 192))


def test_many_cameras_at_once() -> None:
    def run(seed: int) -> bool:
        image = np.random.default_rng(seed).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        expected = whole(image, (256, 192))
        return all(np.array_equal(resize(image, (256, 192)), expected) for _ in range(50))

    with ThreadPoolExecutor(4) as cameras:
        assert all(cameras.map(run, range(8)))
