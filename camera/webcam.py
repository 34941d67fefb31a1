"""Cameras on this machine: V4L2, or the platform's equivalent."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from framecast.camera import cv
from framecast.camera.live import LiveSource
from framecast.camera.pool import Pool
from framecast.camera.source import Image, plausible_rate
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError
from framecast.redact import redact

if TYPE_CHECKING:
    import cv2

_LOST = "check its cable; open the camera again after plugging it in"

# OpenCV's log level is global to the process, so only one camera is opened at a time.
_opening = threading.Lock()


class WebcamCapture:
    """OpenCV's capture as :class:`LiveSource` reads it: see :class:`framecast.camera.live.Capture`.

    Args:
        capture: the opened capture.
        stamped: whether its position in milliseconds is the driver's stamp, on the machine's monotonic clock.
    """

    def __init__(self, capture: cv2.VideoCapture, *, stamped: bool) -> None:
        self._capture = capture
        self._stamped = stamped
        self._pool = Pool()
        self._shape: tuple[int, ...] | None = None  # of the last frame; the next one is decoded into this shape
        self._position = cv.load().CAP_PROP_POS_MSEC

    def grab(self) -> bool:
        """See :meth:`Capture.grab`."""
        return self._capture.grab()

    def stamp(self) -> float | None:
        """See :meth:`Capture.stamp`."""
        return 1e-3 * self._capture.get(self._position) if self._stamped else None

    def retrieve(self) -> Image | None:
        """See :meth:`Capture.retrieve`."""
        more, image = self._capture.retrieve(self._pool.take(self._shape) if self._shape else None)
        if not more or image is None:
            return None
        self._shape = image.shape
        return image  # type: ignore[return-value]  # OpenCV's stubs allow any dtype

    def reason(self) -> str:
        """See :meth:`Capture.reason`."""
        return "it ended or broke off"

    def release(self) -> None:
        """See :meth:`Capture.release`."""
        self._capture.release()


def open_number(number: int, *, clock: Clock = SYSTEM) -> LiveSource:
    """Open a camera by number: /dev/video<number> on Linux, elsewhere whichever OpenCV finds.

    Raises:
        SourceError: there is no such camera, or it cannot be opened.
    """
    if sys.platform == "linux":
        return open_v4l2(f"/dev/video{number}", clock=clock)
    capture = _open(number, cv.load().CAP_ANY)
    if capture is None:
        raise SourceError(f"no camera {number} (check its cable and this program's permission to use it)")
    return _live(f"camera {number}", capture, stamped=False, clock=clock)


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
    capture = _open(device, cv.load().CAP_V4L2)
    if capture is None:
        cure = "another program may be using it, or it gives no pictures: try another device, such as /dev/video0"
        raise SourceError(f"cannot open the camera {name} ({cure})")
    return _live(name, capture, stamped=True, clock=clock)


def _open(target: str | int, backend: int) -> cv2.VideoCapture | None:
    """Open a device with one of OpenCV's backends, which prints nothing; None if it cannot."""
    library = cv.load()
    with _opening:
        log = getattr(library.utils, "logging", None)  # OpenCV 4.8 has none: it relies on the environment
        level = log.setLogLevel(log.LOG_LEVEL_SILENT) if log else None
        try:
            capture: cv2.VideoCapture = library.VideoCapture(target, backend)
        except library.error:
            return None
        finally:
            if log:
                log.setLogLevel(level)
    return capture if capture.isOpened() else None


def _live(name: str, capture: cv2.VideoCapture, *, stamped: bool, clock: Clock) -> LiveSource:
    rate = plausible_rate(capture.get(cv.load().CAP_PROP_FPS))
    return LiveSource(name, WebcamCapture(capture, stamped=stamped), rate, cure=_LOST, clock=clock)
