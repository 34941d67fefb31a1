"""What a sink is: something that is shown every result of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from framecast.camera import Frame, Image
from framecast.runtime.predictor import Prediction
from framecast.runtime.telemetry import Stamps


@dataclass(frozen=True, eq=False)
class Result:
    """One real frame, and what was made of it.

    Attributes:
        frame: the real frame, at its own size.
        input: the same at the model's size, uint8 [h, w, 3] BGR.
        prediction: made from this frame, for ``horizon`` steps ahead of it.
        stamps: when it passed each station.
        due: what had been predicted, ``horizon`` steps before, for this very frame; None where nothing was, and before
            the first frame that is scored.
        psnr: of ``due`` against ``input``, dB; None with ``due``.
        psnr_copy: of the frame that was the newest when ``due`` was predicted, dB; None with ``due``.
    """

    frame: Frame
    input: Image
    prediction: Prediction
    stamps: Stamps
    due: Image | None = None
    psnr: float | None = None
    psnr_copy: float | None = None


class Sink(ABC):
    """Takes results, one at a time. Use it in a ``with``, or close it."""

    @abstractmethod
    def show(self, result: Result) -> None:
        """Take one result.

        Raises:
            SinkError: it cannot be written; the run ends.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish: what was shown so far is complete and playable. May be called twice."""


class FunctionSink(Sink):
    """Any callable as a sink: called with each result, in the loop's thread, so it should return soon."""

    def __init__(self, function: Callable[[Result], object]) -> None:
        self._function = function

    def show(self, result: Result) -> None:
        """See :meth:`Sink.show`."""
        self._function(result)

    def close(self) -> None:
        """See :meth:`Sink.close`: there is nothing to finish."""
