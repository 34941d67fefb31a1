"""Cameras at this machine: V4L2, or what the platform has in its place."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from framecast.camera import cv
from framecast.camera.live import LiveSource
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError
from framecast.redact import redact

_LOST = "check its cable; a camera that was unplugged comes back when it is opened again"


def open_number(number: int, *, clock: Clock = SYSTEM) -> LiveSource:
    """A camera by its number: on Linux /dev/video<number>, elsewhere what OpenCV finds.

    Raises:
        SourceError: there is no such camera, or it cannot be opened.
    """
    if sys.platform == "linux":
        return open_v4l2(f"/dev/video{number}", clock=clock)
    capture = cv.open_capture(number, cv.load().CAP_ANY)
    if capture is None:
        raise SourceError(f"no camera {number} (check its cable, and that this program may use the camera)")
    return LiveSource(f"camera {number}", capture, cv.frame_rate(capture), cure=_LOST, clock=clock)


def open_v4l2(device: str, *, clock: Clock = SYSTEM) -> LiveSource:
    """A camera by its device: ``/dev/video0``, or a name that stays, ``/dev/v4l/by-id/…``.

    A camera that stalls is lost after 2 s (OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT in the environment says otherwise). Its
    four buffers stay: a thread that reads all the time finds them empty, and a single one, which OpenCV gives back only
    at the next grab, leaves the driver none to fill in between.

    Raises:
        SourceError: there is no such device, it is no camera, or it cannot be opened.
    """
    name = redact(device)
    try:
        is_device = stat.S_ISCHR(Path(device).stat().st_mode)
    except (OSError, ValueError):
        here = " ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise SourceError(
            f"no camera {name} (cameras here: {here}; plug one in; a container is started with --device /dev/video0)"
        ) from None
    if not is_device:
        raise SourceError(f"not a device: {name} (a camera is one such as v4l2:///dev/video0)")
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(f"no permission for {name} (join its group: sudo usermod -aG video $USER, and log in again)")
    capture = cv.open_capture(device, cv.load().CAP_V4L2)
    if capture is None:
        cure = "another program may be using it, or it gives no pictures: try its neighbour, /dev/video0"
        raise SourceError(f"cannot open the camera {name} ({cure})")
    return LiveSource(name, capture, cv.frame_rate(capture), cure=_LOST, clock=clock)
