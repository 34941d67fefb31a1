"""The number of frames of a clip, if known before reading it. Only for showing the progress."""

from __future__ import annotations

import glob
import importlib.resources
from pathlib import Path

from framecast.camera import cv
from framecast.camera.images import images_among
from framecast.camera.synthetic import parse_scene


def frames_in(place: str) -> int | None:
    """Return the number of frames of a clip that :func:`framecast.camera.open_source` has opened; None if unknown.

    A video's header states it, sometimes wrongly.
    """
    if place.startswith("synthetic:"):
        return parse_scene(place).frames
    if place == "demo":
        with importlib.resources.as_file(importlib.resources.files("framecast") / "assets" / "demo.mp4") as path:
            return _in_video(path)
    path = Path(place.removeprefix("file://"))
    if path.is_dir():
        return len(images_among(list(path.iterdir()))) or None
    return _in_video(path) if path.is_file() else len(glob.glob(place)) or None  # noqa: PTH207 (it may be absolute)


def _in_video(path: Path) -> int | None:
    cv2 = cv.load()
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    try:
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0.0
    finally:
        capture.release()
    return int(count) if 0 < count < 1e9 else None
