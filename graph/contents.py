"""Reads an artifact's file once, so that what was checked is what runs, and refuses weights in other files.

It needs no onnx: it walks the few protobuf messages of ONNX that can hold a tensor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from framecast.errors import ArtifactError

LARGEST = (1 << 31) - 1  # bytes: protobuf's limit on a message
# The fields of each ONNX message that hold messages with tensors, by number (onnx.proto).
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types; groups are not used


def contents(path: Path, largest: int = LARGEST) -> bytes:
    """Read an artifact's file. Nobody can swap the file between a check of these bytes and their use.

    Raises:
        ArtifactError: it cannot be read, is not a regular file, or is larger than ``largest`` bytes.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ArtifactError(f"{path} is not a regular file: give the path of an artifact")
            data = file.read(largest + 1) if found.st_size <= largest else b""
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ArtifactError(f"cannot read {path}: {reason} (check the path and its permissions)") from error
    if found.st_size > largest or len(data) > largest:
        raise ArtifactError(f"{path} is too large for an artifact: more than {largest} bytes")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """Open a file. A pipe that nobody writes to does not block."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # not on Windows


def graph_bytes(path: Path) -> bytes:
    """Read an ONNX file that must contain all its weights. Every engine and command reads graphs through here.

    Weights in other files are refused, however they are linked: a hard link would pass any check of paths.

    Raises:
        ArtifactError: it cannot be read, is not ONNX, or keeps weights in other files.
    """
    data = contents(path)
    # Data in another file has a "location". Most graphs contain no such word, so this saves most walks.
    if b"location" in data:
        try:
            external = _is_external(data)
        except (IndexError, ValueError) as error:
            raise ArtifactError(f"{path} is not an ONNX file: make one with 'framecast export'") from error
        if external:
            raise ArtifactError(
                f"{path} keeps its weights in other files, which framecast does not read: export it again"
            )
    return data


def _is_external(data: bytes) -> bool:
    """Whether any tensor of a model refers to another file."""
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, begin, end = waiting.pop()
        for number, start, stop in _fields(data, begin, end):
            if kind == "tensor":
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and data[start:stop] != b"\0"):
                    return True
            elif (inner := _FIELDS[kind].get(number)) is not None:
                waiting.append((inner, start, stop))
    return False


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the fields of a message: the number, and where the value begins and ends.

    Raises:
        ValueError: it is not a message.
        IndexError: it is cut off.
    """
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            start, (_, at) = at, _varint(data, at)
        elif wire == _BYTES:
            size, start = _varint(data, at)
            at = start + size
        elif wire in (_FIXED32, _FIXED64):
            start, at = at, at + (4 if wire == _FIXED32 else 8)
        else:
            raise ValueError("a group")
        if at > end:
            raise ValueError("cut off")
        yield key >> 3, start, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer, and where the next value begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
