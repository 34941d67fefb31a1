"""Checks that several commands make before they begin anything that takes long."""

from __future__ import annotations

import fnmatch
import glob
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from framecast.errors import OptionError

LARGEST = 16384  # pixels a side of a picture


def check_numbers(**values: int | None) -> None:
    """Options that count something must be 1 or more. None stands for one that was not given.

    Raises:
        OptionError: one is below 1.
    """
    for name, value in values.items():
        if value is not None and value < 1:
            raise OptionError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def check_amounts(**values: float) -> None:
    """Options that measure something must be 0 or more, and finite.

    Raises:
        OptionError: one is not.
    """
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise OptionError(f"--{name.replace('_', '-')} must be 0 or more, not {value:g}")


def duration(option: str, text: str) -> float:
    """Read a time such as 120ms, 0.12s or 120 (milliseconds), in seconds.

    Less than a millisecond is refused without its unit: who types 0.12 means seconds.

    Args:
        option: as it is typed, ``--ahead``.
        text: what was given.

    Raises:
        OptionError: it is not a time.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}) ?(ms|s|)", text.strip(), re.ASCII)
    if found is None:
        raise OptionError(f"{option} {text!r} is not a time: give milliseconds or seconds, such as 120ms or 0.12s")
    if not found[2] and 0 < float(found[1]) < 1:
        raise OptionError(f"{option} {text} would be milliseconds: write {text}s, or {text}ms if that is meant")
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


def milliseconds(option: str, text: str) -> list[float]:
    """Read times such as 40,100,200 or 40ms,0.1s, in milliseconds.

    Args:
        option: as it is typed, ``--ahead``.
        text: what was given.

    Raises:
        OptionError: a part is not a time.
    """
    return [1e3 * duration(option, part) for part in text.split(",")]


def picture_size(option: str, text: str) -> tuple[int, int]:
    """Read a size such as 640x480: (width, height) in pixels.

    Args:
        option: as it is typed, ``--size``.
        text: what was given.

    Raises:
        OptionError: it is not a size.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(0 < side <= LARGEST for side in size):
        raise OptionError(f"{option} takes WIDTHxHEIGHT in pixels, such as 640x480 (up to {LARGEST} each), not {text}")
    return size


def check_outputs(source: str, outputs: Sequence[Path]) -> None:
    """No output may replace an input or another output.

    Raises:
        OptionError: one would.
    """
    place = source.removeprefix("file://")  # or a URI that is no path at all
    taken = {os.path.realpath(path) for path in [place, *glob.glob(place)]}  # noqa: PTH207
    for path in outputs:
        where = os.path.realpath(path)
        # In a folder of images, or under its glob, it would be an input of the next run.
        if where in taken or os.path.realpath(path.parent) in taken or fnmatch.fnmatch(path, place):
            raise OptionError(f"{path} is among the inputs, or named twice: give every output a place of its own")
        taken.add(where)


def check_ending(option: str, path: Path | None, ending: str) -> None:
    """A file is written in the format that its option names, so its name must say the same.

    Args:
        option: as it is typed, ``--json``.
        path: that was given, or None.
        ending: that it must have, ``.json``.

    Raises:
        OptionError: it has another.
    """
    if path is not None and path.suffix.lower() != ending:
        raise OptionError(f"{option} {path}: give a file that ends in {ending}")


def check_clips(*places: str) -> None:
    """Clips can be opened. Cameras are left alone, because some cannot be opened twice.

    Raises:
        SourceError: one cannot.
    """
    from framecast.camera import is_camera, open_source

    for place in dict.fromkeys(places):
        if not is_camera(place):
            open_source(place).close()
