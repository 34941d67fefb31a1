"""Reads an artifact's file once, so that what was checked is what runs, and refuses what no export of ours contains.

It needs no onnx: it walks the few protobuf messages of ONNX that can hold a tensor or an operator.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from framecast.errors import ArtifactError, one_line
from framecast.files import IrregularFileError, read_regular

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
_TYPE, _FLOATS, _INTEGERS, _DOUBLES, _RAW = 2, 4, 5, 10, 9  # the same: the element type, and where the elements may be
_HALF = 10  # the element type float16
_DTYPES: Mapping[int, str] = {1: "<f4", _HALF: "<f2", 11: "<f8"}  # of the element types that can be NaN
_OPERATOR = {"node": (4, 7), "function": (1, 10)}  # fields with the operator's name and its domain
_STANDARD = ("", "ai.onnx", "framecast")  # the last one is graph.manifest.DOMAIN
MOST_OPERATORS = 1 << 16  # with every call of a function replaced by its body; our exports have up to 1,200
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types; groups are not used


def contents(path: Path, largest: int = LARGEST) -> bytes:
    """Read an artifact's file. Nobody can swap the file between a check of these bytes and their use.

    Raises:
        ArtifactError: it cannot be read, is not a regular file, or is larger than ``largest`` bytes.
    """
    try:
        return read_regular(path, largest)
    except IrregularFileError as error:
        raise ArtifactError(f"{path} is not a regular file: give the path of an artifact") from error
    except (OSError, ValueError, MemoryError) as error:
        if getattr(error, "errno", None) == errno.EFBIG:
            raise ArtifactError(f"{path} is too large for an artifact: more than {largest} bytes") from error
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ArtifactError(f"cannot read {path}: {reason} (check the path and its permissions)") from error


def graph_bytes(path: Path) -> bytes:
    """Read an ONNX file that must contain all its weights. Every engine and command reads graphs through here.

    Weights in other files are refused, however they are linked: a hard link would pass any check of paths. Refused as
    well are sparse weights and functions within functions, by which a small file takes any memory and time; operators
    that are neither ONNX's nor ours nor defined in the file; weights that are no numbers;
    and float16 that is listed as integers.

    Raises:
        ArtifactError: it cannot be read, is not ONNX, or contains what is refused.
    """
    data = contents(path)
    try:
        wrong = _Walk(data).wrong()
    except (IndexError, ValueError) as error:
        raise ArtifactError(f"{path} is not an ONNX file: make one with 'framecast export'") from error
    if wrong:
        raise ArtifactError(f"{path} {wrong}: export it again")
    return data


_Name = tuple[str, str]  # of an operator or function: domain and name


@dataclass
class _Body:
    """The operators of a graph or function, including those of its branches and loops."""

    own: int = 0  # operators that are not calls
    calls: dict[_Name, int] = field(default_factory=dict)


class _Walk:
    """Looks at every tensor and operator of a model once.

    Raises:
        ValueError: it is not a model.
        IndexError: it is cut off.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._wrong: dict[str, str] = {}  # by kind
        self._nodes: list[tuple[_Name | None, _Name]] = []  # the function that an operator is in, and its name
        self._functions: set[_Name] = set()
        waiting: list[tuple[str, int, int, _Name | None]] = [("model", 0, len(data), None)]
        while waiting:
            kind, begin, end, inside = waiting.pop()
            if kind == "tensor":
                self._tensor(begin, end)
                continue
            if kind == "function":
                inside = self._name(kind, begin, end)
                if inside in self._functions:
                    raise ValueError("a function is defined twice")
                self._functions.add(inside)
            elif kind == "node":
                self._nodes.append((inside, self._name(kind, begin, end)))
            elif kind == "sparse":
                self._wrong["sparse"] = "has sparse weights, which framecast does not read"
            for number, start, stop in _fields(data, begin, end):
                if (inner := _FIELDS[kind].get(number)) is not None:
                    waiting.append((inner, start, stop, inside))

    def wrong(self) -> str | None:
        """What is refused, in words that follow the file's name; None if nothing is."""
        for reason in ("external", "sparse", "nan", "listed"):
            if reason in self._wrong:
                return self._wrong[reason]
        for _, (domain, name) in self._nodes:
            if domain not in _STANDARD and (domain, name) not in self._functions:
                return f"has an operator that framecast does not know ({one_line(f'{domain}.{name}')})"
        if self._unfolded() > MOST_OPERATORS:
            return f"unfolds into more than {MOST_OPERATORS} operators"
        return None

    def _unfolded(self) -> int:
        """The number of operators once each call of a function is replaced by its body. Endless if one calls itself."""
        bodies: dict[_Name | None, _Body] = {None: _Body(), **{name: _Body() for name in self._functions}}
        for inside, name in self._nodes:
            body = bodies[inside]
            if name in self._functions:
                body.calls[name] = body.calls.get(name, 0) + 1
            else:
                body.own += 1
        sizes: dict[_Name | None, int] = {}
        while None not in sizes:
            ready = [one for one, body in bodies.items() if one not in sizes and body.calls.keys() <= sizes.keys()]
            if not ready:
                return MOST_OPERATORS + 1
            for known in ready:
                calls = sum(count * sizes[called] for called, count in bodies[known].calls.items())
                sizes[known] = min(bodies[known].own + calls, MOST_OPERATORS + 1)
        return sizes[None]

    def _name(self, kind: str, begin: int, end: int) -> _Name:
        wanted = _OPERATOR[kind]
        found = {number: self._data[start:stop] for number, start, stop in _fields(self._data, begin, end)}
        name, domain = (found.get(number, b"").decode() for number in wanted)
        return domain, name

    def _tensor(self, begin: int, end: int) -> None:
        found: dict[int, tuple[int, int]] = {}
        for number, start, stop in _fields(self._data, begin, end):
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and self._data[start:stop] != b"\0"):
                self._wrong["external"] = "keeps its weights in other files, which framecast does not read"
            found[number] = start, stop
        if "nan" in self._wrong or _TYPE not in found:
            return
        kind = _varint(self._data, found[_TYPE][0])[0]
        if kind == _HALF and _INTEGERS in found:  # a NaN would hide there
            self._wrong["listed"] = "lists float16 weights as integers"
        for number, dtype in ((_RAW, _DTYPES.get(kind)), (_FLOATS, "<f4"), (_DOUBLES, "<f8")):
            if number in found and dtype is not None and self._nan(*found[number], np.dtype(dtype)):
                self._wrong["nan"] = "has weights that are not numbers (NaN)"

    def _nan(self, start: int, stop: int, dtype: np.dtype[Any]) -> bool:
        count = (stop - start) // dtype.itemsize
        # The minimum is NaN if any value is, and needs no memory.
        return count > 0 and bool(np.isnan(np.frombuffer(self._data, dtype, count, start).min()))


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
