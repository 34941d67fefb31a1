"""A Jetson's MIPI CSI camera, through NVIDIA's libargus and GStreamer. Only the newest frame is kept."""

from __future__ import annotations

import math
import os
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from framecast.camera import cv
from framecast.camera.live import LiveSource
from framecast.camera.pool import Pool
from framecast.camera.query import parse_options
from framecast.camera.source import Image
from framecast.clock import SYSTEM, Clock
from framecast.errors import SourceError
from framecast.redact import redact

EXAMPLE = "csi://0?size=1280x720&fps=30&flip=0"
LAUNCH = "gst-launch-1.0"
GRACE = 1.0  # seconds for a process to end by itself; killing it may leave nvargus-daemon stuck
_LINES = 20  # lines of GStreamer's output to keep for the error message

_RESTART = "sudo systemctl restart nvargus-daemon"
_LOST = f"check its ribbon cable; if it stays lost: {_RESTART}"

# GStreamer 1.22's messages, and libargus's as users report them: we had no libargus to test. The first match wins.
_REASONS = (
    (
        r'no element "nv\w+"',
        "GStreamer has no {0} here: csi:// needs an NVIDIA Jetson (there: sudo apt-get install nvidia-l4t-gstreamer; "
        "start a container with --runtime nvidia)",
    ),
    (r'no element "\w+"', "GStreamer has no {0} (sudo apt-get install gstreamer1.0-plugins-base)"),
    (
        r"connecting to nvargus-daemon failed|create camera ?provider",
        f"nvargus-daemon does not answer ({_RESTART}; start a container with -v /tmp/argus_socket:/tmp/argus_socket)",
    ),
    (
        r"no cameras available",
        "no CSI camera is connected (check its ribbon cable; choose the sensor with "
        "sudo /opt/nvidia/jetson-io/jetson-io.py, and reboot)",
    ),
    (r"invalid camera device", "there is no camera with this number (the first one is csi://0)"),
    (r"failed to create capturesession", f"another program is using it, or nvargus-daemon hangs ({_RESTART})"),
    (
        r"frame rate specified is greater|not-negotiated|could not link",
        "it does not support this size at this rate (list its modes with v4l2-ctl --list-formats-ext)",
    ),
)


@dataclass(frozen=True)
class Csi:
    """The options of ``csi://0?size=1280x720&fps=30&flip=0``. These values are the defaults.

    Attributes:
        sensor: camera number.
        width: width of the sensor's picture in pixels: even, 64 to 8192. A flip of 90° swaps it with the height.
        height: height in pixels, with the same limits.
        fps: frames a second, 1 to 240.
        flip: nvvidconv's flip-method: 1, 2, 3 turn by 90° counterclockwise, 180°, 90° clockwise; 4, 6 mirror
            horizontally, vertically; 5, 7 mirror at the diagonals.
    """

    sensor: int = 0
    width: int = 1280
    height: int = 720
    fps: int = 30
    flip: int = 0

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"csi://{self.sensor}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the output frames."""
        return (self.height, self.width) if self.flip % 2 else (self.width, self.height)


def parse_csi(rest: str) -> Csi:
    """Parse the rest of a ``csi://`` URI, after the scheme.

    Raises:
        SourceError: the camera is not a number, or an option is unknown, given twice or out of range.
    """
    number, _, query = rest.partition("?")
    options = parse_options(query)
    shown = redact(f"csi://{rest}")
    if unknown := options.keys() - {"size", "fps", "flip"}:
        raise SourceError(f"csi:// has no {redact(min(unknown))} (it takes size, fps and flip: {EXAMPLE})")
    try:
        width, height = map(int, options.get("size", f"{Csi.width}x{Csi.height}").split("x"))
        camera = Csi(int(number), width, height, int(options.get("fps", Csi.fps)), int(options.get("flip", Csi.flip)))
    except ValueError:
        raise SourceError(f"not numbers: {shown} (write it like {EXAMPLE})") from None
    even = all(64 <= side <= 8192 and side % 2 == 0 for side in (width, height))
    if not (even and 0 <= camera.sensor <= 99 and 1 <= camera.fps <= 240 and 0 <= camera.flip <= 7):
        ranges = "size even and 64x64 to 8192x8192, fps 1 to 240, flip 0 to 7"
        raise SourceError(f"out of range: {shown} ({ranges})")
    return camera


def elements(camera: Csi) -> str:
    """GStreamer's elements from the sensor to BGRx in CPU memory."""
    width, height = camera.size
    return (
        f"nvarguscamerasrc sensor-id={camera.sensor}"
        f" ! video/x-raw(memory:NVMM),width={camera.width},height={camera.height},framerate={camera.fps}/1,format=NV12"
        f" ! nvvidconv flip-method={camera.flip} ! video/x-raw,width={width},height={height},format=BGRx"
    )


def open_csi(rest: str, *, timeout: float, stall: float, clock: Clock = SYSTEM) -> LiveSource:
    """Open a camera on the CSI connector.

    Uses ``gst-launch-1.0``.

    Args:
        rest: ``0?size=1280x720&fps=30&flip=0``; see :class:`Csi`.
        timeout: seconds to wait for the first frame.
        stall: seconds to wait for each later frame.
        clock: stamps the frames with their grab time.

    Raises:
        SourceError: this is not a Jetson, something is missing, or the camera gives no frames.
    """
    camera = parse_csi(rest)
    if shutil.which(LAUNCH) is None:
        cure = "csi:// is for NVIDIA Jetson; there: sudo apt-get install gstreamer1.0-tools"
        raise SourceError(f"cannot open {camera.name}: there is no {LAUNCH} ({cure})")
    launch = _Launch(camera, stall)
    try:
        if not launch.wait(timeout):
            raise SourceError(_silent(camera, timeout))
        if launch.ended:
            raise SourceError(f"cannot open {camera.name}: {launch.reason()}")
    except BaseException:
        launch.release()
        raise
    return LiveSource(camera.name, launch, float(camera.fps), patience=stall, cure=_LOST, stop=launch.stop, clock=clock)


