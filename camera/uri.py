"""From a URI to a source. The URIs are those of jetson-utils."""

from __future__ import annotations

import importlib.resources
import math
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote

from framecast.camera.csi import open_csi
from framecast.camera.files import VideoFile
from framecast.camera.images import SUFFIXES, Images, open_folder, open_glob
from framecast.camera.rtsp import open_rtsp
from framecast.camera.source import Source
from framecast.camera.synthetic import Synthetic, parse_scene
from framecast.camera.webcam import open_number, open_v4l2
from framecast.clock import SYSTEM, Clock
from framecast.errors import OptionError, SourceError
from framecast.redact import redact

_NUMBER = re.compile(r"[0-9]{1,3}")  # of a webcam
_CAMERAS = ("v4l2", "csi", "rtsp", "rtsps")
_KNOWN = (
    "a video file, a folder or glob of images, a webcam's number, demo, file://, v4l2://, csi://, rtsp://, rtsps:// "
    "and synthetic://"
)


def open_source(
    uri: str | os.PathLike[str], *, loop: bool = False, timeout: float = 5.0, clock: Clock = SYSTEM
) -> Source:
    """Open a camera, a stream, a clip or a folder of images.

    ===============================  ==============================================================================
    ``0``                            a webcam by its number; as ``v4l2:///dev/video0``
    ``v4l2:///dev/video0``           a camera at this machine
    ``csi://0``                      a Jetson's CSI camera: ``csi://0?size=1280x720&fps=30&flip=0``
    ``rtsp://user:pw@host/path``     a network camera, over TCP; also ``rtsps://``
    ``clip.mp4``, ``file:///clip``   a video file; 25 frames a second where it does not say
    ``frames/``, ``frames/*.png``    a folder or glob of images, sorted as people count, 25 frames a second; one image
    ``synthetic://``                 moving shapes: ``synthetic://?size=320x240&fps=30&frames=300&seed=1``
    ``demo``                         the clip that ships with framecast
    ===============================  ==============================================================================

    A file that is called ``0`` or ``demo`` is opened as ``./0``, ``./demo``.

    Args:
        uri: one of these. A path object is always a file or folder.
        loop: start a clip over at its end, with a new epoch; time and index go on. A camera has no end: there it means
            nothing.
        timeout: seconds that a network or CSI camera may take to answer, and to send each frame.
        clock: on which a camera's frames say when they were grabbed.

    Returns:
        The source, opened; close it, or use it in a ``with``.

    Raises:
        SourceError: it cannot be opened. The message says in one line why, and what to do; credentials are not in it.
        OptionError: the timeout is no positive number.
    """
    if not (0 < timeout < math.inf):
        raise OptionError(f"timeout is {timeout}: give a positive number of seconds")
    text = os.fspath(uri)
    if not isinstance(uri, str):
        return _open_path(text, loop)
    if not text:
        raise SourceError(f"no source given (known: {_KNOWN})")
    if _NUMBER.fullmatch(text):
        return open_number(int(text), clock=clock)
    if text == "demo":
        return _open_demo(loop)
    scheme = _scheme(text)
    if scheme is None:
        return _open_path(text, loop)
    rest = text[len(scheme) + 1 :].removeprefix("//")
    match scheme:
        case "file":
            return _open_path(unquote(rest), loop)
        case "v4l2":
            return open_v4l2(rest, clock=clock)
        case "csi":
            return open_csi(rest, timeout=timeout, clock=clock)
        case "rtsp" | "rtsps":
            return open_rtsp(f"{scheme}://{rest}", timeout=timeout, clock=clock)
        case "synthetic":
            return Synthetic(parse_scene(text), loop=loop)
        case _:
            raise SourceError(f"unknown scheme in {redact(text)} (known: {_KNOWN})")


def is_camera(uri: str) -> bool:
    """Whether a URI names a camera: one has no end, may be open in one place only, and cannot be played twice.

    Args:
        uri: as :func:`open_source` takes it; it need not be valid.
    """
    return bool(_NUMBER.fullmatch(uri)) or (_scheme(uri) in _CAMERAS)


def _scheme(uri: str) -> str | None:
    """The scheme of a URI in small letters, or None for a path. A file's name may hold a colon."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", uri)
    return found[1].lower() if found and not _exists(uri) else None


def _open_path(text: str, loop: bool) -> Source:
    path = Path(text)
    name = redact(text)
    try:
        # Looked at before it is opened: to open a named pipe is to wait for somebody who writes to it.
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if any(character in text for character in "*?["):
            return open_glob(text, loop=loop)
        raise SourceError(f"no such file: {name} (check the path, or use 'demo' for the clip that ships)") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or "not a path"
        raise SourceError(f"cannot read {name}: {reason} (check the path and its permissions)") from None
    if stat.S_ISDIR(mode):
        return open_folder(path, loop=loop)
    if not stat.S_ISREG(mode):
        raise SourceError(
            f"not a regular file: {name} (a pipe or device cannot be played; a camera is v4l2:///dev/video0)"
        )
    if path.stat().st_size == 0:
        raise SourceError(f"empty file: {name} (record or copy it again)")
    if not os.access(path, os.R_OK):
        raise SourceError(f"cannot read {name}: Permission denied (check its permissions)")
    if path.suffix.lower() in SUFFIXES:
        return Images(name, [path], loop=loop)
    return VideoFile(path, loop=loop)


def _open_demo(loop: bool) -> Source:
    clip = importlib.resources.files("framecast") / "assets" / "demo.mp4"
    with importlib.resources.as_file(clip) as path:
        if not path.is_file():
            raise SourceError("the demo clip is missing from this installation (install framecast again)")
        return VideoFile(path, name="demo", loop=loop)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
