"""Pictures of a result: captions, and the error between prediction and real frame."""

from __future__ import annotations

import cv2
import numpy as np

from framecast.camera import Image
from framecast.runtime.sinks.sink import Result

GAIN = 4  # makes the error visible; the page's index.html names the same factor
CAPTION = 22  # height in pixels
LEGIBLE = 250  # width of the longest caption in pixels
_BACK, _INK = (24, 20, 18), (225, 222, 220)  # BGR


def error_image(input: Image, due: Image | None) -> Image:
    """|input − due| × 4, saturated, uint8 [h, w, 3]; black if nothing was due."""
    if due is None:
        return np.zeros_like(input)
    return cv2.convertScaleAbs(cv2.absdiff(input, due), alpha=GAIN)  # type: ignore[return-value]


def caption(width: int, text: str) -> Image:
    """A bar of text, uint8 [CAPTION, width, 3]."""
    bar = np.full((CAPTION, width, 3), _BACK, np.uint8)
    cv2.putText(bar, text, (6, CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _INK, 1, cv2.LINE_AA)
    return bar


def enlarged(image: Image, least: int) -> Image:
    """Enlarge a picture by the smallest whole factor that makes it at least ``least`` pixels wide."""
    factor = -(-least // image.shape[1])
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


def triptych(result: Result) -> Image:
    """The real frame, its prediction and the error between them, side by side.

    The prediction is dark until there is one for this frame. Small pictures are enlarged by a whole factor.
    """
    due = np.zeros_like(result.input) if result.due is None else result.due
    tiles = [enlarged(tile, LEGIBLE) for tile in (result.input, due, error_image(result.input, result.due))]
    ahead = 1e3 * result.prediction.ahead
    score = "warming up" if result.psnr is None else f"{result.psnr:.1f} dB (copying {result.psnr_copy:.1f})"
    texts = (f"input  {result.frame.time:.2f} s", f"predicted {ahead:.0f} ms ahead  {score}", f"error x{GAIN}")
    return np.vstack([np.hstack([caption(tiles[0].shape[1], text) for text in texts]), np.hstack(tiles)])
