"""What a sink is: something that is shown every event of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from framecast.camera import Frame, Image
from framecast.runtime.predictor import Prediction


@dataclass(frozen=True)
class Event:
    """One real frame, and what was made of it.

    Attributes:
        frame: the real frame, at its own size.
        input: the same at the model's size, uint8 [h, w, 3] BGR.
        prediction: made from this frame, for ``horizon`` steps ahead of it.
        due: what had been predicted, ``horizon`` steps before, for this very frame; None where nothing was, or before
            the first frame that is scored.
        psnr: of ``due`` against ``input``, dB; None with ``due``.
        psnr_copy: of the frame that was the newest when ``due`` was predicted, dB; None with ``due``.
    """

    frame: Frame
    input: Image
    prediction: Prediction
    due: Image | None = None
    psnr: float | None = None
    psnr_copy: float | None = None


class Sink(ABC):
    """Takes events, one at a time, in a thread of its own."""

    @abstractmethod
    def show(self, event: Event) -> None:
        """Take one event.

        Raises:
            SinkError: it cannot be written; the run ends.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish: what was shown so far is complete and playable. May be called twice."""
