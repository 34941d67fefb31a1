"""Shows pictures of more than 8 bits, of floats, and with transparency as 8-bit pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera.source import Image, note

_OUTLIERS = 0.1  # percent of the first picture's pixels at either end
_MARGIN = 0.25  # of the range, added at either end for later pictures


class Stretch:
    """Stretches grey values of any depth to 0 to 255, by one range for the whole source.

    Thermal cameras use a small part of 16 bits. The range is that of the first picture without its 0.1 % darkest and
    brightest pixels, widened by a quarter at either end, within what the type can hold. It stays for the source, so the
    brightness never flickers.

    Args:
        notes: gets a line that says the range.
    """

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._range: tuple[float, float] | None = None

    def picture(self, grey: NDArray[Any]) -> Image:
        """Stretch a picture.

        Args:
            grey: [H, W], any real dtype. Values that are not finite become black.

        Returns:
            uint8 [H, W, 3].
        """
        values = np.nan_to_num(grey.astype(np.float32), nan=-np.inf, posinf=-np.inf, neginf=-np.inf)
        if self._range is None:
            self._range = low, high = _range(values, grey.dtype)
            note(
                self._notes,
                f"pictures of {grey.dtype} are stretched: {low:g} to {high:g} are shown as black to white "
                "(the first picture's range and a quarter on either side)",
            )
        low, high = self._range
        shown = np.clip((values - low) * (255 / (high - low)), 0, 255)
        return np.repeat(np.rint(shown).astype(np.uint8)[..., None], 3, axis=2)


def _range(values: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(edge) for edge in np.percentile(finite, [_OUTLIERS, 100 - _OUTLIERS]))
    margin = _MARGIN * (high - low) or 0.5
    low, high = low - margin, high + margin
    if np.issubdtype(dtype, np.integer):  # beyond what it can hold, the margin only costs contrast
        limits = np.iinfo(dtype)
        low, high = max(low, float(limits.min)), min(high, float(limits.max))
    return low, high


def composed(picture: NDArray[np.uint8]) -> Image:
    """Lay a picture with transparency, uint8 [H, W, 4] BGRA with straight alpha, over black: uint8 [H, W, 3]."""
    colours, alpha = picture[..., :3].astype(np.uint16), picture[..., 3:].astype(np.uint16)
    return ((colours * alpha + 127) // 255).astype(np.uint8)
