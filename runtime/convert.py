"""Converts between a camera's pictures and a step's tensors. Live runs and checks use the same code.

A steady stream allocates nothing here: pictures and scratch buffers come from a pool, which reuses those that nobody
holds.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.camera.pool import Pool
from framecast.graph.manifest import Manifest
from framecast.runtime.resize import resize

Tensor = NDArray[np.float32]

# The network's channel for each of a picture's three channels (BGR).
_PLANES = {"BGR": (0, 1, 2), "RGB": (2, 1, 0), "GRAY": (0, 0, 0)}

_BLOCK = 1 << 18  # floats processed at a time: about what a core's cache holds

_pool = Pool()


def to_model_size(image: Image, manifest: Manifest) -> Image:
    """Resize a picture, uint8 [H, W, 3] BGR, to the network's size: uint8 [h, w, 3] BGR. Scores compare such pictures.

    The result is grey if the network works in grey.
    """
    width, height = manifest.size
    seen = resize(image, manifest.size, _pool.take((height, width, 3)))
    if manifest.channel_order == "GRAY":
        grey = _pool.take((height, width))
        cv2.cvtColor(cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY, dst=grey), cv2.COLOR_GRAY2BGR, dst=seen)
    return seen


def blank_frame(manifest: Manifest, batch: int = 1) -> Tensor:
    """Black frames [B, C, H, W] for :func:`to_frame` to write into, which leaves their padding alone."""
    return np.full((batch, *manifest.frame), manifest.value_range[0], np.float32)


def to_frame(seen: Image, manifest: Manifest, out: Tensor) -> None:
    """Write :func:`to_model_size`'s result into ``out``, [C, H, W], in the network's channel order and value range."""
    low, high = manifest.value_range
    width, height = manifest.size
    picture = out[:, :height, :width]
    # Split into planes while the values are bytes, so that numpy works on contiguous rows and vectorises.
    planes = _pool.take(picture.shape)
    if manifest.channel_order == "GRAY":
        cv2.extractChannel(seen, 0, dst=planes[0])
    else:
        cv2.split(seen, [planes[channel] for channel in _PLANES[manifest.channel_order]])
    np.copyto(picture, planes)  # np.multiply would allocate buffers to convert the type
    picture *= np.float32((high - low) / 255)
    if low:
        picture += np.float32(low)


def to_input(image: Image, manifest: Manifest) -> Tensor:
    """Convert a picture, uint8 [H, W, 3] BGR of any size, to a new frame [1, C, H, W] for a step."""
    frame = blank_frame(manifest)
    to_frame(to_model_size(image, manifest), manifest, frame[0])
    return frame


def is_finite(tensor: Tensor) -> bool:
    """Whether every element is a finite number."""
    # If the sum is finite, so is every element. If not, it may only have overflowed: then check each element.
    return math.isfinite(cv2.sumElems(tensor.reshape(1, -1))[0]) or bool(np.isfinite(tensor).all())


def to_values(frames: Tensor, manifest: Manifest) -> Tensor:
    """Convert predicted frames, [N, C, H, W], to floats in 0…1, [N, h, w, C]: not clamped, without their padding.

    Three channels are in the order BGR.
    """
    low, high = manifest.value_range
    width, height = manifest.size
    swap = slice(None, None, -1) if manifest.channel_order == "RGB" else slice(None)
    values: Tensor = frames[:, swap, :height, :width].transpose(0, 2, 3, 1) - np.float32(low)
    values /= np.float32(high - low)
    return values


def from_values(values: Tensor, manifest: Manifest, out: Tensor) -> None:
    """Write a frame that is not a picture, [h, w, C] in 0…1, into ``out``, [C, H, W]: to_values() in reverse."""
    low, high = manifest.value_range
    width, height = manifest.size
    out[:, :height, :width] = values.transpose(2, 0, 1) * np.float32(high - low) + np.float32(low)


def to_image(frame: Tensor, manifest: Manifest) -> Image:
    """Convert a predicted frame, [C, H, W], to uint8 [h, w, 3] BGR: clamped, without its padding."""
    low, high = manifest.value_range
    width, height = manifest.size
    planes = [frame[channel] for channel in _PLANES[manifest.channel_order]]
    image: Image = _pool.take((height, width, 3))
    rows = max(1, _BLOCK // (3 * width))
    scratch: Tensor = _pool.take((rows, width, 3), np.float32)
    for top in range(0, height, rows):
        part = image[top : top + rows]
        scaled = scratch[: len(part)]
        cv2.merge([plane[top : top + len(part), :width] for plane in planes], dst=scaled)
        with np.errstate(over="ignore"):  # a huge prediction becomes infinite, and is clamped
            if low:
                scaled -= np.float32(low)
            scaled *= np.float32(255 / (high - low))
        np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
        np.copyto(part, scaled, casting="unsafe")
    return image
