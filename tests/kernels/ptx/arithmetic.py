"""The arithmetic of each instruction, on arrays with one element per thread.

Approximate instructions (``div.full``, ``ex2.approx``, ``sqrt.approx``) are computed exactly and rounded once. So is
``fma``, except that its sum is first rounded to float64. A GPU's results differ in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """A type of operands.

    Attributes:
        bits: width of a register that holds one; 1 for a predicate.
        decode: converts bits to values.
        encode: converts values to bits.
    """

    bits: int
    decode: Callable[[Array], Array]
    encode: Callable[[Array], Array]


@dataclass(frozen=True)
class Operation:
    """The arithmetic of one opcode: the kinds of its result and sources, and the function."""

    result: Kind
    sources: tuple[Kind, ...]
    function: Callable[..., Array]


def _plain(code: str, bits: int) -> Kind:
    def encode(values: Array) -> Array:
        return np.ascontiguousarray(values.astype(code, copy=False)).view(f"u{bits // 8}")

    return Kind(bits, lambda x: x.view(code), encode)


def _widen(bits: Array) -> Array:
    widened: Array = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return widened


def _narrow(values: Array) -> Array:
    """Round to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.asarray(np.where(np.isnan(values), np.uint16(0x7FFF), rounded))


def _pair(bits: Array) -> Array:
    return bits.view(np.float32).reshape(-1, 2)


KINDS = {
    "pred": Kind(1, lambda x: x, lambda x: x),
    "bf16": Kind(16, _widen, _narrow),
    "f32x2": Kind(64, _pair, lambda x: np.ascontiguousarray(x, np.float32).view(np.uint64).reshape(-1)),
    **{f"f{bits}": _plain(f"f{bits // 8}", bits) for bits in (16, 32, 64)},
    **{f"{sign}{bits}": _plain(f"i{bits // 8}", bits) for sign in "s" for bits in (16, 32, 64)},
    **{f"{sign}{bits}": _plain(f"u{bits // 8}", bits) for sign in "ub" for bits in (16, 32, 64)},
}
_FLOATS = ("f32", "f64", "f32x2")


def _fma(a: Array, b: Array, c: Array) -> Array:
    return (a.astype(np.float64) * b + c).astype(np.float32)


def _flushed(function: Callable[..., Array]) -> Callable[..., Array]:
    """Treat subnormal inputs and results as zeros of the same sign (``.ftz``)."""

    def flush(x: Array) -> Array:
        return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)

    return lambda *x: flush(function(*map(flush, x)))


def _shift(function: Callable[..., Array], bits: int, signed: bool) -> Callable[..., Array]:
    """A shift that is also defined for the width or more, unlike NumPy's: the result is then only the sign, or 0."""

    def shifted(x: Array, by: Array) -> Array:
        most = by.dtype.type(bits - 1)
        done = function(x, np.minimum(by, most).astype(x.dtype))
        return done if signed else np.asarray(np.where(by > most, x.dtype.type(0), done))

    return shifted


def _high(bits: int) -> Callable[..., Array]:
    def high(a: Array, b: Array) -> Array:
        wide = np.dtype(f"{a.dtype.kind}8")
        product: Array = (a.astype(wide) * b.astype(wide)) >> wide.type(bits)
        return product

    return high


def _field(signed: bool) -> Callable[..., Array]:
    """A bit field of a 32-bit word; bits past the end of the word are the sign, or 0."""

    def field(a: Array, place: Array, length: Array) -> Array:
        word, start, bits = a.astype(np.int64) & 0xFFFFFFFF, *(x.astype(np.int64) & 0xFF for x in (place, length))
        inside = np.clip(32 - start, 0, bits)
        mask = (np.int64(1) << inside) - 1
        sign = (word >> np.minimum(start + bits - 1, 31).clip(0)) & (bits > 0) & signed
        found = (word >> np.minimum(start, 32)) & mask
        return np.asarray(np.where(sign != 0, found | ~mask, found))

    return field


def _choose(a: Array, b: Array, first: Array) -> Array:
    return np.asarray(np.where(first, a, b))


