"""Watch a live camera and show, now, the frames still to come.

    predictor = framecast.load("edge")
    for frame in frames:                      # uint8 [H, W, 3] BGR
        prediction = predictor.step(frame)    # .image, .time, .horizon
    ahead = predictor.rollout(5)

    with framecast.open("rtsp://camera/stream", model="edge") as stream:
        for prediction in stream:
            ...

Everything public is here; importing it loads no heavy library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from framecast.errors import (
    ArtifactError,
    EngineError,
    ExportError,
    FramecastError,
    FrameError,
    OptionError,
    SinkError,
    SourceError,
)

if TYPE_CHECKING:
    from framecast.runtime import Prediction, Predictor, Stream, load, open

__version__: str

__all__ = [
    "ArtifactError",
    "EngineError",
    "ExportError",
    "FrameError",
    "FramecastError",
    "OptionError",
    "Prediction",
    "Predictor",
    "SinkError",
    "SourceError",
    "Stream",
    "__version__",
    "load",
    "open",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # most of what importing this module would cost

        return version("framecast")
    if name in __all__:
        return getattr(import_module("framecast.runtime"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
