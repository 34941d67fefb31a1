"""Writes a few moments of a run as one picture, to show what predictions are worth.

Each row is one moment: the late picture (what a viewer would see without prediction), framecast's prediction, the real
frame, and the errors of the first two.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from framecast.camera import Image
from framecast.files import check_writable, write
from framecast.runtime.sinks.picture import (
    GAIN,
    GAP,
    ahead_text,
    beside,
    caption,
    enlarged,
    error_image,
    fit,
    letterboxed,
)
from framecast.runtime.sinks.recorded import free_name
from framecast.runtime.sinks.sink import Output, Result, Sink

ROWS = 4
PARTS = 16  # the most parts of a run: the moment with the most motion is kept from each
TILE = 384  # the longest side of a picture, pixels
LEAST = 256  # least width of a picture, pixels: smaller ones are enlarged
HEAD, FOOT = 34, 26  # heights of the captions in pixels


class _Moment(NamedTuple):
    """A row, the PSNR of copying there (lower means more motion), and its number among the scored moments."""

    psnr_copy: float
    number: int
    row: Image


class StripSink(Sink):
    """The moments with the most motion, spread over a run of any length, written as a PNG file at the end.

    Each row comes from another part of the run: the moment at which copying was worst. The prediction's own score does
    not affect the choice.

    It replaces no file: where there is one already, its name gets the time.

    Raises:
        SinkError: the path cannot be written.
    """

    def __init__(self, path: Path) -> None:
        check_writable(path)
        self.path = path
        self._moments: list[_Moment] = []  # one of each part
        self._length = 1  # scored frames in a part
        self._scored = 0
        self._ahead = ""
        self._to: Path | None = None

    def written(self) -> Output:
        """See :meth:`Sink.written`."""
        to = self._to or self.path
        files = int(self._to is not None)
        return Output(
            asked=str(self.path), to=str(to), codec=None, files=files, removed=0, lost=0, missed=0, trouble=None
        )

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        if result.psnr_copy is None:
            return
        self._ahead = ahead_text(result)
        if self._scored % self._length == 0:
            if len(self._moments) == PARTS:
                pairs = zip(self._moments[::2], self._moments[1::2], strict=True)
                self._moments = [min(pair, key=_copying) for pair in pairs]
                self._length *= 2
            self._moments.append(_Moment(result.psnr_copy, self._scored, _row(result)))
        elif result.psnr_copy < self._moments[-1].psnr_copy:
            self._moments[-1] = _Moment(result.psnr_copy, self._scored, _row(result))
        self._scored += 1

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if not self._moments:
            return
        count = len(self._moments)
        cuts = np.linspace(0, count, min(ROWS, count) + 1).round().astype(int)
        chosen: list[_Moment] = []
        for part in (self._moments[a:b] for a, b in pairwise(cuts)):
            apart = [m for m in part if not chosen or m.number - chosen[-1].number >= self._length]
            chosen.append(min(apart or part, key=_copying))
        rows = [letterboxed(m.row, chosen[0].row.shape) for m in chosen]  # the stream may have changed its size
        data = cv2.imencode(".png", np.vstack([_head(rows[0].shape[1], self._ahead), *rows]))[1]
        self._moments = []
        to = free_name(self.path)
        write(to, data.tobytes())
        self._to = to


def _copying(moment: _Moment) -> float:
    return moment.psnr_copy


def _row(result: Result) -> Image:
    """The five pictures of a scored moment, with captions below them."""
    if result.due is None or result.late is None or result.psnr is None or result.psnr_copy is None:
        raise ValueError("this result was not scored")
    late, due, real = (enlarged(fit(image, TILE), LEAST) for image in (result.late, result.due, result.input))
    ratio = 10 ** ((result.psnr - result.psnr_copy) / 20)  # of the errors' root mean squares
    times = f"{max(ratio, 1 / ratio):.1f}"
    compared = "as large" if times == "1.0" else f"{times} times {'smaller' if ratio > 1 else 'larger'}"
    texts = (
        "",
        "",
        f"{result.elapsed:.2f} s",
        f"PSNR {result.psnr_copy:.1f} dB",
        f"{compared}   PSNR {result.psnr:.1f} dB",
    )
    tiles = (late, due, real, error_image(real, late), error_image(real, due))
    columns = [
        np.vstack([tile, caption(tile.shape[1], text, soft=True, height=FOOT)])
        for tile, text in zip(tiles, texts, strict=True)
    ]
    return beside(columns)


def _head(width: int, ahead: str) -> Image:
    """The captions above the columns."""
    texts = (
        f"Late: {ahead} old",
        f"Framecast: now, {ahead} ahead",
        "The truth",
        f"Error of the late picture, x{GAIN}",
        f"Framecast's error, x{GAIN}",
    )
    column = (width - 4 * GAP) // 5
    return letterboxed(beside([caption(column, text, height=HEAD) for text in texts]), (HEAD, width, 3))
