"""The runtime: artifacts and engines, the predictor, the pipeline and its sinks. It does not need torch."""

from __future__ import annotations

import os

from framecast.camera import cv, open_source

cv.load()  # call this before any import of cv2: it sets OpenCV's limits, and explains a failed import

from framecast.runtime.lookahead import MAX_AHEAD, Lookahead  # noqa: E402
from framecast.runtime.pipeline import Pipeline, Stream  # noqa: E402
from framecast.runtime.predictor import load  # noqa: E402
from framecast.runtime.shipped import DEFAULT_MODEL  # noqa: E402

__all__ = ["Pipeline", "load", "open"]


def open(
    source: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    engine: str = "auto",
    threads: int = 0,
    now: bool = False,
    ahead: float | None = None,
    horizon: int | None = None,
    camera_delay: float = 0.0,
    display_delay: float = 0.0,
    max_ahead: float = MAX_AHEAD,
    realtime: bool = False,
    every_frame: bool = False,
    loop: bool = False,
    timeout: float = 15.0,
    stall: float = 2.5,
    reconnect: bool = True,
) -> Stream:
    """Open a camera, stream, clip or folder, and predict every frame.

    Args:
        source: a video file, a folder or glob of images, a webcam's number, ``-`` (standard input), ``demo``, or a URI:
            ``file://``, ``synthetic://``, ``mnist://``, ``v4l2://``, ``csi://``, ``http://``, ``https://``,
            ``rtmp://``, ``rtmps://``, ``rtsp://``, ``rtsps://``, ``srt://`` or ``udp://``.
        model: a shipped name, or the path of an artifact.
        engine: see ``framecast doctor``.
        threads: CPU threads of the step; 0 means one per core.
        now: show the present: measure how late each frame is, and look that far ahead. Give at most one of ``now``,
            ``ahead`` and ``horizon``.
        ahead: a fixed lookahead in seconds.
        horizon: a fixed lookahead in camera frames (default: 1).
        camera_delay: for ``now``: seconds from the lens to the frame's arrival here.
        display_delay: for ``now``: seconds that the display takes.
        max_ahead: for ``now``: the longest lookahead in seconds.
        realtime: play a file at its own frame rate; ``now`` always does. Then, as with a camera, frames that come while
            the model is busy are dropped.
        every_frame: drop no frame of a file that plays at its own rate, even if predictions come late.
        loop: restart a file at its end.
        timeout: seconds that a camera may take to answer.
        stall: seconds that it may take for each later frame.
        reconnect: open a camera again when it was lost, for as long as it takes.

    Returns:
        A stream of predictions. Iterate over it, and close it or use it in a ``with``.

    Raises:
        SourceError: the source cannot be opened.
        ArtifactError: there is no such model, or the file is not an artifact.
        EngineError: the engine is not available on this machine.
        OptionError: an argument is out of range.
    """
    wish = Lookahead(horizon, ahead, now, camera_delay, display_delay, max_ahead)
    predictor = load(model, engine=engine, threads=threads)
    try:
        own_delay = camera_delay > 0  # it is counted from the arrival
        opened = open_source(
            source, loop=loop, timeout=timeout, stall=stall, sender_clock=not own_delay, reconnect=reconnect
        )
        try:
            return Stream(Pipeline(opened, predictor, lookahead=wish, realtime=realtime or now, every=every_frame))
        except BaseException:
            opened.close()
            raise
    except BaseException:
        predictor.close()
        raise
