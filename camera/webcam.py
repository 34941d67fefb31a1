"""Cameras on this machine: V4L2, or the platform's equivalent."""

from __future__ import annotations

import math
import os
import re
import stat
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from framecast.camera import cv
from framecast.camera.jpegs import Jpegs
from framecast.camera.live import LiveSource
from framecast.camera.modes import FORMATS, JPEGS, USUAL, choose, list_modes
from framecast.camera.pool import Pool
from framecast.camera.query import parse_options
from framecast.camera.source import Image, plausible_rate
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError
from framecast.redact import redact

if TYPE_CHECKING:
    import cv2

EXAMPLE = "v4l2:///dev/video0?size=1280x720&fps=60&format=mjpg"
Decode = Callable[[NDArray[Any]], Image | None]
"""Decodes a raw picture, [bytes] or [1, bytes] or in rows, to uint8 [H, W, 3] BGR; None if it is damaged."""

_LOST = "check its cable; open the camera again after plugging it in"
_TIMED_OUT = 0.5  # seconds: a failed grab that took longer is a timeout of OpenCV, which counts whole seconds
_DAMAGED = 100  # damaged pictures in a row: the camera sends nothing else
_MAJOR = 81  # of V4L2's devices on Linux

# OpenCV's log level is global to the process, so only one camera is opened at a time.
_opening = threading.Lock()


@dataclass(frozen=True)
class Webcam:
    """The options of ``v4l2:///dev/video0?size=1280x720&fps=60&format=mjpg``.

    Attributes:
        device: path.
        size: width and height in pixels, 16 to 8192 each; None for 640x480, or the size nearest to it.
        fps: frames a second, 1 to 1000; None for the highest rate at this size.
        format: FourCC, one of :data:`framecast.camera.modes.FORMATS`; None for the one with the highest rate.
    """

    device: str
    size: tuple[int, int] | None = None
    fps: int | None = None
    format: str | None = None


def parse_v4l2(rest: str) -> Webcam:
    """Parse the rest of a ``v4l2://`` URI, after the scheme.

    Raises:
        SourceError: an option is unknown, given twice, no number, or out of range.
    """
    device, _, query = rest.partition("?")
    options = parse_options(query)
    shown = redact(f"v4l2://{rest}")
    if unknown := options.keys() - {"size", "fps", "format"}:
        raise SourceError(f"v4l2:// has no {redact(min(unknown))} (it takes size, fps and format: {EXAMPLE})")
    try:
        width, height = map(int, options["size"].split("x")) if "size" in options else USUAL
        fps = int(options["fps"]) if "fps" in options else None
    except ValueError:
        raise SourceError(f"not numbers: {shown} (write it like {EXAMPLE})") from None
    if not (16 <= width <= 8192 and 16 <= height <= 8192 and 1 <= (fps or 1) <= 1000 and fps != 0):
        raise SourceError(f"out of range: {shown} (size 16x16 to 8192x8192, fps 1 to 1000)")
    fourcc = options["format"].upper() if "format" in options else None
    if fourcc not in (None, *FORMATS):
        raise SourceError(f"unknown format: {shown} (it takes {', '.join(FORMATS).lower()})")
    return Webcam(device, (width, height) if "size" in options else None, fps, fourcc)


