"""Bad input at scale: damaged files, requests and command lines, and what becomes of them (``make fuzz``).

Each kind has its mutants (``tests/fuzz/``). A seed makes the same input on every machine with the same versions. A
process of its own tries them, with bounds on time and memory. An input survives (it gives frames, or loads) or is
refused in one line. All else is a fault: it is printed with the command that repeats it, and kept in ``out/fuzz``.

    python benchmarks/fuzz.py                            # all kinds, 13,800 inputs
    python benchmarks/fuzz.py --kind onnx --seed 1234    # one input again: prints what it does, and keeps it
    python benchmarks/fuzz.py --kind onnx --input FOLDER # an input that was kept
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from _machine import header, script

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # tests/ is no installed package

from tests.fuzz import worker  # noqa: E402
from tests.fuzz.campaign import FINE, MEMORY, SECONDS, Tally, attempt_saved, campaign  # noqa: E402

COLUMNS = (
    "kind          tried  survived  refused  crashed  hung  traceback  printed  memory  seconds  slowest s  peak MB"
)
SHOWN, WIDTH = 12, 300  # lines of a fault, and characters of a line
FAULTS = ("crashed", "hung", "traceback", "printed", "memory")


def main() -> None:
    """Try all inputs, or repeat one; exit with 1 if any is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=worker.KINDS, action="append", help="only these (default: all)")
    parser.add_argument("--seed", type=int, help="try this input only, and say what became of it")
    parser.add_argument("--input", type=Path, help="try the input in this folder")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--inputs", type=int, help="how many of each kind (default: as many as the kind says)")
    parser.add_argument("--keep", type=Path, default=ROOT / "out" / "fuzz", help="where inputs are kept")
    options = parser.parse_args()
    kinds = options.kind or [*worker.KINDS]
    if options.seed is not None or options.input is not None:
        if len(kinds) != 1:
            parser.error("name one --kind")
        sys.exit(repeat(kinds[0], options.seed, options.input, options.keep))
    print(header())
    print(f"limits    {SECONDS:.0f} s of the processor and {MEMORY >> 20} MB for each input")
    print(f"seeds     from {options.first}\n\n{COLUMNS}")
    whole = Tally()
    for kind in kinds:
        count = options.inputs or worker.load(kind).inputs
        tally = campaign(kind, options.first, count, Progress(kind, count))
        print(row(kind, tally), flush=True)
        known: set[str] = set()  # the same fault is shown once
        for fault in tally.faults:
            place = keep(kind, fault.seed, options.keep)
            print(f"{fault.verdict}: python benchmarks/fuzz.py --kind {kind} --seed {fault.seed}  ({place})")
            lines = fault.text.strip().splitlines()[-SHOWN:] or [""]
            if lines[-1] not in known:
                print("".join(f"    {line[:WIDTH]}\n" for line in lines), end="", flush=True)
            known.add(lines[-1])
        whole.verdicts += tally.verdicts
        whole.seconds += tally.seconds
        whole.slowest, whole.peak = max(whole.slowest, tally.slowest), max(whole.peak, tally.peak)
    print(row("all", whole))
    sys.exit(any(whole.verdicts[name] for name in FAULTS))


class Progress:
    """Shows on a terminal how far a kind is.

    Args:
        kind: its name.
        count: how many inputs it tries.
    """

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.count, self.shown = kind, count, 0.0

    def __call__(self, tally: Tally) -> None:
        """Show it at most ten times a second."""
        if sys.stderr.isatty() and time.monotonic() - self.shown > 0.1:
            self.shown = time.monotonic()
            done = tally.verdicts.total()
            end = "\r" if done < self.count else "\033[K\r"
            print(f"{self.kind}: {done} of {self.count}\033[K", end=end, file=sys.stderr, flush=True)


def row(kind: str, tally: Tally) -> str:
    """A line of the table."""
    count = tally.verdicts
    faults = "".join(f"{count[name]:>{width}}" for name, width in zip(FAULTS, (9, 6, 11, 9, 8), strict=True))
    return (
        f"{kind:<12}{count.total():>7}{count['survived']:>10}{count['refused']:>9}{faults}"
        f"{tally.seconds:>9.0f}{tally.slowest:>11.1f}{tally.peak / (1 << 20):>9.0f}"
    )


def keep(kind: str, seed: int, place: Path) -> Path:
    """Make an input again and keep it."""
    with tempfile.TemporaryDirectory() as whole:
        worker.make(worker.load(kind)(Path(whole)), kind, seed, folder := place / f"{kind}-{seed}")
    return folder


def repeat(kind: str, seed: int | None, folder: Path | None, place: Path) -> int:
    """Try one input, and print what became of it; return the exit code."""
    if folder is None:
        assert seed is not None
        folder = keep(kind, seed, place)
    (verdict,) = (tally := attempt_saved(kind, folder)).verdicts
    print(f"{kind} in {folder}: {verdict}, {tally.seconds:.2f} s, {tally.peak / (1 << 20):.0f} MB")
    for fault in tally.faults:
        print(fault.text.strip())
    return int(verdict not in FINE)


if __name__ == "__main__":
    script(main)
