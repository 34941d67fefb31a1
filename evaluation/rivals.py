"""Baselines that need no model: copy the last frame, extrapolate linearly, or warp along the optical flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.errors import OptionError

MIN_SIDE = 12  # pixels: OpenCV's DIS accepts no smaller frame


class Rival(ABC):
    """A baseline that predicts from the two newest frames alone.

    Attributes:
        name: name in tables and reports.
    """

    name: str

    @abstractmethod
    def predict(self, last: Image, before: Image, horizon: int) -> list[Image]:
        """Predict the frames 1 … ``horizon`` steps after ``last``.

        Args:
            last: the newest frame, uint8 [h, w, C], C = 1 or 3 (BGR).
            before: the frame before ``last``; ``last`` itself if there was none.
            horizon: number of frames to predict.
        """


class CopyLast(Rival):
    """Copies the last frame: nothing changes."""

    name = "copy-last"

    def predict(self, last: Image, before: Image, horizon: int) -> list[Image]:
        """See :meth:`Rival.predict`."""
        return [last] * horizon


class Linear(Rival):
    """Extrapolates every pixel linearly: I_t + k (I_t − I_{t−1}), clipped to 0…255."""

    name = "linear"

    def predict(self, last: Image, before: Image, horizon: int) -> list[Image]:
        """See :meth:`Rival.predict`."""
        start = last.astype(np.int32)
        change = start - before
        return [np.clip(start + k * change, 0, 255).astype(np.uint8) for k in range(1, horizon + 1)]


class DisFlow(Rival):
    """Continues all motion: out(p) = I_t(p + k F(p)), where F is the flow from I_t to I_{t−1}.

    The flow is OpenCV's DIS with the medium preset, on grey images (Kroeger et al., "Fast optical flow using dense
    inverse search", 2016). Sampling is bilinear. Border pixels repeat beyond the border.
    """

    name = "dis-flow"

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def predict(self, last: Image, before: Image, horizon: int) -> list[Image]:
        """See :meth:`Rival.predict`."""
        height, width = last.shape[:2]
        flow = self._dis.calc(_grey(last), _grey(before), None)  # type: ignore[call-overload]  # [h, w, 2]
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
        return [_sample(last, grid + k * flow) for k in range(1, horizon + 1)]


class Custom(Rival):
    """A user's own baseline.

    Args:
        name: name in tables and reports.
        predict: a function with the arguments of :meth:`Rival.predict`.
    """

    def __init__(self, name: str, predict: Callable[[Image, Image, int], Sequence[Image]]) -> None:
        self.name, self._predict = name, predict

    def predict(self, last: Image, before: Image, horizon: int) -> list[Image]:
        """See :meth:`Rival.predict`.

        Raises:
            OptionError: the function fails, or returns the wrong number of frames, or frames of another shape or type.
        """
        try:
            images = [np.asarray(image) for image in self._predict(last, before, horizon)]
        except Exception as error:
            raise OptionError(f"rival {self.name} failed: {type(error).__name__}: {error}: mend it") from error
        if len(images) != horizon or any((image.shape, image.dtype) != (last.shape, last.dtype) for image in images):
            got = ", ".join(sorted({f"{image.dtype} {list(image.shape)}" for image in images})) or "nothing"
            wanted = f"{horizon} frames, uint8 {list(last.shape)}"
            raise OptionError(f"rival {self.name} must return {wanted}; it returned {len(images)}: {got}")
        return images


def standard() -> list[Rival]:
    """Return the baselines of every evaluation of clips."""
    return [CopyLast(), Linear(), DisFlow()]


def _grey(image: Image) -> Image:
    grey = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(grey)


def _sample(image: Image, places: NDArray[np.float32]) -> Image:
    sampled = cv2.remap(image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return sampled.reshape(image.shape)  # type: ignore[no-any-return]  # remap drops the axis of a single channel
