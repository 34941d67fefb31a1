"""The interface of all sources: they give frames, each with its grab time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # [H, W, 3] BGR
Times = Literal["capture", "arrival", "file"]
DEFAULT_FPS = 25.0  # frames a second, if the source gives no rate


def plausible_rate(fps: float) -> float | None:
    """A rate in frames a second as a header gives it, or None if no camera or clip can have it."""
    return fps if 1e-4 <= fps <= 1000 else None  # NaN fails too; RTSP without a rate gives 90000, its clock


def note(notes: list[str], line: str) -> None:
    """Add a line to a source's notes, once."""
    if line not in notes:
        notes.append(line)


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    Attributes:
        image: uint8 [H, W, 3], BGR.
        time: seconds. Of a camera on the source's clock: the driver's stamp or the grab, see :attr:`Source.times`. Of a
            file: the frame's position in the clip.
        index: number of the frame in its source, from 0; dropped frames count too.
        epoch: counts up at each break in the stream (such as a clip's restart). Earlier frames do not predict it.
    """

    image: Image
    time: float
    index: int
    epoch: int = 0

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Frame({width}x{height}, index {self.index}, time {self.time:.3f} s)"


@dataclass(frozen=True)
class Outages:
    """When a camera was out: from each loss, as it was noticed, to the next frame, and before its first one.

    Attributes:
        count: how often; the one that goes on counts as well.
        total: seconds in all.
        longest: seconds of the longest one.
    """

    count: int = 0
    total: float = 0.0
    longest: float = 0.0

    def plus(self, seconds: float) -> Outages:
        """With one more."""
        return Outages(self.count + 1, self.total + seconds, max(self.longest, seconds))


class Source(ABC):
    """An opened camera, stream, clip or folder. Close it, or use it in a ``with``.

    Attributes:
        name: its name in messages; it never holds credentials.
        live: whether frames arrive at their own time and are lost if nobody reads them, as from a camera. The reader
            of any other source can read every frame.
        fps: nominal frames a second, or None if the source gives no rate.
        length: the number of frames, if it is known before they are read; a header may be wrong.
        faults: how often something was wrong and was mended or left out: ``damaged`` pictures, ``times
            mended``.
        trouble: why no frames come at the moment, while a lost camera is opened again; None if all is well.
        attempts: how often it was tried to open a lost camera again.
        outages: of a camera that is opened again; none of any other source.
        notes: lines that a user should know about what was done to the pictures and times. It grows as frames are read.
    """

    name: str
    live: bool
    fps: float | None
    length: int | None = None
    faults: Mapping[str, int] = MappingProxyType({})
    notes: Sequence[str] = ()
    trouble: str | None = None
    attempts: int = 0
    outages: Outages = Outages()

    @property
    def times(self) -> Times:
        """What a frame's time says, as of the newest frame.

        ``capture``: when the driver stamped it, at the beginning or the end of its exposure. ``arrival``: when it was
        grabbed; what the camera and its cable or network took before is not known. ``file``: a position in a clip.
        """
        return "arrival" if self.live else "file"

    @abstractmethod
    def read(self) -> Frame | None:
        """Wait for the next frame. Returns None at the end of a clip and after the source was closed.

        Raises:
            SourceError: the source was lost.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the device or file. May be called twice, and from any thread.

        It does not wait for a running read. That read releases the device when it finishes, and returns None.
        """

    def __iter__(self) -> Iterator[Frame]:
        """Iterate over the remaining frames."""
        return iter(self.read, None)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
