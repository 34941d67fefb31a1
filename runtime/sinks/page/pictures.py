"""The pictures of the browser page: shrunk and encoded once for all viewers, and only those that somebody wants."""

from __future__ import annotations

from collections.abc import Collection

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

    def take(self, real: Image, due: Image | None) -> Image | None:
        """Add a frame's residual. Returns the shade, uint8 [h, w]: 4 times the residual; None if there is none yet.

        Args:
            real: the frame, at the size ``SMALL``.
            due: its prediction, at the same size; None if there is none.
        """
        if due is not None:
            difference: Image = cv2.absdiff(real, due)  # type: ignore[assignment]
            small = cv2.blur(fit(difference, TRUST).mean(axis=2, dtype=np.float32), (5, 5))
            if self._residual is None or self._residual.shape != small.shape:
                self._residual = small
            self._residual = _KEPT * self._residual + (1 - _KEPT) * small
        if self._residual is None:
            return None
        return cv2.convertScaleAbs(self._residual, alpha=_GAIN)  # type: ignore[return-value]


class Encoder:
    """Encodes pictures of results. What it did for a frame serves for later moments of that frame, too."""

    def __init__(self) -> None:
        self._trust = Trust()
        self._result: Result | None = None
        self._small: dict[str, Image] = {}
        self._done: dict[str, bytes | None] = {}

    def encode(self, result: Result, now: Image, wanted: Collection[str]) -> dict[str, bytes]:
        """JPEGs by name, in the order of ``PICTURES``. One that does not exist, because nothing was due, is left out.

        Args:
            result: of the newest frame.
            now: the prediction to show: the result's, or that of a later moment.
            wanted: names of pictures.
        """
        if result is not self._result:
            self._result, self._small, self._done = result, {}, {}
        pictures: dict[str, bytes] = {}
        for name in (name for name in PICTURES if name in wanted):
            if name == "now":
                pictures[name] = _jpeg(fit(now, LARGE))
                continue
            if name not in self._done:
                image = self._make(name, result)
                self._done[name] = None if image is None else _jpeg(image)
            if data := self._done[name]:
                pictures[name] = data
        return pictures

    def _make(self, name: str, result: Result) -> Image | None:
        if name == "late":
            return fit(result.input, LARGE)
        if name == "trust":
            due = None if result.due is None else self._shrunk("due", result.due)
            return self._trust.take(self._shrunk("real", result.input), due)
        image = {"real": result.input, "due": result.due, "was": result.late}[name.removeprefix("error_")]
        if image is None:
            return None
        shrunk = self._shrunk(name.removeprefix("error_"), image)
        return error_image(self._shrunk("real", result.input), shrunk) if name.startswith("error_") else shrunk

    def _shrunk(self, name: str, image: Image) -> Image:
        if name not in self._small:
            self._small[name] = fit(image, SMALL)
        return self._small[name]


def _jpeg(image: Image) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
