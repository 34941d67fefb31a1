"""The effect of each instruction on the threads that run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .arithmetic import KINDS, Operation, operation  # noqa: TID252 (pytest's importlib mode puts no folder on the path)
from .memory import Array  # noqa: TID252
from .parse import Address, Fault, Instruction, Number, Operand, Symbol, Vector  # noqa: TID252
from .threads import WARP, Mask, Threads  # noqa: TID252

Step = Callable[[Threads, Mask], None]
# These change the speed of a load, or who sees a store, but not the values.
_HINTS = {"nc", "ca", "cg", "cs", "lu", "wb", "wt", "L1::evict_last", "L1::evict_first", "L1::no_allocate"}
_WHOLE_WARP = 0xFFFFFFFF


def step(instruction: Instruction) -> Step | None:
    """The effect of an instruction; None for branches and returns.

    Raises:
        Fault: the instruction is unknown.
    """
    head, *rest = instruction.opcode
    operands = instruction.operands
    if instruction.opcode in (("ret",), ("bra",), ("bra", "uni")):
        return None
    found = operation(instruction.opcode)
    made: Step | None = None
    if found and len(operands) == 1 + len(found.sources):
        # Of all arithmetic, only a conversion from an integer may read a register that is wider than its type.
        chopped = head == "cvt" and rest[-1][0] in "us"
        made = _select(operands, found) if head == "selp" else _compute(operands, found, chopped)
    elif head in _STEPS:
        made = _STEPS[head](rest, operands)
    if made is None:
        raise Fault(f"unknown instruction: {instruction.text}")
    return made


def _compute(operands: Sequence[Operand], found: Operation, chopped: bool = False) -> Step:
    result, sources = operands[0], operands[1:]
    pairs_only = {found.result, *found.sources} == {KINDS["f32x2"]}  # the two halves are independent

    def compute(threads: Threads, mask: Mask) -> None:
        pairs = zip(sources, found.sources, strict=True)
        values = [kind.decode(threads.read(source, kind.bits, chopped)) for source, kind in pairs]
        bad = (threads.halves if pairs_only else threads.bad)(*sources)
        threads.write(result, found.result.encode(found.function(*values)), mask, bad)

    return compute


def _select(operands: Sequence[Operand], found: Operation) -> Step:
    """A selection (``selp``). The source that is not selected may be undefined."""
    compute = _compute(operands, found)
    result, first, second, by = operands

    def select(threads: Threads, mask: Mask) -> None:
        one, other, doubt = threads.bad(first), threads.bad(second), threads.bad(by)
        if one is None and other is None and doubt is None:
            return compute(threads, mask)
        p, a, b = threads.read(by, 1), *(threads.read(x, found.result.bits) for x in (first, second))
        bad = np.where(p, False if one is None else one, False if other is None else other)
        return threads.write(result, np.where(p, a, b), mask, bad if doubt is None else bad | doubt)

    return select


def _move(rest: list[str], operands: Sequence[Operand]) -> Step | None:
    if len(rest) != 1 or rest[0] not in KINDS or len(operands) != 2:
        return None
    bits, (result, source) = KINDS[rest[0]].bits, operands

    def move(threads: Threads, mask: Mask) -> None:
        threads.write(result, threads.read(source, bits), mask, threads.halves(source))

    def split(threads: Threads, mask: Mask) -> None:
        assert isinstance(result, Vector)
        value = threads.read(source, bits)
        count, bad = len(result.parts), threads.halves(source)
        parts = value.view(f"u{bits // 8 // count}").reshape(len(value), count)
        for i, part in enumerate(result.parts):  # the first part is the lowest
            if part is not None:
                missing = None if bad is None else bad[:, 2 * i // count]
                threads.write(part, np.ascontiguousarray(parts[:, i]), mask, missing)

    def join(threads: Threads, mask: Mask) -> None:
        assert isinstance(source, Vector)
        given = [part for part in source.parts if part is not None]
        parts = [threads.read(part, bits // len(source.parts)) for part in given]
        lanes = max(map(len, parts))
        whole = np.stack([np.broadcast_to(part, (lanes,)) for part in parts], axis=1)
        half = len(given) // 2
        low, high = threads.bad(*given[:half]), threads.bad(*given[half:])
        bad = None
        if low is not None or high is not None:
            bad = np.stack([np.zeros(threads.lanes, bool) if x is None else x for x in (low, high)], axis=1)
        threads.write(result, whole.view(f"u{bits // 8}").reshape(-1), mask, bad)

    if isinstance(source, Vector):
        return join if None not in source.parts else None
    return split if isinstance(result, Vector) else move


def _place(rest: list[str], operand: Operand) -> tuple[str, int, int, int] | None:
    """The space, number of words, bits per word and bits per address of a load or store."""
    space, *how = [word for word in rest if word not in _HINTS]
    vector = {"v2": 2, "v4": 4}.get(how[0], 0) if len(how) == 2 else 1
    if space not in ("global", "shared", "param") or not vector or len(how) not in (1, 2) or how[-1] not in KINDS:
        return None
    given = len(operand.parts) if isinstance(operand, Vector) else 1
    kind = KINDS[how[-1]]
    if given != vector or how[-1] in ("pred", "f32x2") or vector * kind.bits > 128:
        return None
    return space, vector, kind.bits, 32 if space == "shared" else 64


def _words(operand: Operand) -> list[Operand]:
    return [part for part in operand.parts if part is not None] if isinstance(operand, Vector) else [operand]


def _load(rest: list[str], operands: Sequence[Operand]) -> Step | None:
    place = _place(rest, operands[0]) if len(operands) == 2 else None
    address = operands[-1]
    if place is None or not isinstance(address, Address):
        return None
    space, count, bits, wide = place
    results = _words(operands[0])

    def parameter(threads: Threads, mask: Mask) -> None:
        names = threads.program.parameters
        if not isinstance(address.base, Symbol) or address.base.name not in names or address.offset or bits != 64:
            raise Fault(f"reads {address}, which is not a whole parameter")
        value = threads.arguments[names.index(address.base.name)]
        threads.write(results[0], np.array([value], np.uint64), mask, None)

    def load(threads: Threads, mask: Mask) -> None:
        at, lanes = threads.addresses(address, wide, mask)
        if space == "shared":
            words, bad = threads.shared.load(at, threads.block[lanes], threads.warp[lanes], bits // 8, count)
        else:
            words, bad = threads.memory.load(at, bits // 8, count)
        missing = None if bad is None else threads.spread(bad, lanes)
        for i, result in enumerate(results):
            threads.write(result, threads.spread(words[:, i], lanes), mask, missing)

    if len(results) != count:
        return None
    return parameter if space == "param" else load


def _store(rest: list[str], operands: Sequence[Operand]) -> Step | None:
    place = _place(rest, operands[-1]) if len(operands) == 2 else None
    address = operands[0]
    if place is None or place[0] == "param" or not isinstance(address, Address):
        return None
    space, count, bits, wide = place
    sources = _words(operands[1])

    def store(threads: Threads, mask: Mask) -> None:
        at, lanes = threads.addresses(address, wide, mask)
        words = [threads.all(threads.read(source, bits))[lanes] for source in sources]
        bad = [None if missing is None else missing[lanes] for missing in map(threads.bad, sources)]
        if space == "shared":
            threads.shared.store(at, threads.block[lanes], threads.warp[lanes], words, bad, bits // 8)
            return
        if any(missing is not None and missing.any() for missing in bad):
            raise Fault("stores a value that was never written in some threads")
        threads.memory.store(at, words, bits // 8)

    return store if len(sources) == count else None


def _shuffle(rest: list[str], operands: Sequence[Operand]) -> Step | None:
    if len(rest) != 3 or rest[0] != "sync" or rest[1] not in ("up", "down", "bfly", "idx") or rest[2] != "b32":
        return None
    if len(operands) != 5 or not isinstance(operands[4], Number) or operands[4].value & _WHOLE_WARP != _WHOLE_WARP:
        return None
    how, (result, source, by, limits) = rest[1], operands[:4]
    if not isinstance(by, Number) or not isinstance(limits, Number):
        return None
    key = how, by.value, limits.value

    def shuffle(threads: Threads, mask: Mask) -> None:
        _warps(threads, mask)
        index = threads.partners.get(key)
        if index is None:
            index = threads.partners[key] = np.arange(threads.lanes) - threads.lane + _partner(*key, threads.lane)
        bad = threads.halves(source)
        threads.write(result, threads.all(threads.read(source, 32))[index], mask, None if bad is None else bad[index])

    return shuffle


def _partner(how: str, by: int, limits: int, lane: Array) -> Array:
    """The lane that each lane takes a value from: itself if the other is out of bounds."""
    by, bound, segment = by & 31, limits & 31, (limits >> 8) & 31
    most = (lane & segment) | (bound & ~segment)
    other = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": (lane & segment) | (by & ~segment)}[how]
    partner: Array = np.where(other >= most if how == "up" else other <= most, other, lane)
    return partner


def _barrier(rest: list[str], operands: Sequence[Operand]) -> Step | None:
    def block(threads: Threads, mask: Mask) -> None:
        threads.shared.barrier(threads.whole(mask, threads.block, threads.shared.blocks))

    if len(operands) != 1 or not isinstance(operands[0], Number):
        return None
    if rest == ["warp", "sync"] and operands[0].value & _WHOLE_WARP == _WHOLE_WARP:
        return lambda threads, mask: _warps(threads, mask)
    return block if rest == ["sync"] and operands[0].value == 0 else None


def _warps(threads: Threads, mask: Mask) -> None:
    """Check that all threads of a warp are present, or none."""
    if mask is not None:
        threads.whole(mask, np.arange(threads.lanes) // WARP, threads.lanes // WARP)


def _matrix(rest: list[str], operands: Sequence[Operand]) -> Step | None:
    """Load matrices of 8 rows of 8 halves. 8 threads give a matrix's row addresses; each thread gets 2 halves of it."""
    count = {"x1": 1, "x2": 2, "x4": 4}.get(rest[3], 0) if len(rest) == 6 else 0
    if not count or rest[:3] + rest[4:] != ["sync", "aligned", "m8n8", "shared", "b16"] or len(operands) != 2:
        return None
    results, address = _words(operands[0]), operands[1]
    if len(results) != count or not isinstance(address, Address):
        return None

    def matrix(threads: Threads, mask: Mask) -> None:
        if mask is not None:
            raise Fault("loads a matrix in only some threads")
        at, _ = threads.addresses(address, 32, None)
        first = np.arange(threads.lanes) - threads.lane
        for i, result in enumerate(results):
            rows = at[first + 8 * i + threads.lane // 4]
            if (rows % 16).any():
                raise Fault("reads a row at an address that is not a multiple of 16")
            places = rows + (4 * (threads.lane % 4)).astype(rows.dtype)
            words, bad = threads.shared.load(places, threads.block, threads.warp, 4, 1)
            threads.write(result, np.ascontiguousarray(words[:, 0]), None, bad)

    return matrix


def _dependency(rest: list[str], operands: Sequence[Operand]) -> Step | None:
    """Programmatic dependent launch: until the wait, an earlier launch may still be running."""

    def wait(threads: Threads, mask: Mask) -> None:
        if mask is not None:
            raise Fault("waits in only some threads")
        threads.memory.waits = False

    if operands or rest not in (["wait"], ["launch_dependents"]):
        return None
    return wait if rest == ["wait"] else lambda threads, mask: None


_STEPS: dict[str, Callable[[list[str], Sequence[Operand]], Step | None]] = {
    "mov": _move,
    "ld": _load,
    "st": _store,
    "shfl": _shuffle,
    "bar": _barrier,
    "ldmatrix": _matrix,
    "griddepcontrol": _dependency,
}
