"""Parses a PTX module with one kernel into instructions.

It knows only the syntax that Triton's backend writes. Anything else is a fault, because an interpreter that skips
unknown syntax would accept wrong kernels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BITS = {"pred": 1, "b8": 8, "b16": 16, "b32": 32, "b64": 64}
_NOTES = re.compile(r"//[^\n]*|/\*.*?\*/|^\s*\.(loc|file|version|target|address_size|pragma)\b[^\n]*", re.M | re.S)
_NUMBER = re.compile(r"-?(0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|0[xX][0-9a-fA-F]+|\d+)U?")


class Fault(Exception):  # noqa: N818 (a finding of the tests, not an error in them)
    """Something that would go wrong on a GPU, or that this interpreter does not know."""


@dataclass(frozen=True)
class Register:
    """A register, or a special one such as ``%tid.x``."""

    name: str


@dataclass(frozen=True)
class Number:
    """A constant: an integer, or the bits of a float."""

    value: int


@dataclass(frozen=True)
class Symbol:
    """A label, a parameter or a variable in shared memory."""

    name: str


@dataclass(frozen=True)
class Address:
    """An address in memory: a base and an offset in bytes."""

    base: Register | Symbol
    offset: int


@dataclass(frozen=True)
class Vector:
    """Several registers in braces; None where ``_`` drops a part."""

    parts: tuple[Register | None, ...]


Operand = Register | Number | Symbol | Address | Vector


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: the source text.
        opcode: parts of the opcode, such as ``("ld", "global", "v2", "b32")``.
        operands: the operands in order; the destination is first.
        guard: the predicate that it depends on, and whether that must be false.
    """

    text: str
    opcode: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: tuple[str, bool] | None


@dataclass(frozen=True)
class Program:
    """A kernel.

    Attributes:
        name: name of its entry.
        parameters: names in order; each is 64 bits wide.
        threads: threads per block that the kernel requires.
        registers: width of each register in bits.
        shared: bytes and alignment of each variable in shared memory; 0 bytes for the dynamic one.
        labels: index of the instruction after each label.
        instructions: the instructions in order.
    """

    name: str
    parameters: tuple[str, ...]
    threads: int
    registers: dict[str, int]
    shared: dict[str, tuple[int, int]]
    labels: dict[str, int]
    instructions: tuple[Instruction, ...]


def parse(ptx: str) -> Program:
    """Parse a module.

    Raises:
        Fault: there is not exactly one kernel, or the syntax is unknown.
    """
    text = _NOTES.sub("", ptx)
    entries = re.findall(r"\.visible\s+\.entry\s+(\w+)\s*\(([^)]*)\)\s*([^{]*)\{", text)
    if len(entries) != 1 or ".func" in text:
        raise Fault(f"a module with {len(entries)} kernels or with functions, not with one kernel")
    name, given, directives = entries[0]
    start = text.index("{", text.index(".entry")) + 1
    head, body = text[: text.index(".visible")], text[start : _end(text, start)]
    parameters = [re.fullmatch(r"\s*\.param\s+\.u64\s[^,]*?(\w+)\s*", one) for one in given.split(",")]
    if not all(parameters):
        raise Fault(f"{name} has parameters that are not 64 bits wide: {given}")
    threads = re.fullmatch(r"\.reqntid\s+(\d+)", directives.strip())
    if not threads:
        raise Fault(f"{name} has unknown directives, or no number of threads: {directives}")
    shared = re.findall(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]\s*;", head + body)
    registers: dict[str, int] = {}
    labels: dict[str, int] = {}
    instructions: list[Instruction] = []
    for statement in body.split(";"):
        rest = statement.strip()
        while label := re.match(r"([\w$]+)\s*:", rest):
            labels[label[1]] = len(instructions)
            rest = rest[label.end() :].strip()
        if rest.startswith(".reg"):
            _declare(rest, registers)
        elif rest and not rest.startswith(".shared"):
            instructions.append(_instruction(rest))
    return Program(
        name=name,
        parameters=tuple(found[1] for found in parameters if found),
        threads=int(threads[1]),
        registers=registers,
        shared={variable: (int(size or 0), int(align)) for align, variable, size in shared},
        labels=labels,
        instructions=tuple(instructions),
    )


def _end(text: str, start: int) -> int:
    depth = 1
    for found in re.finditer(r"[{}]", text[start:]):
        depth += 1 if found[0] == "{" else -1
        if not depth:
            return start + found.start()
    raise Fault("the kernel's body does not end")


def _declare(statement: str, registers: dict[str, int]) -> None:
    found = re.fullmatch(r"\.reg\s+\.(\w+)\s+(%\w+?)(?:<(\d+)>)?", statement)
    if not found or found[1] not in BITS:
        raise Fault(f"unknown declaration: {statement}")
    names = [f"{found[2]}{i}" for i in range(int(found[3]))] if found[3] else [found[2]]
    registers.update(dict.fromkeys(names, BITS[found[1]]))


def _instruction(statement: str) -> Instruction:
    found = re.fullmatch(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", statement, re.S)
    if not found:
        raise Fault(f"unreadable instruction: {statement}")
    pieces = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", found[4])
    guard = (found[2], found[1] == "!") if found[2] else None
    opcode = tuple(found[3].split("."))
    return Instruction(" ".join(statement.split()), opcode, tuple(map(_operand, pieces)), guard)


def _operand(text: str) -> Operand:
    if text[0] == "{":
        parts = [part.strip() for part in text[1:-1].split(",")]
        return Vector(tuple(None if part == "_" else _register(part) for part in parts))
    if text[0] == "[":
        base, _, offset = text[1:-1].replace(" ", "").partition("+")
        start = _operand(base)
        if not isinstance(start, (Register, Symbol)):
            raise Fault(f"unreadable address: {text}")
        return Address(start, int(offset or "0", 0))
    if text[0] == "%":
        return _register(text)
    if _NUMBER.fullmatch(text):
        return Number(_number(text))
    if re.fullmatch(r"[A-Za-z_$][\w$]*", text):
        return Symbol(text)
    raise Fault(f"unreadable operand: {text}")


def _register(text: str) -> Register:
    if not re.fullmatch(r"%[\w.]+", text):
        raise Fault(f"unreadable register: {text}")
    return Register(text)


def _number(text: str) -> int:
    digits = text.rstrip("U") if text[:2].lower() not in ("0f", "0d") else text
    if digits[:2].lower() in ("0f", "0d"):
        return int(digits[2:], 16)
    return int(digits, 0)
