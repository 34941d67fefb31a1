"""The pictures of the browser page: shrunk and encoded once for all viewers, and only those that somebody wants."""

from __future__ import annotations

from collections.abc import Callable, Collection

import cv2
import numpy as np

from framecast.camera import Image
from framecast.runtime.sinks.picture import error_image, fit
from framecast.runtime.sinks.sink import Result

# Of the moment that is shown: the newest real frame ("late"), the prediction made from it ("now"), and how far
# predictions have been off lately ("trust"). Of the moment of the newest real frame: that frame ("real"), what had been
# predicted for it ("due"), the picture that was newest then ("was"), and the errors of these two.
PICTURES = ("late", "now", "trust", "real", "due", "was", "error_due", "error_was")

LARGE = 1280  # the longest side of late and now, pixels
SMALL = 640  # of the others
TRUST = 160  # of the trust shade
JPEG_QUALITY = 85
_KEPT = 0.85  # of the smoothed residual, when a frame adds its own
_GAIN = 4  # grey levels of the shade for one of the residual


class Trust:
    """How far predictions have been off lately, by pixel: a smoothed |real − predicted|."""

    def __init__(self) -> None:
        self._residual: np.ndarray | None = None  # float32 [h, w], grey levels
        self._index = -1

    def take(self, result: Result) -> Image | None:
        """Add a result's residual. Returns the shade, uint8 [h, w]: 4 times the residual; None if there is none."""
        if result.due is not None and result.frame.index != self._index:
            difference = cv2.absdiff(fit(result.input, SMALL), fit(result.due, SMALL)).max(axis=2)
            small = cv2.blur(fit(difference, TRUST), (5, 5)).astype(np.float32)
            if self._residual is None or self._residual.shape != small.shape:
                self._residual = small
            self._residual = _KEPT * self._residual + (1 - _KEPT) * small
            self._index = result.frame.index
        if self._residual is None:
            return None
        return cv2.convertScaleAbs(self._residual, alpha=_GAIN)  # type: ignore[return-value]


def encode(result: Result, wanted: Collection[str], trust: Trust) -> dict[str, bytes]:
    """JPEGs by name, in the order of ``PICTURES``. One that does not exist, because nothing was due, is left out.

    Args:
        result: the newest.
        wanted: names of pictures.
        trust: goes on with this result if ``trust`` is wanted.
    """
    small: dict[str, Image] = {}

    def shrunk(name: str, image: Image | None) -> Image | None:
        if image is not None and name not in small:
            small[name] = fit(image, SMALL)
        return None if image is None else small[name]

    def error(name: str, image: Image | None) -> Image | None:
        real, guess = shrunk("real", result.input), shrunk(name, image)
        return None if real is None or guess is None else error_image(real, guess)

    makers: dict[str, Callable[[], Image | None]] = {
        "late": lambda: fit(result.input, LARGE),
        "now": lambda: fit(result.prediction.image, LARGE),
        "trust": lambda: trust.take(result),
        "real": lambda: shrunk("real", result.input),
        "due": lambda: shrunk("due", result.due),
        "was": lambda: shrunk("was", result.late),
        "error_due": lambda: error("due", result.due),
        "error_was": lambda: error("was", result.late),
    }
    images = {name: makers[name]() for name in PICTURES if name in wanted}
    return {name: _jpeg(image) for name, image in images.items() if image is not None}


def _jpeg(image: Image) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
