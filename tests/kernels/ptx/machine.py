"""Launches a kernel with its real grid and arguments, and runs all threads of several blocks at once.

Threads that diverge run one group after another, the one furthest behind first, until they meet again. Blocks are
independent, so it does not matter how many run at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .memory import Memory  # noqa: TID252 (pytest's importlib mode puts no folder of tests on the path)
from .parse import Fault, Instruction, Program, Symbol, parse  # noqa: TID252
from .steps import Step, step  # noqa: TID252
from .threads import Array, Mask, Threads  # noqa: TID252

LANES = 1 << 13  # threads at once; few enough that their registers fit into a cache
MOST_STEPS = 50_000  # a block that runs more instructions counts as endless


@lru_cache(maxsize=64)
def prepared(ptx: str) -> tuple[Program, tuple[Step | None, ...]]:
    """A parsed module, and the step of each of its instructions.

    Raises:
        Fault: the module contains something unknown.
    """
    program = parse(ptx)
    return program, tuple(map(step, program.instructions))


def launch(
    memory: Memory,
    ptx: str,
    name: str,
    grid: tuple[int, int],
    threads: int,
    shared: int,
    arguments: Sequence[int],
) -> Counter[str]:
    """Run a kernel to its end and count its opcodes. An instruction that many threads run at once counts as one.

    Args:
        memory: the device's memory.
        ptx: a module.
        name: name of the kernel.
        grid: blocks along x and y.
        threads: threads per block.
        shared: bytes of dynamic shared memory.
        arguments: one for each parameter.

    Raises:
        Fault: an instruction fails; the message names it.
    """
    program, steps = prepared(ptx)
    if (name, threads, len(arguments)) != (program.name, program.threads, len(program.parameters)):
        raise Fault(
            f"{program.name} takes {len(program.parameters)} parameters and {program.threads} threads, but "
            f"{name} was launched with {len(arguments)} and {threads}"
        )
    opcodes = {instruction.opcode for instruction in program.instructions}
    waits = memory.early or ("griddepcontrol", "wait") in opcodes
    memory.early = ("griddepcontrol", "launch_dependents") in opcodes
    counts: Counter[str] = Counter()
    blocks = np.arange(grid[0] * grid[1])
    together = max(1, LANES // threads)
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), together):
            memory.waits = waits
            _run(Threads(program, memory, blocks[start : start + together], grid, shared, arguments), steps, counts)
    memory.waits = False
    memory.finish()
    return counts


def _run(threads: Threads, steps: Sequence[Step | None], counts: Counter[str]) -> None:
    pending: dict[int, Array] = {0: np.ones(threads.lanes, bool)}  # by instruction, the threads waiting there
    taken = 0
    while pending:
        at = min(pending)
        running = pending.pop(at)
        mask: Mask = None if running.all() else running
        while True:
            if at in pending:
                pending[at] |= running
                break
            taken += 1
            if at >= len(steps) or taken > MOST_STEPS:
                raise Fault("runs past the end" if at >= len(steps) else "does not end")
            instruction, execute = threads.program.instructions[at], steps[at]
            counts[".".join(instruction.opcode)] += 1
            try:
                active = threads.condition(*instruction.guard, mask) if instruction.guard else mask
                at += 1
                if execute is None:
                    _direct(threads, instruction, running, active, at, pending)
                    break
                if active is None or active.any():
                    execute(threads, active)
            except Fault as fault:
                raise Fault(f"{threads.program.name} {fault}: {instruction.text}") from None


def _direct(
    threads: Threads, instruction: Instruction, running: Array, goes: Mask, after: int, pending: dict[int, Array]
) -> None:
    """Send threads to a branch target, or end them."""
    goes = running if goes is None else goes
    groups = [(after, running & ~goes)]
    if instruction.opcode[0] == "bra":
        (label,) = instruction.operands
        if not isinstance(label, Symbol) or label.name not in threads.program.labels:
            raise Fault("branches to an unknown label")
        groups.append((threads.program.labels[label.name], goes))
    for at, group in groups:
        if group.any():
            pending[at] = pending[at] | group if at in pending else group
