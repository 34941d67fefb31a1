"""The pictures of the browser page: shrunk and encoded once for all viewers, and only those that somebody wants."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np

from framecast.camera import Image
from framecast.runtime.sinks.picture import beside, error_image, fit
from framecast.runtime.sinks.sink import Result

# For the moment shown: the newest real frame ("late"), the prediction made from it ("now"), and how far predictions
# have been off lately ("trust"). For the newest scored moment: its real frame ("real"), the earlier prediction for it
# ("due"), the frame that was newest when it was predicted ("was"), and the errors of these two. For the last few scored
# moments, side by side: the predictions ("film_due") and the real frames ("film_real").
PICTURES = ("late", "now", "trust", "real", "due", "was", "error_due", "error_was", "film_due", "film_real")
FILM = 10  # moments

LARGE = 1280  # the longest side of late and now, pixels
SMALL = 640  # of the others
TILE = 480  # of a picture in the grid of cameras
TRUST = 160  # of the trust shade
COLUMN = 160  # of a picture in the film
JPEG_QUALITY = 85
_KEPT = 0.85  # weight of the smoothed residual when a frame is added
_GAIN = 4  # grey levels of the shade per grey level of the residual


@dataclass(frozen=True, eq=False)
class Newest:
    """The results that a page shows.

    Attributes:
        frame: the first result of the newest frame.
        shown: the newest result: of the same frame, but maybe of a later moment.
        scored: the newest scored result; None before the first.
    """

    frame: Result
    shown: Result
    scored: Result | None

    @classmethod
    def after(cls, before: Newest | None, result: Result) -> Newest:
        """The newest results, once ``result`` has followed those ``before``."""
        frame = before.frame if before is not None and result.between else result
        scored = result if result.due is not None else before.scored if before is not None else None
        return cls(frame, result, scored)


class Trust:
    """How far predictions have been off lately, per pixel: a smoothed |real − predicted|."""

    def __init__(self) -> None:
        self._residual: np.ndarray | None = None  # float32 [h, w], grey levels

    def take(self, real: Image, due: Image) -> Image:
        """Add a scored moment. Returns the shade, uint8 [h, w]: 4 times the residual.

        Args:
            real: the frame, at the size ``SMALL``.
            due: its prediction, at the same size.
        """
        difference: Image = cv2.absdiff(real, due)  # type: ignore[assignment]
        small = cv2.blur(fit(difference, TRUST).mean(axis=2, dtype=np.float32), (5, 5))
        if self._residual is None or self._residual.shape != small.shape:
            self._residual = small
        self._residual = _KEPT * self._residual + (1 - _KEPT) * small
        return cv2.convertScaleAbs(self._residual, alpha=_GAIN)  # type: ignore[return-value]


class Encoder:
    """Encodes pictures. Those of a frame or a scored moment are cached until the next one."""

    def __init__(self) -> None:
        self._trust = Trust()
        self._newest: Newest | None = None
        self._late: bytes | None = None
        self._small: dict[str, Image] = {}  # of the scored moment
        self._scored: dict[str, bytes] = {}
        self._film: deque[dict[str, Image]] = deque(maxlen=FILM)  # of the moments since somebody watches it
        self._filmed: Result | None = None  # the newest of these moments

    def encode(self, newest: Newest, wanted: Collection[str]) -> dict[str, bytes]:
        """JPEGs by name, in the order of ``PICTURES``. Until a moment is scored, its pictures are left out.

        Args:
            newest: the results to show.
            wanted: names of pictures.
        """
        before, self._newest = self._newest, newest
        if before is None or newest.frame is not before.frame:
            self._late = None
        if before is None or newest.scored is not before.scored:
            self._small, self._scored = {}, {}
        if not {"film_due", "film_real"} & {*wanted}:
            self._film.clear()
            self._filmed = None
        pictures: dict[str, bytes] = {}
        for name in (name for name in PICTURES if name in wanted):
            if name == "late":
                self._late = pictures[name] = self._late or _jpeg(fit(newest.frame.input, LARGE))
            elif name == "now":
                pictures[name] = _jpeg(fit(newest.shown.prediction.image, LARGE))
            elif newest.scored is not None:
                if name not in self._scored:
                    self._scored[name] = _jpeg(self._make(name, newest.scored))
                pictures[name] = self._scored[name]
        return pictures

    def _wind(self, scored: Result) -> None:
        """Add a moment to the film, once. All its moments have one size."""
        if scored is self._filmed:
            return
        self._filmed = scored
        column = {f"film_{name}": fit(self._shrunk(name, scored), COLUMN) for name in ("due", "real")}
        if self._film and self._film[0]["film_due"].shape != column["film_due"].shape:
            self._film.clear()
        self._film.append(column)

    def _make(self, name: str, scored: Result) -> Image:
        if name.startswith("film_"):
            self._wind(scored)
            images = [column[name] for column in self._film]
            return beside([np.zeros_like(images[0])] * (FILM - len(images)) + images)
        if name == "trust":
            return self._trust.take(self._shrunk("real", scored), self._shrunk("due", scored))
        if name.startswith("error_"):
            return error_image(self._shrunk("real", scored), self._shrunk(name.removeprefix("error_"), scored))
        return self._shrunk(name, scored)

    def _shrunk(self, name: str, scored: Result) -> Image:
        if name not in self._small:
            image = {"real": scored.input, "due": scored.due, "was": scored.late}[name]
            self._small[name] = fit(scored.input if image is None else image, SMALL)
        return self._small[name]


def tile(image: Image) -> bytes:
    """A small JPEG of a picture, for the grid of cameras."""
    return _jpeg(fit(image, TILE))


def _jpeg(image: Image) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
