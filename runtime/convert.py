"""Between a camera's pictures and the tensors of a step: one way, for live runs and for checks."""

from __future__ import annotations

import cv2
import numpy as np

from framecast.camera import Image
from framecast.runtime.engines.engine import Tensor
from framecast.runtime.manifest import Manifest


def resize(image: Image, size: tuple[int, int]) -> Image:
    """A picture at ``size`` (width, height), by INTER_AREA: what a network sees, and what scores compare."""
    resized: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return resized


def to_frame(image: Image, manifest: Manifest, out: Tensor) -> None:
    """Write uint8 [h, w, 3] BGR at the model's size into ``out``, [1, C, H, W], in its order of channels and range."""
    low, high = manifest.value_range
    ordered = image if manifest.channel_order == "BGR" else image[..., ::-1]
    np.multiply(ordered.transpose(2, 0, 1), np.float32((high - low) / 255), out=out[0])
    if low:
        out += np.float32(low)


def to_image(prediction: Tensor, manifest: Manifest) -> Image:
    """The first frame of a prediction, [B, K, C, H, W], as uint8 [h, w, 3] BGR, clamped."""
    low, high = manifest.value_range
    scaled = (prediction[0, 0].transpose(1, 2, 0) - np.float32(low)) * np.float32(255 / (high - low))
    image: Image = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return image if manifest.channel_order == "BGR" else np.ascontiguousarray(image[..., ::-1])
