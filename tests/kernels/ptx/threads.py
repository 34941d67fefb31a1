"""The threads of several blocks: their registers, which are arrays with one element per thread, and shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .memory import Memory, Shared  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .parse import Address, Fault, Number, Operand, Program, Register, Symbol  # noqa: TID252

Array = NDArray[Any]
Mask = NDArray[np.bool_] | None  # which threads; None for all
WARP = 32


class Threads:
    """Threads that run at once.

    A register may hold one element for all threads. A value that was never written is undefined: in the threads that a
    masked load left out, or in the half of a pair that the compiler does not need. Undefined values are passed on, as
    on a GPU. It is a fault to store one, to use it as a predicate, or to use it as an address.

    Attributes:
        lanes: number of threads.
        arguments: arguments of the launch, in order.
        block: block of each thread, counted from 0 among these blocks.
        warp: warp of each thread within its block.
        lane: lane of each thread within its warp.
        partners: by the operands of a shuffle, the thread that each thread takes a value from.
        shared: shared memory of the blocks.
    """

    def __init__(
        self,
        program: Program,
        memory: Memory,
        blocks: Array,
        grid: tuple[int, int],
        shared: int,
        arguments: Sequence[int],
    ) -> None:
        self.program, self.memory, self.arguments = program, memory, arguments
        self.lanes = len(blocks) * program.threads
        thread = np.tile(np.arange(program.threads, dtype=np.uint32), len(blocks))
        self.block = np.repeat(np.arange(len(blocks)), program.threads)
        self.warp, self.lane = (thread // WARP).astype(np.int8), (thread % WARP).astype(np.int64)
        x, y = (np.repeat(part.astype(np.uint32), program.threads) for part in (blocks % grid[0], blocks // grid[0]))
        sizes = {"%ntid.x": program.threads, "%nctaid.x": grid[0], "%nctaid.y": grid[1]}
        self._values: dict[str, Array] = {name: np.array([size], np.uint32) for name, size in sizes.items()}
        self._values |= {"%tid.x": thread, "%ctaid.x": x, "%ctaid.y": y, "%laneid": thread % np.uint32(WARP)}
        self._undefined: dict[str, Array] = {}  # [lanes, 2]: whether the low or high half is undefined
        self.partners: dict[tuple[str, int, int], Array] = {}
        self._places: dict[str, int] = {}
        used = 0
        for name, (size, align) in sorted(program.shared.items(), key=lambda item: not item[1][0]):
            used = -(-used // align) * align
            self._places[name] = Shared.start + used
            used += size or shared  # the dynamic variable is last
        self.shared = Shared(len(blocks), used)

    def read(self, operand: Operand, bits: int, chopped: bool = False) -> Array:
        """The bits of a source: one element, or one per thread. ``chopped`` allows the low bits of a wider register."""
        if isinstance(operand, Number):
            if bits == 1:
                return np.array([operand.value != 0])
            return np.array([operand.value & ((1 << bits) - 1)], f"u{bits // 8}")
        if isinstance(operand, Symbol) and operand.name in self._places and bits in (32, 64):
            return np.array([self._places[operand.name]], f"u{bits // 8}")
        if not isinstance(operand, Register):
            raise Fault(f"reads {operand}, which is not a value")
        value = self._values.get(operand.name)
        if value is None:
            value = self._never_written(operand.name)
        if chopped and _bits(value) > bits > 1:
            return value.astype(f"u{bits // 8}")
        if _bits(value) != bits:
            raise Fault(f"reads {bits} bits of {operand.name}, which has {_bits(value)}")
        return value

    def _never_written(self, name: str) -> Array:
        bits = self.program.registers.get(name)
        if bits is None:
            raise Fault(f"reads {name}, which is not declared")
        value = np.ones(1, bool) if bits == 1 else np.full(1, 2**bits - 1, f"u{bits // 8}")
        self._values[name], self._undefined[name] = value, np.ones((self.lanes, 2), bool)
        return value

    def all(self, value: Array) -> Array:
        """The value with one element per thread."""
        return value if len(value) == self.lanes else np.broadcast_to(value, (self.lanes,))

    def halves(self, *operands: Operand) -> Array | None:
        """[lanes, 2]: where the low or high half of any operand is undefined; None if nowhere."""
        found: Array | None = None
        for operand in operands:
            if not isinstance(operand, Register):
                continue
            if operand.name not in self._values:
                self._never_written(operand.name)
            half = self._undefined.get(operand.name)
            if half is not None:
                found = half if found is None else found | half
        return found

    def bad(self, *operands: Operand) -> Array | None:
        """[lanes]: where any operand is undefined; None if nowhere."""
        found = self.halves(*operands)
        return None if found is None else np.asarray(found.any(axis=1))

    def write(self, operand: Operand, bits: Array, mask: Mask, bad: Array | None) -> None:
        """Write a register in the threads of ``mask``. ``bad`` says where the value, or a half of it, is undefined."""
        name = operand.name if isinstance(operand, Register) else ""
        if self.program.registers.get(name) != _bits(bits):
            raise Fault(f"writes {_bits(bits)} bits to {operand}, of {self.program.registers.get(name)}")
        if bad is not None and bad.ndim == 1:
            bad = np.stack([bad, bad], axis=1)
        if mask is not None:
            old = self._values.get(name)
            if old is None:
                old = self._never_written(name)
            missing = self._undefined.get(name)
            if bad is not None or missing is not None:
                bad = np.where(mask[:, None], False if bad is None else bad, False if missing is None else missing)
            bits = np.where(mask, bits, old)
        self._values[name] = bits
        if bad is not None and bad.any():
            self._undefined[name] = bad
        else:
            self._undefined.pop(name, None)

    def condition(self, name: str, negated: bool, mask: Mask) -> Mask:
        """The threads of ``mask`` in which a predicate holds."""
        register = Register(name)
        self._certain(register, mask, f"depends on {name}")
        value = self.all(self.read(register, 1))
        value = ~value if negated else value
        value = value if mask is None else value & mask
        return None if value.all() else value

    def addresses(self, address: Address, bits: int, mask: Mask) -> tuple[Array, Any]:
        """The addresses of the threads of ``mask``, and an index of these threads."""
        self._certain(address.base, mask, f"uses address {address}")
        lanes = slice(None) if mask is None else np.flatnonzero(mask)
        base = self.all(self.read(address.base, bits))[lanes]
        return base + np.array(address.offset).astype(base.dtype), lanes

    def whole(self, mask: Mask, what: Array, count: int) -> Array:
        """The warps or blocks whose threads are all in ``mask``; a partial one is a fault."""
        if mask is None:
            return np.arange(count)
        there = np.bincount(what[mask], minlength=count)
        size = self.lanes // count
        if ((there != 0) & (there != size)).any():
            raise Fault("needs all threads, but some are elsewhere")
        return np.flatnonzero(there)

    def spread(self, words: Array, lanes: Any) -> Array:
        """Expand the words of some threads to one element per thread."""
        if isinstance(lanes, slice):
            return np.ascontiguousarray(words)
        full = np.zeros(self.lanes, words.dtype)
        full[lanes] = words
        return full

    def _certain(self, operand: Operand, mask: Mask, what: str) -> None:
        bad = self.bad(operand)
        if bad is not None and (bad if mask is None else bad & mask).any():
            raise Fault(f"{what}, which was never written in some threads")


def _bits(value: Array) -> int:
    return 1 if value.dtype == bool else 8 * value.dtype.itemsize
