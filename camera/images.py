"""Images: a folder, a glob, a numbered pattern, or a single file with one or more pages."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import re
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from framecast.camera import cv
from framecast.camera.clip import Clip, Timed
from framecast.camera.media import MAX_PIXELS
from framecast.camera.pool import Pool
from framecast.camera.source import DEFAULT_FPS, Image, note
from framecast.camera.stretch import Stretch, composed
from framecast.errors import SourceError
from framecast.redact import redact

if TYPE_CHECKING:
    from PIL.Image import Image as Page

SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    *(".heic", ".heif", ".jxl"),  # refused by name
)
"""Suffixes of images, in upper or lower case."""

# Pillow's other formats include some that start a program (EPS).
_PAGED = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
_FORMATS = (*_PAGED, "BMP", "JPEG", "PPM")
_UNSUPPORTED = {".heic": "HEIC", ".heif": "HEIF", ".jxl": "JPEG XL"}
_INSTANT, _SLOW = 0.011, 0.1  # seconds: browsers show a page that is to last for less than the first for the second
_NUMBERED = re.compile(r"%0?([0-9]*)d")  # img_%04d.png


class Images(Clip):
    """Images as the frames of a clip. Each page of a TIFF, GIF, APNG, WebP or AVIF file is a frame.

    The pages of one animated file have the times that it stores. All else is played at a fixed rate.

    Pictures come as a viewer shows them: turned as their EXIF data says, with transparent pixels laid over black. Grey
    of 16 bits and floats are stretched: see :class:`framecast.camera.stretch.Stretch`. Colours of 16 bits keep their
    upper eight. An image that cannot be decoded is left out and counted, as ``damaged``; the others keep their times.

    Args:
        name: their name in messages.
        paths: the images, in order.
        loop: restart at the end instead of ending.
        fps: frames a second (default: as the file says; otherwise 25).
    """

    def __init__(self, name: str, paths: Sequence[Path], *, loop: bool = False, fps: float | None = None) -> None:
        super().__init__(name, fps or DEFAULT_FPS, loop)
        cv.load()
        _library()  # what is missing is said at once
        self._paths = paths
        self._stored = fps is None and len(paths) == 1
        self.length = len(paths) if len(paths) > 1 else None
        self._pool = Pool()
        self._stretch = Stretch(self.notes)
        self._rewind()

    def _next(self) -> Timed | None:
        return next(self._left, None)

    def _rewind(self) -> None:
        self._left = self._all()

    def _release(self) -> None:
        self._left.close()

    def _all(self) -> Generator[Timed, None, None]:
        count = 0
        for path in self._paths:
            time: float | None = 0.0 if self._stored else None
            try:
                for page, duration in _pages(path):
                    yield Timed(self._picture(page), count / self.fps if time is None else time)
                    time = None if time is None or duration is None else time + duration
                    count += 1
            except SourceError as error:
                if len(self._paths) == 1:
                    raise
                self.faults["damaged"] += 1
                note(self.notes, f"left out: {error}")
                count += 1

    def _picture(self, page: Page) -> Image:
        if page.mode in ("I", "F") or page.mode.startswith("I;16"):
            return self._stretch.picture(np.asarray(page))
        if page.has_transparency_data:
            rgba = np.asarray(page.convert("RGBA"))
            return composed(rgba[..., [2, 1, 0, 3]])
        rgb = np.asarray(page.convert("RGB"))
        image = self._pool.take(rgb.shape)
        cv2 = cv.load()
        cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR, dst=image)
        return image


def open_image(path: Path, *, loop: bool, fps: float | None) -> Images:
    """Open a single image."""
    return Images(redact(str(path)), [path], loop=loop, fps=fps)


def open_folder(folder: Path, *, loop: bool, fps: float | None) -> Images:
    """Open the images of a folder in natural order: img9 before img10.

    Raises:
        SourceError: the folder cannot be listed, or holds no images.
    """
    try:
        found = images_among(folder.iterdir())
    except OSError as error:
        raise SourceError(f"cannot list {redact(str(folder))}: {error.strerror} (check its permissions)") from None
    if not found:
        raise SourceError(f"no images in {redact(str(folder))} (looked for {' '.join(SUFFIXES)})")
    return Images(redact(str(folder)), found, loop=loop, fps=fps)


def is_pattern(text: str) -> bool:
    """Whether a path that does not exist is a pattern for :func:`open_pattern`."""
    return any(character in text for character in "*?[") or _NUMBERED.search(Path(text).name) is not None


def open_pattern(pattern: str, *, loop: bool, fps: float | None) -> Images:
    """Open the images that match a pattern, in natural order.

    Args:
        pattern: a glob (``frames/*.png``, ``**/left_*.jpg``), or a numbered name (``frames/img_%04d.png``). A folder
            that exists under a part of it is that folder, even if its name holds brackets.
        loop: see :class:`Images`.
        fps: see :class:`Images`.

    Raises:
        SourceError: the pattern matches no images, or is not a pattern.
    """
    folder, rest = _split(Path(pattern))
    try:
        if (numbered := _NUMBERED.search(rest)) is not None:
            digits = f"[0-9]{{{numbered[1]},}}" if numbered[1] else "[0-9]+"
            name = re.compile(re.escape(rest[: numbered.start()]) + digits + re.escape(rest[numbered.end() :]))
            found = images_among(path for path in folder.iterdir() if name.fullmatch(path.name))
        else:
            found = images_among(folder.glob(rest))
    except (OSError, ValueError):  # ValueError: "**" that is not a whole component
        found = []
    if not found:
        raise SourceError(f"no images match {redact(pattern)} (looked for {' '.join(SUFFIXES)})")
    return Images(redact(pattern), found, loop=loop, fps=fps)


def images_among(paths: Iterable[Path]) -> list[Path]:
    """The regular files with an image's suffix, in natural order, without hidden ones (macOS's ``._0001.png``).

    Reading a named pipe would hang.
    """
    images = (p for p in paths if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    return sorted(images, key=_natural)


def _split(path: Path) -> tuple[Path, str]:
    """The longest part of a path that is a folder, and the rest."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder, str(path.relative_to(folder))