def _divide(a: Array, b: Array) -> Array:
    """Divide integers and round towards zero, unlike NumPy. PTX leaves division by zero undefined."""
    b = np.where(b == 0, b.dtype.type(1), b)
    up: Array = (a % b != 0) & ((a < 0) != (b < 0))
    return np.asarray(a // b + up.astype(a.dtype))


_FLOAT: dict[str, tuple[int, Callable[..., Array]]] = {  # sources, function
    "add.rn": (2, np.add),
    "sub.rn": (2, np.subtract),
    "mul.rn": (2, np.multiply),
    "fma.rn": (3, _fma),
    "div.full": (2, np.divide),
    "div.rn": (2, np.divide),
    "max": (2, np.fmax),  # a NaN and a number give the number
    "min": (2, np.fmin),
    "neg": (1, np.negative),
    "abs": (1, np.abs),
    "sqrt.approx": (1, np.sqrt),
    "sqrt.rn": (1, np.sqrt),
    "rcp.approx": (1, np.reciprocal),
    "rcp.rn": (1, np.reciprocal),
    "rsqrt.approx": (1, lambda x: np.reciprocal(np.sqrt(x.astype(np.float64)))),
    "ex2.approx": (1, np.exp2),
}
_INTEGER: dict[str, tuple[int, Callable[..., Array]]] = {
    "add": (2, np.add),
    "sub": (2, np.subtract),
    "mul.lo": (2, np.multiply),
    "mad.lo": (3, lambda a, b, c: a * b + c),
    "max": (2, np.maximum),
    "min": (2, np.minimum),
    "div": (2, _divide),
    "rem": (2, lambda a, b: a - _divide(a, b) * b),
    "neg": (1, np.negative),
    "abs": (1, np.abs),
}
_LOGIC: dict[str, tuple[int, Callable[..., Array]]] = {
    "and": (2, np.bitwise_and),
    "or": (2, np.bitwise_or),
    "xor": (2, np.bitwise_xor),
    "not": (1, np.invert),
}
_ORDER = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def operation(opcode: tuple[str, ...]) -> Operation | None:
    """The arithmetic of an opcode; None if it is not arithmetic, or unknown."""
    name, *middle = opcode
    kinds: list[str] = []
    while middle and middle[-1] in KINDS:
        kinds.insert(0, middle.pop())
    if name == "setp":
        return _compare(middle, kinds)
    if name == "selp" and not middle and len(kinds) == 1:
        kind = KINDS[f"b{KINDS[kinds[0]].bits}"]
        return Operation(kind, (kind, kind, KINDS["pred"]), _choose)
    if name == "cvt":
        return _convert(middle, kinds)
    if not kinds:
        return None
    kind, last = KINDS[kinds[-1]], kinds[-1]
    if kinds[0] in _FLOATS:
        return _float(name, middle, kinds)
    if len(kinds) != 1:
        return None
    if name in _LOGIC and not middle and last[0] in "bp":
        count, function = _LOGIC[name]
        return Operation(kind, (kind,) * count, function)
    if name in ("shl", "shr") and not middle and last in ("b16", "b32", "b64", "u32", "u64", "s32", "s64"):
        function = _shift(
            np.left_shift if name == "shl" else np.right_shift, kind.bits, name == "shr" and last[0] == "s"
        )
        return Operation(kind, (kind, KINDS["u32"]), function)
    return _integer(name, middle, last) if last[0] in "us" else None


def _float(name: str, middle: list[str], kinds: list[str]) -> Operation | None:
    flush = "ftz" in middle and kinds == ["f32"]
    how = [word for word in middle if not (flush and word == "ftz")]
    key = ".".join([name, *how])
    if key in ("add", "sub", "mul"):
        key += ".rn"
    if key not in _FLOAT:
        return None
    count, function = _FLOAT[key]
    result = KINDS[kinds[0]]
    if key == "fma.rn" and kinds[0] == "f64":
        return None
    if len(kinds) == 1:
        return Operation(result, (result,) * count, _flushed(function) if flush else function)
    if len(kinds) == 2 and kinds[0] == "f32" and kinds[1] in ("f16", "bf16") and key in ("add.rn", "sub.rn", "fma.rn"):
        # All sources but the last are halves, which are converted to float32 first.
        half = KINDS[kinds[1]]
        wide = Kind(16, lambda x: half.decode(x).astype(np.float32), half.encode)
        return Operation(result, (*[wide] * (count - 1), result), function)
    return None


def _integer(name: str, middle: list[str], type_: str) -> Operation | None:
    kind, bits = KINDS[type_], KINDS[type_].bits
    key = ".".join([name, *middle])
    if key in _INTEGER:
        count, function = _INTEGER[key]
        return Operation(kind, (kind,) * count, function)
    if key == "bfe" and bits == 32:
        return Operation(kind, (kind, KINDS["u32"], KINDS["u32"]), _field(type_[0] == "s"))
    if key == "mul.hi" and bits == 32:
        return Operation(kind, (kind, kind), _high(bits))
    if key in ("mul.wide", "mad.wide") and bits < 64:
        wide = KINDS[f"{type_[0]}{2 * bits}"]
        narrow = Kind(
            bits, lambda x: kind.decode(x).astype(f"{'u' if type_[0] == 'u' else 'i'}{bits // 4}"), kind.encode
        )
        if name == "mul":
            return Operation(wide, (narrow, narrow), np.multiply)
        return Operation(wide, (narrow, narrow, wide), lambda a, b, c: a * b + c)
    return None


def _compare(middle: list[str], kinds: list[str]) -> Operation | None:
    if len(middle) != 1 or len(kinds) != 1 or kinds[0] in ("f32x2", "pred"):
        return None
    (how,), (type_,) = middle, kinds
    kind = KINDS[type_]
    if type_[0] == "u":
        how = _UNSIGNED.get(how, how)
    real = type_[0] == "f" or type_ == "bf16"
    if how in _ORDER and not (type_[0] == "b" and not real and how not in ("eq", "ne")):
        if how == "ne" and real:  # false for a NaN, like every ordered comparison
            return Operation(KINDS["pred"], (kind, kind), lambda a, b: (a < b) | (a > b))
        return Operation(KINDS["pred"], (kind, kind), _ORDER[how])
    if real and how[-1] == "u" and how[:-1] in _ORDER:
        ordered = _ORDER[how[:-1]]
        return Operation(KINDS["pred"], (kind, kind), lambda a, b: ordered(a, b) | np.isnan(a) | np.isnan(b))
    if real and how in ("nan", "num"):
        return Operation(KINDS["pred"], (kind, kind), lambda a, b: (np.isnan(a) | np.isnan(b)) == (how == "nan"))
    return None


def _convert(middle: list[str], kinds: list[str]) -> Operation | None:
    if middle == ["rn", "f16x2"] or middle == ["rn", "bf16x2"]:
        half = KINDS[middle[1][:-2]]
        if kinds != ["f32"]:
            return None
        # The first source is the upper half.
        return Operation(
            KINDS["b32"],
            (KINDS["f32"],) * 2,
            lambda a, b: (half.encode(a).astype(np.uint32) << np.uint32(16)) | half.encode(b).astype(np.uint32),
        )
    if len(kinds) != 2:
        return None
    result, source = kinds
    floats = [type_[0] == "f" or type_ == "bf16" for type_ in kinds]
    code = (
        "f4"
        if result == "bf16"
        else f"{ {'u': 'u', 'b': 'u', 's': 'i', 'f': 'f'}[result[0]] }{KINDS[result].bits // 8}"
    )
    wider = KINDS[result].bits > KINDS[source].bits
    if floats[0] != floats[1] and not floats[0]:
        return None  # a float to an integer, which our kernels never do
    if "b" in (result[0], source[0]) and not all(floats):
        return None
    # An inexact conversion must name its rounding; an exact one must not.
    exact = (all(floats) and wider) or not any(floats)
    if middle != ([] if exact else ["rn"]):
        return None
    return Operation(KINDS[result], (KINDS[source],), lambda x: x.astype(code))
