"""Between pictures and tensors: orders of channels, grey, value ranges, padding."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from framecast.runtime.convert import blank, see, to_frame, to_image
from framecast.runtime.manifest import Manifest


def manifest(channels: int = 3, order: str = "BGR", **more: object) -> Manifest:
    return Manifest("M", "m", (channels, 12, 16), (), 1, 0, "random", "", "none", channel_order=order, **more)  # type: ignore[arg-type]


def picture(height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng().integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("order", ["BGR", "RGB"])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_colour_there_and_back(order: str, value_range: tuple[float, float]) -> None:
    made_for = manifest(order=order, value_range=value_range)
    image, frame = picture(), blank(made_for)
    to_frame(see(image, made_for), made_for, frame)
    low, high = value_range
    blue = frame[0, 0 if order == "BGR" else 2]
    assert np.allclose(blue, image[..., 0] / 255 * (high - low) + low, atol=1e-6)
    assert np.array_equal(to_image(frame[0], made_for), image)


def test_grey_is_seen_fed_and_shown_as_grey() -> None:
    made_for = manifest(1, "GRAY")
    image, frame = picture(24, 32), blank(made_for)
    seen = see(image, made_for)
    grey = cv2.cvtColor(cv2.resize(image, (16, 12), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    assert np.array_equal(seen, np.repeat(grey[..., None], 3, axis=2))
    to_frame(seen, made_for, frame)
    assert frame.shape == (1, 1, 12, 16)
    assert np.allclose(frame[0, 0], grey / 255, atol=1e-6)
    assert np.array_equal(to_image(frame[0], made_for), seen)


def test_padding_stays_black_and_is_never_shown() -> None:
    made_for = manifest(visible=(10, 16), value_range=(-1.0, 1.0))
    assert made_for.size == (16, 10)
    frame = blank(made_for)
    for _ in range(2):
        image = picture(10, 16)
        to_frame(see(image, made_for), made_for, frame)
        assert (frame[0, :, 10:] == -1).all()
        frame[0, :, 10:] = -1
        assert np.array_equal(to_image(frame[0], made_for), image)