def _pages(path: Path) -> Generator[tuple[Page, float | None], None, None]:
    """The decoded pages of an image, turned upright, with the seconds that each is to be shown if the file says.

    Raises:
        SourceError: it cannot be read or decoded.
    """
    library, turn = _library()
    shown = redact(str(path))
    if (kind := _UNSUPPORTED.get(path.suffix.lower())) is not None:
        raise SourceError(f"cannot decode {kind}: {shown} (convert it: magick FILE FILE.png)")
    try:
        with library.open(path, formats=_FORMATS) as opened:
            paged = opened.format in _PAGED
            for number in range(opened.n_frames if paged else 1):
                if paged:
                    opened.seek(number)
                if opened.width * opened.height > MAX_PIXELS:
                    raise SourceError(f"image too large: {shown} (scale it down to at most {MAX_PIXELS} pixels)")
                opened.load()
                yield turn(opened), _duration(opened)
    except SourceError:
        raise
    except library.DecompressionBombError:
        raise SourceError(f"image too large: {shown} (scale it down to at most {MAX_PIXELS} pixels)") from None
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise nearly anything on damaged data)
        if isinstance(error, OSError) and error.errno is not None:
            cure = "check that it exists and is readable"
            raise SourceError(f"cannot read {shown}: {error.strerror} ({cure})") from None
        cure = "empty or damaged: remove it or make it again"
        raise SourceError(f"not an image that can be decoded: {shown} ({cure})") from None


def _duration(page: Page) -> float | None:
    """Seconds that a page is to be shown, or None if the file does not say."""
    if page.format == "TIFF" or getattr(page, "n_frames", 1) == 1:
        return None
    seconds = 1e-3 * float(page.info.get("duration", 0))
    return seconds if seconds >= _INSTANT else _SLOW


def _library() -> tuple[ModuleType, Callable[[Page], Page]]:
    """Pillow's module ``PIL.Image``, and its function that turns a picture upright by its EXIF data. Neither prints."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise SourceError(f"Pillow cannot be loaded: {reason} (pip install pillow)") from error
    # Damaged metadata, and pictures of many pixels: our own messages say what matters.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # Python prints what no handler takes
    _silence()
    return Image, ImageOps.exif_transpose


@functools.cache
def _silence() -> None:
    """Let libtiff print nothing about damaged files. Pillow has no way to ask for it, but links to the library."""
    from PIL import _imaging

    with contextlib.suppress(OSError, AttributeError):  # a Pillow without it, or one that hides its functions
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _natural(path: Path) -> list[tuple[int, str]]:
    # Split at the digits: "img10.png" becomes img, 10, .png. Odd places hold the numbers.
    parts = re.split(r"([0-9]+)", str(path))
    return [(int(part), part) if place % 2 else (0, part) for place, part in enumerate(parts)]
