"""OpenCV: loaded on first use, and silent."""

from __future__ import annotations

import os
from types import ModuleType

from framecast.errors import SourceError

# OpenCV reads these once, most of them during its import. The user's own settings win.
_ENVIRONMENT = {
    "OPENCV_LOG_LEVEL": "SILENT",  # our errors explain what went wrong, in one line and without credentials
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2",  # seconds until a stalled camera is noticed (OpenCV's default: 10)
}


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
