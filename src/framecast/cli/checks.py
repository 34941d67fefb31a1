"""Checks that several commands make before any long work."""

from __future__ import annotations

import fnmatch
import glob
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from framecast.errors import OptionError

LARGEST = 16384  # pixels: maximum side of a picture


def check_numbers(**values: int | None) -> None:
    """Check options that count something: each must be at least 1, or None if the user did not give it.

    Raises:
        OptionError: a value is below 1.
    """
    for name, value in values.items():
        if value is not None and value < 1:
            raise OptionError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def check_amounts(**values: float) -> None:
    """Check options that hold an amount: each must be finite and at least 0.

    Raises:
        OptionError: a value is not.
    """
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise OptionError(f"--{name.replace('_', '-')} must be 0 or more, not {value:g}")


def duration(option: str, text: str) -> float:
    """Parse a time such as 120ms, 0.12s or 120 (milliseconds). Returns seconds.

    A number below 1 needs a unit, because a user who types 0.12 probably means seconds.

    Args:
        option: the option's name, such as ``--ahead``.
        text: the user's value.

    Raises:
        OptionError: ``text`` is not a time.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}) ?(ms|s|)", text.strip(), re.ASCII)
    if found is None:
        raise OptionError(f"{option} {text!r} is not a time: give milliseconds or seconds, such as 120ms or 0.12s")
    if not found[2] and 0 < float(found[1]) < 1:
        raise OptionError(f"{option} {text} has no unit: write {text}s for seconds, or {text}ms for milliseconds")
    return float(found[1]) * (1.0 if found[2] == "s" else 1e-3)


def period(option: str, text: str) -> float:
    """Read a time such as 30s, 10min or 1h, in seconds.

    Args:
        option: as it is typed, ``--segment``.
        text: what was given.

    Raises:
        OptionError: it is not a time.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{0,3})?) ?(s|min|h)", text.strip(), re.ASCII)
    if found is None:
        raise OptionError(f"{option} {text!r} is not a time: give seconds, minutes or hours, such as 30s, 10min or 1h")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]


def amount(option: str, text: str) -> float:
    """Read a size such as 500MB or 20GB, in bytes.

    Args:
        option: as it is typed, ``--keep``.
        text: what was given.

    Raises:
        OptionError: it is not a size.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{0,3})?) ?(MB|GB|TB)", text.strip(), re.ASCII | re.IGNORECASE)
    if found is None:
        raise OptionError(f"{option} {text!r} is not a size: give MB, GB or TB, such as 500MB or 20GB")
    return float(found[1]) * {"MB": 1e6, "GB": 1e9, "TB": 1e12}[found[2].upper()]


def patience(option: str, text: str) -> float:
    """Parse a time that somebody is willing to wait, such as 15s. Returns seconds.

    Args:
        option: the option's name, such as ``--timeout``.
        text: the user's value.

    Raises:
        OptionError: ``text`` is not a time, or less than 0.1 s: a user who types 15 probably means seconds.
    """
    seconds = duration(option, text)
    if seconds < 0.1:
        number = text.strip()
        cure = f"write seconds as {number}s" if number.isdigit() and seconds else "give at least 100ms"
        raise OptionError(f"{option} {number} is {1e3 * seconds:g} ms, too short to wait: {cure}")
    return seconds


def durations(option: str, text: str) -> list[float]:
    """Parse times such as 40,100,200 or 40ms,0.1s. Returns seconds.

    Args:
        option: the option's name, such as ``--ahead``.
        text: the user's value.

    Raises:
        OptionError: a part is not a time.
    """
    return [duration(option, part) for part in text.split(",")]


def picture_size(option: str, text: str) -> tuple[int, int]:
    """Parse a size such as 640x480. Returns (width, height) in pixels.

    Args:
        option: the option's name, such as ``--size``.
        text: the user's value.

    Raises:
        OptionError: ``text`` is not a size.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(0 < side <= LARGEST for side in size):
        raise OptionError(f"{option} takes WIDTHxHEIGHT in pixels, such as 640x480 (up to {LARGEST} each), not {text}")
    return size


def check_outputs(source: str, outputs: Sequence[Path]) -> None:
    """Check that no output would replace an input or another output.

    Raises:
        OptionError: an output would.
    """
    place = source.removeprefix("file://")  # may also be a URI that is not a path
    taken = {os.path.realpath(path) for path in [place, *glob.glob(place)]}  # noqa: PTH207
    for path in outputs:
        where = os.path.realpath(path)
        # In the source's folder of images, or matching its glob, the output would be an input of the next run.
        if where in taken or os.path.realpath(path.parent) in taken or fnmatch.fnmatch(path, place):
            raise OptionError(f"{path} is among the inputs, or named twice: give each output its own path")
        taken.add(where)


def check_ending(option: str, path: Path | None, ending: str) -> None:
    """Check that an output file's suffix matches the format that its option stands for.

    Args:
        option: the option's name, such as ``--json``.
        path: the user's path, if any.
        ending: the required suffix, such as ``.json``.

    Raises:
        OptionError: the path has another suffix.
    """
    if path is not None and path.suffix.lower() != ending:
        raise OptionError(f"{option} {path}: give a file that ends in {ending}")


def check_clips(*places: str) -> None:
    """Check that clips can be opened. Cameras are not checked, because some cannot be opened twice.

    Raises:
        SourceError: a clip cannot be opened.
    """
    from framecast.camera import is_camera, open_source

    for place in dict.fromkeys(places):
        if not is_camera(place):
            open_source(place).close()
