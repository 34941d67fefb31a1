"""Network cameras: RTSP through OpenCV's FFmpeg."""

from __future__ import annotations

import math

from framecast.camera import cv
from framecast.camera.live import LiveSource
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError
from framecast.redact import redact

# TCP: with 1 % of loss over UDP a fifth of the frames is visibly corrupt, and no read says so.
# analyzeduration, in µs: the first frame comes after 0.2 s instead of 1.2 s.
_OPTIONS = "rtsp_transport;tcp|analyzeduration;100000"


def open_rtsp(uri: str, *, timeout: float, clock: Clock = SYSTEM) -> LiveSource:
    """A stream, over TCP; OPENCV_FFMPEG_CAPTURE_OPTIONS in the environment takes the place of our options.

    Args:
        uri: ``rtsp://user:password@host:port/path``, or ``rtsps://``.
        timeout: seconds that opening may take, and then every read. (A name server that does not answer is not counted:
            nothing can interrupt the system's resolver.)
        clock: on which frames say when they were grabbed.

    Raises:
        SourceError: nothing answers, it refuses, or it sends no video.
    """
    name = redact(uri)
    if not uri.isprintable():
        raise SourceError(f"not a URL: {name} (it holds characters that must be percent-encoded)")
    cv2 = cv.load()
    milliseconds = min(math.ceil(timeout * 1000), 2**31 - 1)  # a C int
    begun = clock.now()
    capture = cv.open_capture(
        uri,
        cv2.CAP_FFMPEG,
        # Both timeouts hold only if given here. One thread: each further one holds back a frame, a hidden latency.
        parameters=(
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds),
            *(cv2.CAP_PROP_N_THREADS, 1),
        ),
        ffmpeg_options=cv.user_ffmpeg_options() or _OPTIONS,
    )
    if capture is None:
        cure = "check the address, the user and password, and that the camera is on"
        raise SourceError(f"no stream from {name} after {clock.now() - begun:.1f} s ({cure})")
    if cv.pixels(capture) > cv.MAX_PIXELS:
        capture.release()
        raise SourceError(f"frames too large: {name} sends more than {cv.MAX_PIXELS} pixels (choose a smaller stream)")
    cure = "check the camera and the network"
    return LiveSource(name, capture, cv.frame_rate(capture), patience=timeout, cure=cure, clock=clock)
