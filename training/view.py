"""How a network sees pictures, or traffic, in training."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from framecast.camera import Image, taxibj
from framecast.models.configs import appearance

Picture = NDArray[np.uint8]  # [H, W, C] in the network's order of channels
Frame = NDArray[np.uint8 | np.float32]  # a picture; or traffic, float32 from 0 to 1

_COLOURS = {"GRAY": "grey", "NONE": "traffic"}  # all other orders are colour


def to_values(frames: Tensor) -> Tensor:
    """Convert frames to float32 values from 0 to 1, which traffic already has."""
    return frames if frames.is_floating_point() else frames.float() / 255


@dataclass(frozen=True)
class View:
    """How a network sees a picture: as uint8 [H, W, C], in its order of channels, with black padding.

    If the order is ``NONE``, it sees no pictures but traffic: float32 [H, W, C].
    """

    shape: tuple[int, int, int]  # (C, H, W) of a frame
    order: str
    visible: tuple[int, int]  # (H, W) of the picture in it

    @classmethod
    def of(cls, config: str, shape: tuple[int, int, int]) -> View:
        """Return the view of a configuration's network. Its options may give the frames another ``shape``."""
        order, visible = appearance(config, shape)
        return cls(shape, order, visible or (shape[1], shape[2]))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self.visible[1], self.visible[0]

    def __str__(self) -> str:
        """Return size and colours in words."""
        width, height = self.size
        return f"{width}×{height} {_COLOURS.get(self.order, 'colour')}"

    def see(self, image: Image) -> Picture:
        """Convert a picture of this size, [h, w, 3] BGR, to a frame."""
        if self.order == "GRAY":
            seen: Picture = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]  # type: ignore[assignment]
        else:
            seen = image[..., ::-1] if self.order == "RGB" else image
        (_, height, width), (h, w) = self.shape, self.visible
        return np.pad(seen, ((0, height - h), (0, width - w), (0, 0))) if (h, w) != (height, width) else seen

    def crop(self, frame: Frame) -> Frame:
        """Return a frame without its padding."""
        return frame[: self.visible[0], : self.visible[1]]

    def show(self, frame: Frame) -> Image:
        """Convert a frame to a picture, [h, w, 3] BGR, without its padding. Of traffic, channels are side by side."""
        frame = self.crop(frame)
        if frame.dtype != np.uint8:
            return taxibj.picture(frame)  # type: ignore[arg-type]
        if self.order == "GRAY":
            return np.repeat(frame, 3, axis=-1)
        return np.ascontiguousarray(frame[..., ::-1] if self.order == "RGB" else frame)
