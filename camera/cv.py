"""OpenCV: loaded on first use, silent, and with bounded picture sizes."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from framecast.camera.source import plausible_rate
from framecast.errors import SourceError

if TYPE_CHECKING:
    import cv2

MAX_PIXELS = 8192 * 8192
"""Limit of a decoded picture. A small file can ask for gigabytes of memory."""

# OpenCV reads these once, most of them during its import. The user's own settings win: whoever asks FFmpeg for its
# trace (56) gets it, and the trace shows requests with their passwords.
_ENVIRONMENT = {
    "OPENCV_LOG_LEVEL": "SILENT",  # our errors explain what went wrong, in one line and without credentials
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2",  # seconds until a stalled camera is noticed (OpenCV's default: 10)
}
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

# FFmpeg's options and the log level are global to the process, so only one capture is opened at a time.
_opening = threading.Lock()


def load() -> ModuleType:
    """Import and return OpenCV's module, ``cv2``.

    Raises:
        SourceError: OpenCV or a system library that it needs is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import cv2
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        cure = "apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless in place of opencv-python"
        raise SourceError(f"OpenCV cannot be loaded: {reason} ({cure})") from error
    return cv2


def user_ffmpeg_options() -> str:
    """The user's OPENCV_FFMPEG_CAPTURE_OPTIONS, or an empty string."""
    with _opening:
        return os.environ.get(_FFMPEG_OPTIONS, "")


def open_capture(
    target: str | int, backend: int, *, parameters: Sequence[int] = (), ffmpeg_options: str = ""
) -> cv2.VideoCapture | None:
    """Open a device, file or stream and print nothing on stderr. OpenCV's log would show a URL with its password.

    Args:
        target: a device number or path, a file path, or a URL.
        backend: one of OpenCV's ``CAP_…`` backends. OpenCV does not guess it.
        parameters: property, value, property, value, … to apply while it opens.
        ffmpeg_options: ``name;value|name;value`` for FFmpeg.

    Returns:
        The opened capture, or None.
    """
    cv = load()
    with _opening:
        users = os.environ.get(_FFMPEG_OPTIONS)
        log = getattr(cv.utils, "logging", None)  # OpenCV 4.8 has none: it relies on the environment above
        level = log.setLogLevel(log.LOG_LEVEL_SILENT) if log else None
        os.environ[_FFMPEG_OPTIONS] = ffmpeg_options
        try:
            capture: cv2.VideoCapture = cv.VideoCapture(target, backend, list(parameters))
        except cv.error:
            return None
        finally:
            if log:
                log.setLogLevel(level)
            if users is None:
                del os.environ[_FFMPEG_OPTIONS]
            else:
                os.environ[_FFMPEG_OPTIONS] = users
    return capture if capture.isOpened() else None


def frame_rate(capture: cv2.VideoCapture) -> float | None:
    """Nominal frames a second, or None if the file or camera gives no rate or an impossible one."""
    return plausible_rate(capture.get(load().CAP_PROP_FPS))


def pixels(capture: cv2.VideoCapture) -> int:
    """Pixels a frame, as the file or stream declares before decoding."""
    cv = load()
    return int(capture.get(cv.CAP_PROP_FRAME_WIDTH)) * int(capture.get(cv.CAP_PROP_FRAME_HEIGHT))
