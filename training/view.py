"""How a network sees pictures while it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.errors import OptionError
from framecast.models.configs import appearance

Picture = NDArray[np.uint8]  # [H, W, C] in the network's order of channels


@dataclass(frozen=True)
class View:
    """How a network sees a picture: uint8 [H, W, C], its order of channels, black where the frame is padded."""

    shape: tuple[int, int, int]  # (C, H, W) of a frame
    order: str
    visible: tuple[int, int]  # (H, W) of the picture in it

    @classmethod
    def of(cls, config: str, shape: tuple[int, int, int]) -> View:
        """That of a configuration's network, whose frames may have another ``shape`` by its options.

        Raises:
            OptionError: its channels are no picture.
        """
        order, visible = appearance(config, shape)
        if order == "NONE":
            raise OptionError(f"{config} takes channels that are no picture: it cannot be trained on videos or digits")
        return cls(shape, order, visible or (shape[1], shape[2]))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self.visible[1], self.visible[0]

    def see(self, image: Image) -> Picture:
        """A picture of this size, [h, w, 3] BGR, as a frame."""
        if self.order == "GRAY":
            seen: Picture = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]  # type: ignore[assignment]
        else:
            seen = image[..., ::-1] if self.order == "RGB" else image
        (_, height, width), (h, w) = self.shape, self.visible
        return np.pad(seen, ((0, height - h), (0, width - w), (0, 0))) if (h, w) != (height, width) else seen

    def show(self, frame: Picture) -> Image:
        """A frame as a picture, [h, w, 3] BGR, without its padding."""
        frame = frame[: self.visible[0], : self.visible[1]]
        if self.order == "GRAY":
            return np.repeat(frame, 3, axis=-1)
        return np.ascontiguousarray(frame[..., ::-1] if self.order == "RGB" else frame)
