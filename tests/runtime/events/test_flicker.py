"""Periodic flicker is removed from frames and restored in predictions; other brightness changes stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import pytest

from framecast.camera import Image
from framecast.runtime.events import Watch

from .streams import INTERVAL, kinds, picture  # noqa: TID252


class Light(TypedDict, total=False):
    """A change of a picture's brightness."""

    brighter: float
    gain: float


RHYTHMS: dict[str, Callable[[int], Light]] = {
    "offset, period 3": lambda k: {"brighter": -15 if k % 3 == 0 else 8},
    "offset, period 2": lambda k: {"brighter": 6 * (-1) ** k},
    "light, 100 Hz at 30 fps": lambda k: {"gain": 1 + 0.1 * np.cos(2 * np.pi * k * 100 / 30 + 0.4)},
    "light, 100 Hz at 29.97 fps": lambda k: {"gain": 1 + 0.1 * np.cos(2 * np.pi * k * 100 / 29.97)},
    "light, 120 Hz at 25 fps": lambda k: {"gain": 1 + 0.08 * np.cos(2 * np.pi * k * 120 / 25)},
}


def mean_error(a: Image, b: Image) -> float:
    return float(np.abs(a.astype(np.float32) - b).mean())


@pytest.mark.parametrize("name", RHYTHMS)
@pytest.mark.parametrize("speed", [0, 3])
def test_a_rhythm_is_taken_out_and_put_back(name: str, speed: int) -> None:
    watch = Watch()
    levels, put_back = [], []
    expected: Image | None = None
    for k in range(90):
        frame = picture(k * speed, **RHYTHMS[name](k))
        event = watch.see(frame, k * INTERVAL, INTERVAL)
        if expected is not None and k > 50:
            put_back.append(mean_error(expected, frame))
        # A perfect model predicts the next clean frame, with the brightness offset of this one.
        level = event.image.astype(np.float32).mean() - picture(k * speed).astype(np.float32).mean()
        levels.append(level)
        perfect = np.clip(picture((k + 1) * speed) + level, 0, 255).astype(np.uint8)
        expected = watch.finish(perfect, (k + 1) * INTERVAL)
    changes = [RHYTHMS[name](k) for k in range(12)]
    size = np.ptp([c.get("brighter", 0) + 120 * (c.get("gain", 1) - 1) for c in changes])
    assert np.mean(np.abs(np.diff(levels[50:]))) < 0.1 * size
    assert np.mean(put_back) < 0.12 * size


def test_brightness_some_frames_ahead() -> None:
    watch = Watch()
    for k in range(60):
        watch.see(picture(k, **RHYTHMS["offset, period 3"](k)), k * INTERVAL, INTERVAL)
    flat = np.full((120, 160, 3), 120, np.uint8)
    now = 59 * INTERVAL
    ahead = [float(watch.finish(flat, now + k * INTERVAL).mean()) for k in range(7)]  # 0: frame 59, a bright one
    dark = [k for k in range(7) if ahead[k] < 115]
    assert dark == [1, 4]
    assert ahead[1] == pytest.approx(105, abs=2)
    assert ahead[2] == pytest.approx(128, abs=2)


@pytest.mark.parametrize("speed", [0, 3])
def test_a_slow_change_of_exposure_is_left_alone(speed: int) -> None:
    watch = Watch()
    for k in range(100):
        frame = picture(k * speed, gain=0.7 + 0.5 * abs(k / 50 - 1))
        event = watch.see(frame, k * INTERVAL, INTERVAL)
        assert event.kind in ("first", "new")
        assert event.image is frame


def test_one_flash_is_no_rhythm() -> None:
    watch = Watch()
    for k in range(60):
        frame = picture(3 * k, brighter=40 if k == 30 else 0)
        assert watch.see(frame, k * INTERVAL, INTERVAL).image is frame


def test_a_rhythm_that_ends_is_let_go() -> None:
    watch = Watch()
    for k in range(120):
        rhythm = RHYTHMS["offset, period 3"](k) if k < 60 else {}
        frame = picture(k, **rhythm)
        event = watch.see(frame, k * INTERVAL, INTERVAL)
    assert event.image is frame


def test_flicker_hides_no_motion_and_makes_no_repeats() -> None:
    watch = Watch()
    events = [watch.see(picture(k, gain=1.1 if k % 2 else 0.9), k * INTERVAL, INTERVAL) for k in range(60)]
    assert kinds(events) == "f" + "n" * 59


def test_the_rhythm_goes_on_after_a_cut() -> None:
    watch = Watch()
    for k in range(75):
        light = RHYTHMS["offset, period 3"](k)
        scene, level = (0, 0.0) if k < 60 else (1, 40.0)
        frame = picture(k, scene=scene, brighter=light["brighter"] + level)
        event = watch.see(frame, k * INTERVAL, INTERVAL)
        assert (event.kind == "cut") == (k == 60)
        if k >= 60:  # the new scene's own brightness is kept from its first frame on
            clean = picture(k, scene=scene, brighter=level)
            assert abs(float(event.image.mean()) - float(clean.mean())) < 5
