"""Read JSON strictly with msgspec, into dataclasses that declare types and bounds."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
MAX_CHARACTERS = 1 << 26  # a run that lists 100 000 files needs a sixth of this
_PLACE = re.compile(r"(?P<what>.+) - at `(?:key in )?\$\.?(?P<where>.*)`")


def decode(text: str | bytes, kind: type[T], limit: int = MAX_CHARACTERS) -> T:
    """Read JSON as a value of ``kind``. Unknown fields are ignored, including nested ones.

    Args:
        text: the JSON; bytes must be UTF-8.
        kind: a dataclass, or another type that msgspec supports. ``Annotated[..., msgspec.Meta(...)]`` sets bounds.
        limit: the maximum length of ``text``, in characters.

    Raises:
        ValueError: ``text`` is not JSON, or does not fit ``kind``. The message is one line; put it in brackets.
    """
    text = text.decode() if isinstance(text, bytes) else text
    if len(text) > limit:
        raise ValueError(f"longer than {limit} characters")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: UTF-8 cannot encode the text
        raise ValueError(_reason(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def convert(value: Any, kind: type[T]) -> T:
    """Like :func:`decode`, but from a value in memory. Numbers may be strings.

    Raises:
        ValueError: the value does not fit ``kind``.
    """
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Turn ``Expected `float` > 0.0 - at `$.interval``` into ``interval: expected float > 0.0``."""
    found = _PLACE.fullmatch(str(error))
    what = str(error) if found is None else found["what"]
    what = what[:1].lower() + what[1:] if what[1:2].islower() else what  # not JSON
    return (what if found is None else f"{found['where']}: {what}").replace("`", "")
