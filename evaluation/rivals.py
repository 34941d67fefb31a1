"""Baselines that need no model: copy the last frame, extrapolate linearly, or warp along the optical flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from framecast.camera import Image
from framecast.errors import OptionError
from framecast.runtime import dis

Predict = Callable[[Image, Image, Sequence[float]], Sequence[Image]]
"""The user's own baseline: see :meth:`Rival.predict`."""


class Rival(ABC):
    """A baseline that predicts from the two newest frames alone.

    Attributes:
        name: name in tables and reports.
    """

    name: str

    @abstractmethod
    def predict(self, last: Image, before: Image, ahead: Sequence[float]) -> list[Image]:
        """Predict the pictures of some moments after ``last``.

        Args:
            last: the newest frame, uint8 [h, w, C], C = 1 or 3 (BGR); of traffic, floats in 0…1.
            before: the frame before ``last``; ``last`` itself if there was none.
            ahead: the moments. The unit is the time from ``before`` to ``last``, so 1.0 is the next frame of a steady
                stream.
        """


class CopyLast(Rival):
    """Copies the last frame: nothing changes."""

    name = "copy-last"

    def predict(self, last: Image, before: Image, ahead: Sequence[float]) -> list[Image]:
        """See :meth:`Rival.predict`."""
        return [last] * len(ahead)


class Linear(Rival):
    """Extrapolates every pixel linearly: I_t + k (I_t − I_{t−1}), clipped to 0…255; floats to 0…1."""

    name = "linear"

    def predict(self, last: Image, before: Image, ahead: Sequence[float]) -> list[Image]:
        """See :meth:`Rival.predict`."""
        start = last.astype(np.float32)
        change = start - before
        values = [start + np.float32(k) * change for k in ahead]
        if last.dtype != np.uint8:
            return [np.clip(one, 0, 1) for one in values]
        return [np.clip(np.rint(one), 0, 255).astype(np.uint8) for one in values]


class DisFlow(Rival):
    """Warps the last frame along OpenCV's DIS flow: see :class:`framecast.runtime.dis.DisFlow`."""

    name = "dis-flow"

    def __init__(self) -> None:
        self._dis = dis.DisFlow()

    def predict(self, last: Image, before: Image, ahead: Sequence[float]) -> list[Image]:
        """See :meth:`Rival.predict`."""
        return self._dis.predict(last, before, ahead)


class Custom(Rival):
    """A user's own baseline.

    Args:
        name: name in tables and reports.
        predict: a function with the arguments of :meth:`Rival.predict`.
    """

    def __init__(self, name: str, predict: Predict) -> None:
        self.name, self._predict = name, predict

    def predict(self, last: Image, before: Image, ahead: Sequence[float]) -> list[Image]:
        """See :meth:`Rival.predict`.

        Raises:
            OptionError: the function fails, or returns the wrong number of frames, or frames of another shape or type.
        """
        try:
            images = [np.asarray(image) for image in self._predict(last, before, list(ahead))]
        except Exception as error:
            raise OptionError(f"rival {self.name} failed: {type(error).__name__}: {error} (fix the rival)") from error
        if len(images) != len(ahead) or any((image.shape, image.dtype) != (last.shape, last.dtype) for image in images):
            got = ", ".join(sorted({f"{image.dtype} {list(image.shape)}" for image in images})) or "nothing"
            wanted = f"{len(ahead)} frames, uint8 {list(last.shape)}"
            raise OptionError(f"rival {self.name} must return {wanted}; it returned {len(images)}: {got}")
        return images


def standard() -> list[Rival]:
    """Return the baselines of every evaluation of clips."""
    return [CopyLast(), Linear(), DisFlow()]
