"""The runtime: artifacts and engines, the predictor, the pipeline, and where its results go. It needs no torch."""

from __future__ import annotations

import os

from framecast.camera import cv, open_source

cv.load()  # before anything here imports cv2: it sets OpenCV's bounds, and says what is missing where it cannot load

from framecast.runtime.pipeline import Pipeline, Stream  # noqa: E402
from framecast.runtime.predictor import load  # noqa: E402
from framecast.runtime.shipped import DEFAULT_MODEL  # noqa: E402

__all__ = ["Pipeline", "load", "open"]


def open(
    uri: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    engine: str = "auto",
    threads: int = 0,
    horizon: int = 1,
    realtime: bool = False,
    loop: bool = False,
) -> Stream:
    """Open a camera, stream, clip or folder, and predict every frame of it.

    Args:
        uri: a path, a glob of images, a webcam's number, ``v4l2://``, ``rtsp://``, ``synthetic://`` or ``demo``.
        model: a shipped name, or the path of an artifact.
        engine: see ``framecast doctor``.
        threads: of the step on a CPU; 0 for one a core.
        horizon: how many steps ahead the predictions are.
        realtime: hand out a file's frames at the clip's own pace.
        loop: start a file over at its end.

    Raises:
        SourceError: the source cannot be opened.
        ArtifactError: there is no such model, or the file is no artifact.
        EngineError: the engine cannot be had here.
        OptionError: an argument is out of its range.
    """
    predictor = load(model, engine=engine, threads=threads)
    try:
        source = open_source(uri, loop=loop)
        try:
            return Stream(Pipeline(source, predictor, horizon=horizon, realtime=realtime))
        except BaseException:
            source.close()
            raise
    except BaseException:
        predictor.close()
        raise