class WebcamCapture:
    """OpenCV's capture as :class:`LiveSource` reads it: see :class:`framecast.camera.live.Capture`.

    Args:
        capture: the opened capture.
        device: its path, if it has one. Its position in milliseconds is then the driver's stamp, on the machine's
            monotonic clock.
        timeout: seconds to wait for the first frame. OpenCV's own timeout holds for the others.
        decode: decodes the pictures, if the capture gives them raw.
        faults: counts the pictures that could not be decoded, as "damaged".
        clock: measures the timeout.
    """

    def __init__(
        self,
        capture: cv2.VideoCapture,
        *,
        device: str | None = None,
        timeout: float = math.inf,
        decode: Decode | None = None,
        faults: Counter[str] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._capture = capture
        self._device = device
        self._timeout = timeout
        self._decode = decode
        self._faults: Counter[str] = Counter() if faults is None else faults
        self._clock = clock
        self._pool = Pool()
        self._shape: tuple[int, ...] | None = None  # of the last frame; the next one is decoded into this shape
        self._picture: Image | None = None  # decoded from the grabbed raw one
        self._position = cv.load().CAP_PROP_POS_MSEC
        self._begun = False
        self._stopped = False
        self._reason = "it ended or broke off"

    def grab(self) -> bool:
        """See :meth:`Capture.grab`. A damaged picture is left out."""
        for _ in range(_DAMAGED):
            if not self._next():
                return False
            self._begun = True
            if self._decode is None:
                return True
            more, data = self._capture.retrieve()
            self._picture = self._decode(data) if more and data is not None else None
            if self._picture is not None:
                return True
            self._faults["damaged"] += 1
        self._reason = f"{_DAMAGED} damaged pictures in a row"
        return False

    def stamp(self) -> float | None:
        """See :meth:`Capture.stamp`."""
        return 1e-3 * self._capture.get(self._position) if self._device else None

    def retrieve(self) -> Image | None:
        """See :meth:`Capture.retrieve`."""
        if self._decode is not None:
            picture, self._picture = self._picture, None
            return picture
        more, image = self._capture.retrieve(self._pool.take(self._shape) if self._shape else None)
        if not more or image is None:
            return None
        self._shape = image.shape
        return image  # type: ignore[return-value]  # OpenCV's stubs allow any dtype

    def reason(self) -> str:
        """See :meth:`Capture.reason`."""
        return self._reason

    def stop(self) -> None:
        """Wait for no further frame. May be called from any thread; a running grab returns at OpenCV's timeout."""
        self._stopped = True

    def release(self) -> None:
        """See :meth:`Capture.release`."""
        self._capture.release()

    def _next(self) -> bool:
        """Grab a frame. For the first one OpenCV's timeout is too short: some cameras take longer to start."""
        begun = self._clock.now()
        while not self._stopped:
            before = self._clock.now()
            if self._capture.grab():
                return True
            now = self._clock.now()
            if self._device and not Path(self._device).exists():
                self._reason = "it was unplugged"
                return False
            if now - before < _TIMED_OUT:
                return False
            if self._begun or now - begun >= self._timeout:
                self._reason = f"no {'' if self._begun else 'first '}frame in {now - begun:.0f} s"
                return False
        return False


def is_webcam(path: str) -> bool:
    """Whether a path is a V4L2 device, or would be one if it existed: ``/dev/video0``, ``/dev/v4l/by-id/…``.

    ``?`` and options may follow it.
    """
    if re.match(r"/dev/(video\d|v4l/)", path):
        return True
    try:
        there = Path(path.partition("?")[0]).stat()
    except (OSError, ValueError):
        return False
    return sys.platform == "linux" and stat.S_ISCHR(there.st_mode) and os.major(there.st_rdev) == _MAJOR


def open_number(number: int, *, timeout: float, clock: Clock = SYSTEM) -> LiveSource:
    """Open a camera by number: /dev/video<number> on Linux, elsewhere whichever OpenCV finds.

    Args:
        number: of the camera.
        timeout: seconds to wait for the first frame.
        clock: stamps the frames.

    Raises:
        SourceError: there is no such camera, or it cannot be opened.
    """
    if sys.platform == "linux":
        return open_v4l2(f"/dev/video{number}", timeout=timeout, clock=clock)
    capture = _open(number, cv.load().CAP_ANY)
    if capture is None:
        raise SourceError(f"no camera {number} (check its cable and this program's permission to use it)")
    rate = plausible_rate(capture.get(cv.load().CAP_PROP_FPS))
    reader = WebcamCapture(capture, timeout=timeout, clock=clock)
    return LiveSource(f"camera {number}", reader, rate, cure=_LOST, stop=reader.stop, clock=clock)


def open_v4l2(rest: str, *, timeout: float, clock: Clock = SYSTEM) -> LiveSource:
    """Open a camera by device: ``/dev/video0``, or a stable name, ``/dev/v4l/by-id/…``; options may follow.

    A stalled camera is lost after 2 s; OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT in the environment changes that. We keep its
    four buffers: a thread that reads continuously finds them empty. A single buffer would leave the driver none to
    fill between grabs, because OpenCV returns it only at the next grab.

    Frames have the driver's stamps: OpenCV gives ``v4l2_buffer.timestamp`` of the grabbed buffer, which current drivers
    take from CLOCK_MONOTONIC, as ``time.monotonic`` does (``modules/videoio/src/cap_v4l.cpp``, ``read_frame_v4l2`` and
    ``CAP_PROP_POS_MSEC``).

    Args:
        rest: ``/dev/video0?size=1280x720&fps=60&format=mjpg``; see :class:`Webcam`. Without a format: the one with
            the highest rate at the size. A size or rate that the driver does not have becomes its nearest one. The
            source's notes say what it gives.
        timeout: seconds to wait for the first frame.
        clock: stamps the frames if the driver does not.

    Raises:
        SourceError: there is no such device, it is not a camera, it cannot be opened, or has no such format.
    """
    camera = parse_v4l2(rest)
    name = redact(camera.device)
    _check(camera.device, name)
    wanted = camera.size or USUAL
    modes = list_modes(camera.device, wanted)
    mode = choose([one for one in modes if camera.format in (None, one.format)], wanted, camera.fps)
    if modes and mode is None:
        asked = camera.format or f"any of {', '.join(FORMATS)}"
        there = [one.format for one in modes if one.format in FORMATS] or [one.format for one in modes]
        raise SourceError(f"the camera {name} does not give {asked} (it gives {', '.join(there)})")
    capture = _open(camera.device, cv.load().CAP_V4L2)
    if capture is None:
        cure = "another program may be using it, or it gives no pictures: try another device, such as /dev/video0"
        raise SourceError(f"cannot open the camera {name} ({cure})")
    if mode is None:  # the driver lists nothing
        _set(capture, camera.format, camera.size, camera.fps)
    else:
        _set(capture, mode.format, mode.size or camera.size, camera.fps or math.ceil(mode.fps or 0))
    given = _Given.of(capture)
    faults: Counter[str] = Counter()
    notes = [f"{name} gives {given}{given.differs(camera)}"]
    decode: Decode | None = None
    if given.format in JPEGS:
        decode = Jpegs(notes).picture
    elif given.format in ("NV12", "NV21"):
        decode = _nv(given.format, given.size)
    if decode is not None:
        capture.set(cv.load().CAP_PROP_CONVERT_RGB, 0)
    reader = WebcamCapture(capture, device=camera.device, timeout=timeout, decode=decode, faults=faults, clock=clock)
    return LiveSource(name, reader, given.fps, cure=_LOST, stop=reader.stop, clock=clock, faults=faults, notes=notes)


@dataclass(frozen=True)
class _Given:
    """What the driver gives."""

    format: str
    size: tuple[int, int]
    fps: float | None

    @classmethod
    def of(cls, capture: cv2.VideoCapture) -> _Given:
        library = cv.load()
        fourcc = int(capture.get(library.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("latin-1").rstrip()
        width, height = (int(capture.get(one)) for one in (library.CAP_PROP_FRAME_WIDTH, library.CAP_PROP_FRAME_HEIGHT))
        return cls(fourcc, (width, height), plausible_rate(capture.get(library.CAP_PROP_FPS)))

    def __str__(self) -> str:
        rate = "an unknown rate" if self.fps is None else f"{self.fps:.4g} frames a second"
        return f"{_size(self.size)} {self.format} at {rate}"

    def differs(self, camera: Webcam) -> str:
        """What was asked for and is not given, to follow it; empty if nothing."""
        asked = [
            *([_size(camera.size)] if camera.size not in (None, self.size) else []),
            *([camera.format] if camera.format not in (None, self.format) else []),
            *([f"{camera.fps} frames a second"] if camera.fps and round(self.fps or 0) != camera.fps else []),
        ]
        return f"; asked for: {', '.join(map(str, asked))}" if asked else ""


def _size(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))


def _set(capture: cv2.VideoCapture, fourcc: str | None, size: tuple[int, int] | None, fps: int | None) -> None:
    """Ask the driver for a mode. The driver may give another one."""
    library = cv.load()
    if fourcc:
        capture.set(library.CAP_PROP_FOURCC, library.VideoWriter.fourcc(*fourcc.ljust(4)))
    if size:
        capture.set(library.CAP_PROP_FRAME_WIDTH, size[0])  # OpenCV waits for the height
        capture.set(library.CAP_PROP_FRAME_HEIGHT, size[1])
    if fps:
        capture.set(library.CAP_PROP_FPS, fps)


def _nv(fourcc: str, size: tuple[int, int]) -> Decode:
    """Convert NV12 or NV21. OpenCV 4.8's own conversion gives RGB, not BGR."""
    library = cv.load()
    code = library.COLOR_YUV2BGR_NV12 if fourcc == "NV12" else library.COLOR_YUV2BGR_NV21
    pool = Pool()
    width, height = size

    def decode(data: NDArray[Any]) -> Image | None:
        if data.size != width * height * 3 // 2:
            return None
        image: Image = library.cvtColor(data.reshape(-1, width), code, dst=pool.take((height, width, 3)))
        return image

    return decode


def _check(device: str, name: str) -> None:
    """Check that a device can be opened.

    Raises:
        SourceError: it is not there, is none, or there is no permission.
    """
    try:
        is_device = stat.S_ISCHR(Path(device).stat().st_mode)
    except (OSError, ValueError):
        there = sorted(map(str, Path("/dev").glob("video*")), key=lambda path: (len(path), path))
        here = " ".join(there) or "none"
        raise SourceError(
            f"no camera {name} (cameras here: {here}; plug one in; start a container with --device /dev/video0)"
        ) from None
    if not is_device:
        raise SourceError(f"not a device: {name} (name a camera's device, such as v4l2:///dev/video0)")
    if not os.access(device, os.R_OK | os.W_OK):
        raise SourceError(f"no permission for {name} (join its group: sudo usermod -aG video $USER, and log in again)")


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
