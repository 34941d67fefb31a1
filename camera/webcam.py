"""Cameras on this machine: V4L2, or the platform's equivalent."""

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

_LOST = "check its cable; open the camera again after plugging it in"


def open_number(number: int, *, clock: Clock = SYSTEM) -> LiveSource:
    """Open a camera by number: /dev/video<number> on Linux, elsewhere whichever OpenCV finds.

    Raises:
        SourceError: there is no such camera, or it cannot be opened.
    """
    if sys.platform == "linux":
        return open_v4l2(f"/dev/video{number}", clock=clock)
    capture = cv.open_capture(number, cv.load().CAP_ANY)
    if capture is None:
        raise SourceError(f"no camera {number} (check its cable and this program's permission to use it)")
    return LiveSource(f"camera {number}", capture, cv.frame_rate(capture), cure=_LOST, clock=clock)


def open_v4l2(device: str, *, clock: Clock = SYSTEM) -> LiveSource:
    """Open a camera by device: ``/dev/video0``, or a stable name, ``/dev/v4l/by-id/…``.

    A stalled camera is lost after 2 s; OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT in the environment changes that. We keep its
    four buffers: a thread that reads continuously finds them empty. A single buffer would leave the driver none to
    fill between grabs, because OpenCV returns it only at the next grab.

    Frames have the driver's stamps: OpenCV gives ``v4l2_buffer.timestamp`` of the grabbed buffer, which current drivers
    take from CLOCK_MONOTONIC, as ``time.monotonic`` does (``modules/videoio/src/cap_v4l.cpp``, ``read_frame_v4l2`` and
    ``CAP_PROP_POS_MSEC``).

    Raises:
        SourceError: there is no such device, it is not a camera, or it cannot be opened.
    """
    name = redact(device)
    try:
        is_device = stat.S_ISCHR(Path(device).stat().st_mode)
    except (OSError, ValueError):
        here = " ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise SourceError(
            f"no camera {name} (cameras here: {here}; plug one in; start a container with --device /dev/video0)"
        ) from None
    if not is_device:
        raise SourceError(f"not a device: {name} (name a camera's device, such as v4l2:///dev/video0)")
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(f"no permission for {name} (join its group: sudo usermod -aG video $USER, and log in again)")
    capture = cv.open_capture(device, cv.load().CAP_V4L2)
    if capture is None:
        cure = "another program may be using it, or it gives no pictures: try another device, such as /dev/video0"
        raise SourceError(f"cannot open the camera {name} ({cure})")
    return LiveSource(name, capture, cv.frame_rate(capture), cure=_LOST, stamped=True, clock=clock)
