"""Opens the source of a URI. The URIs follow jetson-utils."""

from __future__ import annotations

import importlib.resources
import math
import os
import re
import stat
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from framecast.camera.csi import open_csi
from framecast.camera.digits import Digits, parse_drift
from framecast.camera.images import SUFFIXES, is_pattern, open_folder, open_image, open_pattern
from framecast.camera.network import SCHEMES, answers, open_address
from framecast.camera.reconnect import reconnecting
from framecast.camera.source import Source, plausible_rate
from framecast.camera.stdin import open_stdin
from framecast.camera.synthetic import Synthetic, parse_scene
from framecast.camera.video import open_file
from framecast.camera.webcam import is_webcam, open_number, open_v4l2
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError, SourceError
from framecast.redact import redact

_RATE = re.compile(r"(.+)\?fps=(.*)", re.DOTALL)
REACHED = 1.0  # seconds in which the host of a lost camera must answer before it is opened again
_NUMBER = re.compile(r"[0-9]{1,3}")  # of a webcam
_CAMERAS = ("v4l2", "csi", *SCHEMES)
_KNOWN = (
    "a video file, a folder or glob of images, a webcam's number, -, demo, synthetic://, mnist://, file://, v4l2://, "
    "csi://, " + ", ".join(f"{scheme}://" for scheme in SCHEMES)
)


def open_source(
    uri: str | os.PathLike[str],
    *,
    loop: bool = False,
    fps: float | None = None,
    timeout: float = 15.0,
    stall: float = 2.5,
    sender_clock: bool = True,
    reconnect: bool = False,
    clock: Clock = SYSTEM,
) -> Source:
    """Open a camera, a stream, a clip or a folder of images.

    ===============================  ==============================================================================
    ``0``, ``/dev/video0``           a webcam by number or device
    ``v4l2:///dev/video0``           the same, with options: ``v4l2:///dev/video0?size=1280x720&fps=60&format=mjpg``
    ``csi://0``                      a Jetson's CSI camera: ``csi://0?size=1280x720&fps=30&flip=0``
    ``rtsp://user:pw@host/path``     a network camera, over TCP where it can; also ``rtsps://``
    ``http://host/stream.mjpg``      MJPEG, HLS or a file of a web server; also ``https://``
    ``rtmp://…``, ``udp://…``        a stream; also ``rtmps://``, and ``srt://`` where FFmpeg has it
    ``-``                            standard input: H.264, MJPEG, MPEG-TS, … as from ``rpicam-vid -o -``
    ``clip.mp4``, ``file:///clip``   a video file
    ``frames/``, ``frames/*.png``    a folder or glob of images in natural order; ``img_%04d.png``; or one image
    ``frames/?fps=10``               files and images at so many frames a second, whatever their time stamps say
    ``synthetic://``                 moving shapes: ``synthetic://?size=320x240&fps=30&frames=300&seed=1``
    ``mnist://``                     Moving MNIST without end: ``mnist://?digits=2&seed=1``, ``mnist:///IDX_FILE?fps=10``
    ``demo``                         the clip that ships with framecast
    ===============================  ==============================================================================

    To open a file called ``0``, ``-`` or ``demo``, write ``./0``, ``./-`` or ``./demo``.

    Args:
        uri: one of these. A path object is always a file or folder.
        loop: restart a clip at its end, in a new epoch; time and index keep counting. It does not affect a camera,
            which has no end.
        fps: the same as ``?fps=`` (default: by the time stamps of the file; 25 a second without). It does not affect a
            camera.
        timeout: seconds that a camera may take to answer, or for its first frame (default: 15).
        stall: seconds that it may take for each later frame (default: 2.5). A webcam has 2.
        sender_clock: believe the clock of a network camera that tells when it captured a frame (RTSP, by RTCP sender
            reports): the frame's time is then its capture. Its clock and this machine's must be set by NTP. A time in
            the future, or more than 2 s ago, is not believed.
        reconnect: open a camera again when it was lost, for as long as it takes; each time begins a new epoch. It does
            not affect standard input, and what is no camera.
        clock: stamps a camera's frames with their grab time.

    Returns:
        The opened source. Close it, or use it in a ``with``.

    Raises:
        SourceError: it cannot be opened. The message gives the reason and the cure in one line, without credentials.
        OptionError: the timeout, the stall or the rate is not a positive number.
    """
    for name, value in (("timeout", timeout), ("stall", stall), ("fps", 1.0 if fps is None else fps)):
        if not (0 < value < math.inf):
            raise OptionError(f"{name} is {value}: give a positive number")
    if reconnect and isinstance(uri, str) and uri != "-" and is_camera(uri):
        again = partial(
            open_source, uri, loop=loop, fps=fps, timeout=timeout, stall=stall, sender_clock=sender_clock, clock=clock
        )
        return reconnecting(redact(uri), again, answers=partial(answers, uri, REACHED), clock=clock)
    text = os.fspath(uri)
    if not isinstance(uri, str):
        return _open_path(text, loop, fps)
    if not text:
        raise SourceError(f"no source given (known: {_KNOWN})")
    if _NUMBER.fullmatch(text):
        return open_number(int(text), timeout=timeout, clock=clock)
    if is_webcam(text):
        return open_v4l2(text, timeout=timeout, clock=clock)
    if text == "-":
        return open_stdin(timeout=timeout, stall=stall, loop=loop, fps=fps, clock=clock)
    if text == "demo":
        return _open_demo(loop, fps)
    scheme = _scheme(text)
    if scheme is None:
        return _open_path(text, loop, fps)
    rest = text[len(scheme) + 1 :].removeprefix("//")
    match scheme:
        case "file":
            return _open_path(unquote(rest), loop, fps)
        case "v4l2":
            return open_v4l2(rest, timeout=timeout, clock=clock)
        case "csi":
            return open_csi(rest, timeout=timeout, stall=stall, clock=clock)
        case "synthetic":
            return Synthetic(parse_scene(text), loop=loop)
        case "mnist":
            return Digits(parse_drift(text), loop=loop)
        case _ if scheme in SCHEMES:
            address = f"{scheme}://{rest}"
            return open_address(
                address, timeout=timeout, stall=stall, loop=loop, fps=fps, sender_clock=sender_clock, clock=clock
            )
        case _:
            raise SourceError(f"unknown scheme in {redact(text)} (known: {_KNOWN})")


