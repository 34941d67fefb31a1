"""The interface of all sinks: a sink takes every result of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypedDict

from framecast.camera import Frame, Image
from framecast.runtime.predictor import Prediction
from framecast.runtime.telemetry import Stamps


@dataclass(frozen=True, eq=False)
class Result:
    """One real frame and a picture predicted from it.

    Attributes:
        frame: the real frame at its own size.
        input: the same frame at the model's size, uint8 [h, w, 3] BGR.
        prediction: the picture to show, made from this frame.
        stamps: when the frame passed each stage.
        due: the earlier prediction for this frame's moment. None if there is none, or if this frame is not scored.
        late: the newest real frame when ``due`` was predicted: what a viewer would have seen without prediction. None
            if ``due`` is None.
        psnr: of ``due`` against ``input``, dB; None if ``due`` is None.
        psnr_copy: of ``late`` against ``input``, dB; None if ``due`` is None.
        between: whether this is only a later moment of a frame that was handed over before, for a display that is
            faster than the camera.
        concealed: whether frames are missing: ``frame`` is the newest real frame with the missing one's time, and
            ``prediction`` stands in its place. With ``between`` as well, it is one more moment while they are missing.
        last: whether concealing ends with it: ``prediction`` is the newest real frame, and nothing follows until a
            frame comes.
        repeated: whether the frame shows the same picture as the one before it.
        begun: the time of the run's first frame, on the clock of ``frame.time``.
    """

    frame: Frame
    input: Image
    prediction: Prediction
    stamps: Stamps
    due: Image | None = None
    late: Image | None = None
    psnr: float | None = None
    psnr_copy: float | None = None
    between: bool = False
    concealed: bool = False
    last: bool = False
    repeated: bool = False
    begun: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds from the run's first frame to this one. A camera's own times count from the start of the machine."""
        return self.frame.time - self.begun

    @property
    def new(self) -> bool:
        """Whether a new frame was predicted. Health and watchdog count nothing else."""
        return not (self.between or self.concealed)

    def __repr__(self) -> str:
        score = "not scored" if self.psnr is None else f"{self.psnr:.1f} dB, copying {self.psnr_copy:.1f} dB"
        return f"Result({self.frame!r}, {self.prediction!r}, {score})"


STDOUT = "standard output"


class Output(TypedDict):
    """Where a run's pictures went: one for each ``record`` and ``out``.

    Attributes:
        asked: the path or address as it was given, without credentials; ``STDOUT`` for standard output.
        to: the newest file, or the address.
        codec: ``H.264``, ``VP9``, …; null for a strip of pictures, and before the first picture.
        files: the number of files begun; of an address, of connections.
        removed: the number of segments that were removed.
        lost: how often it was lost while the run went on.
        missed: pictures that it did not get meanwhile.
        trouble: why it is lost now; null if all is well.
    """

    asked: str
    to: str
    codec: str | None
    files: int
    removed: int
    lost: int
    missed: int
    trouble: str | None


class Sink(ABC):
    """Takes results one at a time. Close it after the last one."""

    @abstractmethod
    def show(self, result: Result) -> None:
        """Take one result.

        Raises:
            SinkError: the result cannot be written; the run ends.
        """

    def written(self) -> Output | None:
        """Where the pictures went so far; None if nowhere that lasts. Any thread may call it, also at the end."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Finish, so that the output so far is complete and playable. May be called twice."""
