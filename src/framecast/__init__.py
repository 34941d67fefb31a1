"""Watch a live camera and show, now, the frames still to come.

    predictor = framecast.load("edge")
    for frame, time in frames:                # uint8 [H, W, 3] BGR; seconds
        predictor.step(frame, time)
        now = predictor.at(time + 0.2)        # the picture 200 ms later: .image, .time, .ahead
    following = predictor.rollout(5)          # the camera's next five frames

    with framecast.open("rtsp://camera/stream", now=True, camera_delay=0.2) as stream:
        for prediction in stream:             # the frame of now, for as long as the stream runs
            ...

    framecast.run("rtsp://camera/stream", sinks=[lambda result: ...])   # any callable is a sink
    framecast.run_cameras(["rtsp://door/stream", "rtsp://yard/stream"])     # several cameras, one engine for all
    framecast.evaluate("edge", "clips/").to_dict()          # quality against copying and optical flow
    framecast.benchmark("edge").to_dict()                   # the latency of a live step on this machine

This module holds everything public. Importing it loads no heavy library. Fakes for tests are in
:mod:`framecast.testing`.
"""

from __future__ import annotations

import os
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
    from framecast.bench.benchmark import benchmark
    from framecast.camera import Frame, Source
    from framecast.evaluation.evaluate import evaluate
    from framecast.runtime import open
    from framecast.runtime.fleet import run_cameras
    from framecast.runtime.lane import Camera
    from framecast.runtime.pipeline import Stream
    from framecast.runtime.predictor import Prediction, Predictor, load
    from framecast.runtime.run import run
    from framecast.runtime.sinks.sink import Result, Sink

# ONNX Runtime reports home as soon as it is imported, unless this is set before. The user's own setting stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__: str

__all__ = [
    "ArtifactError",
    "Camera",
    "EngineError",
    "ExportError",
    "Frame",
    "FrameError",
    "FramecastError",
    "OptionError",
    "Prediction",
    "Predictor",
    "Result",
    "Sink",
    "SinkError",
    "Source",
    "SourceError",
    "Stream",
    "__version__",
    "benchmark",
    "evaluate",
    "load",
    "open",
    "run",
    "run_cameras",
]


# The module of each public name. A module is imported on the first access to one of its names.
_HOMES = {
    "Camera": "runtime.lane",
    "Frame": "camera",
    "Prediction": "runtime.predictor",
    "Predictor": "runtime.predictor",
    "Result": "runtime.sinks.sink",
    "Sink": "runtime.sinks.sink",
    "Source": "camera",
    "Stream": "runtime.pipeline",
    "benchmark": "bench.benchmark",
    "evaluate": "evaluation.evaluate",
    "load": "runtime.predictor",
    "open": "runtime",
    "run": "runtime.run",
    "run_cameras": "runtime.fleet",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow, so it is imported only on use

        return version("framecast")
    if name in _HOMES:
        return getattr(import_module(f"framecast.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
