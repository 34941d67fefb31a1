"""Images: a folder, a glob, or a single file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from framecast.camera import cv
from framecast.camera.clip import Clip
from framecast.camera.source import DEFAULT_FPS, Image
from framecast.errors import SourceError
from framecast.redact import redact

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of images, in upper or lower case."""


class Images(Clip):
    """Images as the frames of a clip at 25 frames a second.

    Args:
        name: their name in messages.
        paths: the images, in order.
        loop: restart at the end instead of ending.
    """

    def __init__(self, name: str, paths: Sequence[Path], *, loop: bool = False) -> None:
        self._cv = cv.load()
        super().__init__(name, DEFAULT_FPS, loop)
        self._paths = paths
        self._rewind()

    def _next(self) -> Image | None:
        path = next(self._left, None)
        return None if path is None else self._decode(path)

    def _rewind(self) -> None:
        self._left = iter(self._paths)

    def _release(self) -> None:
        self._left = iter(())

    def _decode(self, path: Path) -> Image:
        try:
            # Do not read a file that is larger than an uncompressed image of MAX_PIXELS.
            small = path.stat().st_size <= 8 * cv.MAX_PIXELS
            encoded = np.frombuffer(path.read_bytes() if small else b"", np.uint8)
        except OSError as error:
            raise SourceError(
                f"cannot read {redact(str(path))}: {error.strerror} (check that it exists and is readable)"
            ) from None
        try:
            image: Image | None = self._cv.imdecode(encoded, self._cv.IMREAD_COLOR) if encoded.size else None
        except self._cv.error:  # larger than MAX_PIXELS
            image = None
        if image is None:
            cure = f"empty, damaged, or larger than {cv.MAX_PIXELS} pixels: remove it or make it again"
            raise SourceError(f"not an image that can be decoded: {redact(str(path))} ({cure})")
        return image


def open_folder(folder: Path, *, loop: bool) -> Images:
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
    return Images(redact(str(folder)), found, loop=loop)


def open_glob(pattern: str, *, loop: bool) -> Images:
    """Open the images that match a pattern (``frames/*.png``, ``**/left_*.jpg``), in natural order.

    Raises:
        SourceError: the pattern matches no images, or is not a pattern.
    """
    anchor = Path(pattern).anchor
    try:
        found = images_among(Path(anchor).glob(str(Path(pattern).relative_to(anchor))))
    except (OSError, ValueError):  # ValueError: "**" that is not a whole component
        found = []
    if not found:
        raise SourceError(f"no images match {redact(pattern)} (looked for {' '.join(SUFFIXES)})")
    return Images(redact(pattern), found, loop=loop)


def images_among(paths: Iterable[Path]) -> list[Path]:
    """The regular files with an image's suffix, in natural order. Reading a named pipe would hang."""
    return sorted((p for p in paths if p.suffix.lower() in SUFFIXES and p.is_file()), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    # Split at the digits: "img10.png" becomes img, 10, .png. Odd places hold the numbers.
    parts = re.split(r"([0-9]+)", str(path))
    return [(int(part), part) if place % 2 else (0, part) for place, part in enumerate(parts)]