def _silent(camera: Csi, timeout: float) -> str:
    cure = f"{_RESTART}; another program may be using it; check its ribbon cable"
    return f"no frame from {camera.name} within {timeout:g} s ({cure})"


class _Launch:
    """``gst-launch-1.0``, which sends its frames through a pipe. They are BGRx, because its rows need no padding.

    If the reader is slow, one frame waits half in the pipe and the newest waits behind it. All others are dropped.

    Args:
        camera: what to open.
        patience: seconds that a grab waits for a frame.
    """

    def __init__(self, camera: Csi, patience: float) -> None:
        self.ended = False
        self._name = camera.name
        self._patience = patience
        self._pool = Pool()
        self._picture: Image = np.empty((*camera.size[::-1], 4), np.uint8)
        self._output: deque[str] = deque(maxlen=_LINES)
        self._pipe, ours = os.pipe()
        self._poll = select.poll()  # not select(): it accepts no descriptor above 1023
        self._poll.register(self._pipe, select.POLLIN)
        started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._minder = threading.Thread(
            target=self._mind, args=(elements(camera), ours, started), name="framecast-gst-launch", daemon=True
        )
        self._minder.start()
        started.wait()

    def wait(self, timeout: float) -> bool:
        """Wait until a frame begins to arrive or the process ends, which sets ``ended``; False on a timeout."""
        if not self._poll.poll(math.ceil(1000 * timeout)):
            return False
        self.ended = not self._arrives()
        return True

    def grab(self) -> bool:
        """Read a frame; returns whether it came in time.

        Raises:
            SourceError: the process has ended. The message gives the reason.
        """
        deadline = time.monotonic() + self._patience
        rest = self._picture.data.cast("B")
        while rest:
            if not self._poll.poll(max(0, math.ceil(1000 * (deadline - time.monotonic())))):
                return False
            if not (count := os.readv(self._pipe, [rest])):
                raise SourceError(f"lost {self._name}: {self.reason()}")
            rest = rest[count:]
        return True

    def stamp(self) -> None:
        """Frames come without stamps."""

    def retrieve(self) -> Image:
        cv2 = cv.load()
        image = self._pool.take((*self._picture.shape[:2], 3))
        cv2.cvtColor(self._picture, cv2.COLOR_BGRA2BGR, dst=image)
        return image

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # it releases the camera and ends

    def release(self) -> None:
        self.stop()
        deadline = time.monotonic() + GRACE
        while self._poll.poll(max(0, math.ceil(1000 * (deadline - time.monotonic())))):
            if not os.read(self._pipe, 1 << 20):  # drain the pipe: a pending write must not keep the process alive
                break
        self._minder.join(max(0.0, deadline - time.monotonic()))
        if self._minder.is_alive() and self._process is not None:
            self._process.kill()
            self._minder.join(GRACE)
        os.close(self._pipe)

    def reason(self) -> str:
        """Why the process ended, and what to do."""
        self._minder.join(GRACE)  # until it has read the last lines
        output = "\n".join(self._output)
        for pattern, reason in _REASONS:
            if found := re.search(pattern, output, re.IGNORECASE):
                return reason.format(found.group().rpartition(" ")[2].strip('"'))
        code = self._process.poll() if self._process is not None else None
        if code is not None and code < 0:
            return f"{LAUNCH} was ended by signal {-code} ({_LOST})"
        errors = [line for line in self._output if "error" in line.lower()] or [*self._output]
        return f"{redact(errors[0]) if errors else 'it ended or broke off'} ({_LOST})"

    def _arrives(self) -> bool:
        """Whether the pipe holds data after the wait; otherwise it was closed."""
        return bool(self._poll.poll(0)[0][1] & select.POLLIN)

    def _mind(self, source: str, pipe: int, started: threading.Event) -> None:
        """Start the process, read its output, and wait for it, so that it leaves no zombie.

        The process dies with the *thread* that started it (``setpriv``, from util-linux), so this thread stays until
        the process ends. Without setpriv, the process ends when it cannot write the next frame. It runs in its own
        session, so Ctrl-C does not reach it.
        """
        try:
            leaky = "queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0"
            pipeline = f"{source} ! {leaky} ! fdsink fd={pipe} sync=false"
            tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
            process = subprocess.Popen(  # noqa: S603 (it takes only numbers from the user)
                [*tied, LAUNCH, "--quiet", *pipeline.split()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
                pass_fds=[pipe],
                start_new_session=True,
                restore_signals=False,  # SIGPIPE stays ignored, so it ends cleanly when nobody reads
            )
            self._process = process
        except OSError as error:
            self._output.append(f"{LAUNCH} cannot be started: error {error.strerror}")
            return
        finally:
            os.close(pipe)
            started.set()
        with process:  # waits for the process at the end
            while process.stdout and (line := process.stdout.readline(500)):
                if text := line.decode(errors="replace").strip():
                    self._output.append(text)
