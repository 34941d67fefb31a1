"""Writes a few moments of a run as one picture. Each row shows input, prediction and error."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from framecast.camera import Image
from framecast.files import check_writable, write
from framecast.runtime.sinks.picture import triptych
from framecast.runtime.sinks.sink import Result, Sink

ROWS = 4


class StripSink(Sink):
    """Moments spread evenly over a run of any length, written as a PNG file at the end.

    Raises:
        SinkError: the path cannot be written.
    """

    def __init__(self, path: Path) -> None:
        check_writable(path)
        self.path = path
        self._rows: list[Image] = []
        self._stride = 1  # keep every stride-th scored result, up to twice as many as ROWS
        self._scored = 0

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        if result.due is None:
            return
        if self._scored % self._stride == 0:
            self._rows.append(triptych(result))
            if len(self._rows) == 2 * ROWS:
                self._rows = self._rows[::2]
                self._stride *= 2
        self._scored += 1

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if not self._rows:
            return
        chosen = np.linspace(0, len(self._rows) - 1, min(ROWS, len(self._rows))).round().astype(int)
        data = cv2.imencode(".png", np.vstack([self._rows[i] for i in chosen]))[1]
        self._rows = []
        write(self.path, data.tobytes())
