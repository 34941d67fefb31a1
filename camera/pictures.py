"""Turns decoded video frames into BGR pictures in the shape that a player shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import cv
from framecast.camera.media import MAX_PIXELS, MediaError, failures, load
from framecast.camera.pool import Pool
from framecast.camera.source import Image, note
from framecast.camera.stretch import Stretch, composed

if TYPE_CHECKING:
    from av import VideoFrame

_SQUARE = 0.01  # pixel aspects as near to 1 as this are a rounding of the size, not a shape
_ODDEST = 4.0  # beyond this a pixel aspect is a mistake
_TURNS = {90: 2, 180: 1, 270: 0}  # degrees counterclockwise to cv2's ROTATE_90_COUNTERCLOCKWISE, _180, _90_CLOCKWISE
_PQ, _HLG = 16, 18  # transfer characteristics, ITU-T H.273 table 3


class Pictures:
    """Converts a stream's frames to uint8 [H, W, 3] BGR, full range, in arrays from a pool.

    - Colours by the matrix and range in the frame; 10-bit and more are rounded to 8; pixels that are not square are
      enlarged in one direction; a display rotation is applied; transparent pixels are laid over black.
    - Grey of more than 8 bits is stretched: see :class:`framecast.camera.stretch.Stretch`.

    Args:
        notes: gets a line for each thing that a user should know about what was done.
    """

    def __init__(self, notes: list[str]) -> None:
        self._reformatter = load().video.reformatter.VideoReformatter()
        self._fast = load().video.reformatter.Interpolation.BILINEAR
        self._notes = notes
        self._pool = Pool()
        self._stretch = Stretch(notes)

    def picture(self, frame: VideoFrame, pixel_aspect: float = 1.0) -> Image:
        """Convert a frame.

        Args:
            frame: as decoded.
            pixel_aspect: the width of a pixel divided by its height.

        Raises:
            MediaError: FFmpeg cannot convert its colours.
        """
        if frame.color_trc in (_PQ, _HLG):
            name = "PQ" if frame.color_trc == _PQ else "HLG"
            note(self._notes, f"HDR video ({name}) is not tone-mapped: its pictures are paler than a player shows them")
        width, height = _shape(frame.width, frame.height, pixel_aspect)
        deep = frame.format.name.startswith("gray") and max(part.bits for part in frame.format.components) > 8
        alpha = any(part.is_alpha for part in frame.format.components)
        target = "gray16le" if deep else "bgra" if alpha else "bgr24"
        try:
            converted = self._reformatter.reformat(
                frame, width=width, height=height, format=target, interpolation=self._fast, threads=1
            )
        except failures():
            kind = f"{frame.format.name}, matrix {int(frame.colorspace)} of H.273"
            raise MediaError(f"FFmpeg's libraries here cannot convert its colours ({kind}): encode it again") from None
        plane, cells = converted.planes[0], width * (1 if deep else 4 if alpha else 3)
        rows: NDArray[Any] = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(height, -1)[:, :cells]
        picture: Image
        if deep:
            picture = self._stretch.picture(rows)
        elif alpha:
            picture = composed(rows.reshape(height, width, 4))
        else:
            picture = rows.reshape(height, width, 3)
        # FFmpeg frees its buffer with the frame, so the picture is copied, upright, into an array of ours.
        turn = _TURNS.get(round(frame.rotation) % 360)
        mine = self._pool.take((width, height, 3) if turn in (0, 2) else (height, width, 3))
        if turn is None:
            np.copyto(mine, picture)
        else:
            cv.load().rotate(np.ascontiguousarray(picture), turn, dst=mine)
        return mine


def _shape(width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
    """The size in square pixels: never smaller than the stored one in either direction."""
    if abs(pixel_aspect - 1) <= _SQUARE or not 1 / _ODDEST <= pixel_aspect <= _ODDEST:
        return width, height
    wide, high = (width * pixel_aspect, height) if pixel_aspect > 1 else (width, height / pixel_aspect)
    return (round(wide), round(high)) if wide * high <= MAX_PIXELS else (width, height)
