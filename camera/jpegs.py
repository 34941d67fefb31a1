"""Decodes a camera's single JPEG pictures."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from framecast.camera.media import MAX_PIXELS, failures, load
from framecast.camera.pictures import Pictures
from framecast.camera.source import Image


class Jpegs:
    """Decodes with FFmpeg, which reports most damage. OpenCV's libjpeg shows the picture, and prints to the terminal.

    Args:
        notes: see :class:`framecast.camera.pictures.Pictures`.
    """

    def __init__(self, notes: list[str]) -> None:
        self._context = load().CodecContext.create("mjpeg", "r")
        self._context.thread_count = 1
        self._context.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
        self._pictures = Pictures(notes)

    def picture(self, data: NDArray[Any]) -> Image | None:
        """Decode a JPEG, uint8 [1, bytes], which padding may follow, to uint8 [H, W, 3] BGR; None if it is damaged."""
        if not data.size:  # it would end the decoder's stream
            return None
        library = load()
        try:
            (frame,) = self._context.decode(library.Packet(data))
        except failures():  # ValueError: no frame
            return None
        return self._pictures.picture(frame)