def is_camera(uri: str) -> bool:
    """Whether a URI names a camera. A camera has no end, can be open in one place only, and cannot be replayed.

    Args:
        uri: as for :func:`open_source`; it need not be valid.
    """
    return uri == "-" or bool(_NUMBER.fullmatch(uri)) or is_webcam(uri) or _scheme(uri) in _CAMERAS


def _scheme(uri: str) -> str | None:
    """The scheme of a URI in lower case, or None for a path. An existing file wins: its name may hold a colon."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", uri)
    return found[1].lower() if found and not _exists(uri) else None


def _open_path(text: str, loop: bool, fps: float | None) -> Source:
    text = os.path.expanduser(text)  # noqa: PTH111 (Path.expanduser raises where there is no such user)
    if (asked := _RATE.fullmatch(text)) and not _exists(text):
        return _open_path(asked[1], loop, _rate(asked[2]))
    path = Path(text)
    name = redact(text)
    try:
        # Check before opening: opening a named pipe blocks until somebody writes to it.
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if is_pattern(text):
            return open_pattern(text, loop=loop, fps=fps)
        raise SourceError(f"no such file: {name} (check the path, or use 'demo' for the shipped clip)") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or "not a path"
        raise SourceError(f"cannot read {name}: {reason} (check the path and its permissions)") from None
    if stat.S_ISDIR(mode):
        return open_folder(path, loop=loop, fps=fps)
    if not stat.S_ISREG(mode):
        raise SourceError(
            f"not a regular file: {name} (cannot play a pipe or device; open a camera as 0 or v4l2:///dev/video0)"
        )
    if path.stat().st_size == 0:
        raise SourceError(f"empty file: {name} (record or copy it again)")
    if not os.access(path, os.R_OK):
        raise SourceError(f"cannot read {name}: Permission denied (check its permissions)")
    if path.suffix.lower() in SUFFIXES:
        return open_image(path, loop=loop, fps=fps)
    return open_file(path, loop=loop, fps=fps)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if plausible_rate(rate) is None:
        raise OptionError(f"?fps={redact(text)}: give frames a second, such as ?fps=10")
    return rate


def _open_demo(loop: bool, fps: float | None) -> Source:
    clip = importlib.resources.files("framecast") / "assets" / "demo.mp4"
    with importlib.resources.as_file(clip) as path:
        if not path.is_file():
            raise SourceError("the demo clip is missing from this installation (install framecast again)")
        return open_file(path, name="demo", loop=loop, fps=fps)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
