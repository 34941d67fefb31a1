"""Between a camera's pictures and the tensors of a step: one way, for live runs and for checks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.runtime.manifest import Manifest

Tensor = NDArray[np.float32]

# How a picture's three channels (BGR) become the network's, and back again.
_TAKE = {"BGR": slice(None), "RGB": slice(None, None, -1), "GRAY": slice(1)}
_GIVE: dict[str, slice | list[int]] = {"BGR": slice(None), "RGB": slice(None, None, -1), "GRAY": [0, 0, 0]}


def resize(image: Image, size: tuple[int, int]) -> Image:
    """A picture at ``size`` (width, height), by INTER_AREA."""
    resized: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return resized


def see(image: Image, manifest: Manifest) -> Image:
    """uint8 [H, W, 3] BGR of any size as a network sees it, and as scores compare it: [h, w, 3], grey where it is."""
    seen = resize(image, manifest.size)
    if manifest.channel_order == "GRAY":
        seen = cv2.cvtColor(cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)  # type: ignore[assignment]
    return seen


def blank(manifest: Manifest) -> Tensor:
    """A black frame for :func:`to_frame` to write in, [1, C, H, W]: what is padding stays as it is here."""
    return np.full((1, *manifest.frame), manifest.value_range[0], np.float32)


def to_frame(seen: Image, manifest: Manifest, out: Tensor) -> None:
    """Write what :func:`see` gave into ``out``, [1, C, H, W], in the network's order of channels and range."""
    low, high = manifest.value_range
    width, height = manifest.size
    picture = out[0, :, :height, :width]
    np.multiply(
        seen[..., _TAKE[manifest.channel_order]].transpose(2, 0, 1), np.float32((high - low) / 255), out=picture
    )
    if low:
        picture += np.float32(low)


def to_image(frame: Tensor, manifest: Manifest) -> Image:
    """A predicted frame, [C, H, W], as uint8 [h, w, 3] BGR, clamped, without its padding."""
    low, high = manifest.value_range
    width, height = manifest.size
    scaled = (frame[:, :height, :width].transpose(1, 2, 0) - np.float32(low)) * np.float32(255 / (high - low))
    image: Image = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image[..., _GIVE[manifest.channel_order]])
