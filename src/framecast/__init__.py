"""Watch a live camera and show, now, the frames still to come.

    predictor = framecast.load("edge")
    for frame in frames:                      # uint8 [H, W, 3] BGR
        prediction = predictor.step(frame)    # .image, .time, .horizon
    ahead = predictor.rollout(5)

    with framecast.open("rtsp://camera/stream", model="edge") as stream:
        for prediction in stream:
            ...

    framecast.evaluate("edge", "clips/").to_dict()          # quality beside copying and optical flow
    framecast.benchmark("edge").to_dict()                   # what a live step costs on this machine

Everything public is here; importing it loads no heavy library.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
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
    from framecast.bench.benchmark import benchmark
    from framecast.evaluation.evaluate import evaluate
    from framecast.runtime import Prediction, Predictor, Stream, load, open

__version__ = version("framecast")

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
    "benchmark",
    "evaluate",
    "load",
    "open",
]


_ROOMS = {"benchmark": "framecast.bench.benchmark", "evaluate": "framecast.evaluation.evaluate"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_ROOMS.get(name, "framecast.runtime")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
