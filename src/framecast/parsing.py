"""Read JSON strictly: into dataclasses whose types and bounds are declared, by msgspec."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
MAX_CHARACTERS = 1 << 26  # a run that lists 100 000 files takes a sixth of that
_PLACE = re.compile(r"(?P<what>.+) - at `(?:key in )?\$\.?(?P<where>.*)`")


def decode(text: str | bytes, kind: type[T], limit: int = MAX_CHARACTERS) -> T:
    """Read JSON as a value of ``kind``. Fields that ``kind`` does not have are ignored, nested ones too.

    Args:
        text: the JSON; bytes must be UTF-8.
        kind: a dataclass, or another type that msgspec knows. ``Annotated[..., msgspec.Meta(...)]`` gives bounds.
        limit: characters that it may have.

    Raises:
        ValueError: it is no JSON, or not such a value. The message is one line, made to stand in brackets.
    """
    text = text.decode() if isinstance(text, bytes) else text
    if len(text) > limit:
        raise ValueError(f"longer than {limit} characters")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: a text that UTF-8 cannot hold
        raise ValueError(_reason(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def convert(value: Any, kind: type[T]) -> T:
    """Like :func:`decode`, of a value that is in memory; texts may stand for numbers.

    Raises:
        ValueError: it is not such a value.
    """
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """``Expected `float` > 0.0 - at `$.interval``` is ``interval: expected float > 0.0``."""
    found = _PLACE.fullmatch(str(error))
    what = str(error) if found is None else found["what"]
    what = what[:1].lower() + what[1:] if what[1:2].islower() else what  # not JSON
    return (what if found is None else f"{found['where']}: {what}").replace("`", "")
