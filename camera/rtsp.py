"""Network cameras: RTSP through OpenCV's FFmpeg."""

from __future__ import annotations

import math

from framecast.camera import cv
from framecast.camera.live import LiveSource
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError
from framecast.redact import redact

# TCP: at 1 % packet loss over UDP, a fifth of the frames are visibly corrupt, and no read reports it.
# analyzeduration, in µs: the first frame arrives after 0.2 s instead of 1.2 s.
_OPTIONS = "rtsp_transport;tcp|analyzeduration;100000"


def open_rtsp(uri: str, *, timeout: float, clock: Clock = SYSTEM) -> LiveSource:
    """Open a stream over TCP. OPENCV_FFMPEG_CAPTURE_OPTIONS in the environment replaces our options.

    Args:
        uri: ``rtsp://user:password@host:port/path``, or ``rtsps://``.
        timeout: seconds that opening may take, and each read. It does not cover a name server that does not answer,
            because nothing can interrupt the system's resolver.
        clock: stamps the frames with their grab time.

    Raises:
        SourceError: the camera does not answer, refuses, or sends no video.
    """
    name = redact(uri)
    if not uri.isprintable():
        raise SourceError(f"not a URL: {name} (percent-encode its special characters)")
    cv2 = cv.load()
    milliseconds = min(math.ceil(timeout * 1000), 2**31 - 1)  # a C int
    begun = clock.now()
    capture = cv.open_capture(
        uri,
        cv2.CAP_FFMPEG,
        # The timeouts work only if set here. One thread: each further one holds back a frame, which is hidden latency.
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
